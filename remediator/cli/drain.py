"""``remediator drain`` and ``undrain``: have a node emptied while it lives, and give it back."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.giving import Giving, give_order, order_options
from remediator.cli.output import dump
from remediator.cli.source_options import SourceChoice
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.engine.views import DrainView, MoveLine
    from remediator.health_query import HealthAnswer

_CODES = {400: ExitCode.USAGE, 404: ExitCode.FINDING, 500: ExitCode.INTERNAL}
_STAYS = "stays"


@click.command()
@click.argument("node")
@click.option("--reason", help="Why; stands in the decision log. Not needed with --dry-run.")
@click.option("--by", metavar="WHO", help="Who asks (default: user@host).")
@click.option("--dry-run", is_flag=True, help="Only show what would be moved, and what cannot be.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    help="Of --dry-run.",
)
@click.option("--nats", metavar="URL", help="Where the leader is found.")
@click.option(
    "--server", metavar="URL", envvar="REMEDIATOR_SERVER", help="With --dry-run: a daemon's API."
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="REMEDIATOR_CONFIG",
    metavar="FILE",
    help="Settings with the login for --nats.",
)
def drain(
    node: str,
    *,
    reason: str | None,
    by: str | None,
    output: str,
    nats: str | None,
    server: str | None,
    config_file: Path | None,
    dry_run: bool,
) -> int:
    r"""Have NODE emptied while it lives, by live migration, and kept empty until undrain.

    It is cordoned; each VM is moved as the policy for Maintenance says. One node is emptied at a
    time: another waits its turn. With --dry-run nothing is done, and the exit code is 1 where
    something would be left on the node, or nothing could begin now.

    \b
      remediator drain n7 --dry-run
      remediator drain n7 --reason 'new DIMMs' --nats nats://nats:4222
    """
    if dry_run:
        return _show(node, SourceChoice(server=server, nats=nats, config_file=config_file), output)
    if not reason or nats is None:
        missing = "--reason" if not reason else "--nats"
        raise CommandError(ExitCode.USAGE, f"{missing} is needed, but for --dry-run")
    return give_order(
        "drain", node, Giving(reason=reason, by=by, nats=nats, config_file=config_file)
    )


@click.command()
@click.argument("node")
@order_options
def undrain(node: str, giving: Giving) -> int:
    """Give NODE back: no more VMs are moved off it, and our cordon comes off."""
    return give_order("undrain", node, giving)


def _show(node: str, choice: SourceChoice, output: str) -> int:
    log_to_stderr()
    answer = run_async(_ask(choice, node))
    if answer.status != 200:
        raise CommandError(_CODES.get(answer.status, ExitCode.NO_DAEMON), answer.detail)
    view = _read(answer)
    if output == "table":
        click.echo(drain_text(view), nl=False)
    else:
        import msgspec  # noqa: PLC0415 - not needed for --help

        click.echo(dump(msgspec.json.decode(answer.view), output), nl=False)
    return ExitCode.OK if _is_clear(view) else ExitCode.FINDING


async def _ask(choice: SourceChoice, node: str) -> HealthAnswer:
    from remediator.cli.health_source import open_health  # noqa: PLC0415 - not needed for --help
    from remediator.health_query import HealthQuery  # noqa: PLC0415 - the same

    async with open_health(choice) as source:
        return await source.answer(HealthQuery(view="drain", name=node))


def _read(answer: HealthAnswer) -> DrainView:
    import msgspec  # noqa: PLC0415 - not needed for --help

    from remediator.engine.views import DrainView  # noqa: PLC0415 - the same

    try:
        return msgspec.json.decode(answer.view, type=DrainView)
    except msgspec.ValidationError as error:
        raise CommandError(
            ExitCode.NO_DAEMON, f"the daemon speaks another version ({error})"
        ) from error


def _is_clear(view: DrainView) -> bool:
    """Whether a drain would leave nothing on the node, and could begin now."""
    return bool(view.policy) and not view.guards and not _left(view)


def _left(view: DrainView) -> list[MoveLine]:
    """Return the VMs that would stay on the node, or have stayed."""
    return [move for move in view.moves if move.how == _STAYS and move.stage in ("", "left")]


def drain_text(view: DrainView) -> str:
    """Return a drain's preview, or its course, as people read it."""
    from remediator.cli.health_text import columns, labelled, moment  # noqa: PLC0415 - the same

    guards = [f"{each.guard}: {each.answer}, {each.why}" for each in view.guards]
    steps = (
        f"{view.policy}: {', '.join(view.steps)}" if view.policy else "none: nothing would be done"
    )
    lines = [
        f"drain of node/{view.name} at {moment(view.at)}",
        *labelled("now", [view.state]),
        *labelled("wanted", [view.wanted or "nobody has asked for it"]),
        *labelled("policy", [steps]),
        *labelled("limits", [view.limits]),
        *labelled("guards", guards or ["all would grant it now"]),
        "",
    ]
    if not view.moves:
        return "\n".join([*lines, "no VM is on it"]) + "\n"
    rows = [_row(move) for move in view.moves]
    lines += columns(("VM", "HOW", "TO", "STAGE", "WHY"), rows)
    left = len(_left(view))
    if left:
        lines.append(f"{left} of {len(view.moves)} VMs cannot be moved, and stay on the node")
    return "\n".join(lines) + "\n"


def _row(move: MoveLine) -> tuple[str, ...]:
    from remediator.cli.health_text import span  # noqa: PLC0415 - the same

    stage = move.stage or "-"
    if move.stage and move.since_s is not None:
        stage += f" for {span(move.since_s)}"
    if move.migration:
        stage += f" ({move.migration})"
    to = move.target or ("KubeVirt's choice" if move.how == "live migration" else "-")
    return f"{move.namespace}/{move.name}", move.how, to, stage, move.why
