"""``remediator fence check`` and ``lint``: what fences, before it is needed."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump, print_table
from remediator.cli.source_options import SourceChoice, live_source_options
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.actions.fence.check_rows import CheckRow
    from remediator.actions.fence.loading import Linted
    from remediator.fence_query import FenceAnswer

_HEADINGS = ("NODE", "DEVICE", "METHOD", "LEVEL", "ANSWER", "IDENTITY", "TOOK", "LAST GOOD")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
def lint(directory: Path) -> int:
    """Check every FenceConfig of DIR; name each fault with file, line and field (exit 1).

    Parameters are held against the fence agents that are installed here; those that are not are
    named.
    """
    linted = run_async(_lint(directory))
    for problem in linted.problems:
        click.echo(str(problem))
    for note in linted.unchecked:
        click.echo(f"{note}: its parameters were not checked", err=True)
    if linted.problems:
        faults = len(linted.problems)
        click.echo(f"{faults} fault{'s' if faults > 1 else ''}", err=True)
        return ExitCode.FINDING
    for one in linted.configs:
        click.echo(f"{one.source}: {one.name}: ok")
    return ExitCode.OK


async def _lint(directory: Path) -> Linted:
    from remediator.actions.fence.agent_catalog import (  # noqa: PLC0415 - not needed for --help
        AgentCatalog,
    )
    from remediator.actions.fence.loading import lint as lint_all  # noqa: PLC0415 - the same

    return await lint_all(directory, AgentCatalog())


@click.command()
@live_source_options
@click.argument("nodes", nargs=-1, metavar="[NODE...]")
@click.option("--now", is_flag=True, help="Have the devices asked now, and wait for their answers.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table"
)
def check(
    nodes: tuple[str, ...],
    output: str,
    server: str | None,
    nats: str | None,
    config_file: Path | None,
    *,
    now: bool,
) -> int:
    """Show how each fence device of NODE (of all nodes) answered last; exit 1 if one is faulty.

    The leader asks them in peace; any daemon may be asked for its table.
    """
    log_to_stderr()
    choice = SourceChoice(server=server, nats=nats, config_file=config_file)
    found = run_async(_ask(choice, nodes, now=now))
    if found.status != 200:
        code = ExitCode.USAGE if found.status == 400 else ExitCode.NO_DAEMON
        raise CommandError(code, found.detail)
    if output in ("json", "yaml"):
        import msgspec  # noqa: PLC0415 - not needed for --help

        click.echo(dump(msgspec.to_builtins(found), output), nl=False)
    else:
        _print(found, wide=output == "wide")
    faulty = any(row.fault for row in found.rows)
    absent = bool(found.unknown) or bool(nodes and found.bare)
    return ExitCode.FINDING if faulty or absent else ExitCode.OK


async def _ask(choice: SourceChoice, nodes: tuple[str, ...], *, now: bool) -> FenceAnswer:
    from remediator.cli.fence_source import ask_and_wait, open_fence, whole  # noqa: PLC0415 - same

    async with open_fence(choice) as source:
        return await (ask_and_wait(source, nodes) if now else whole(source, nodes))


def _print(found: FenceAnswer, *, wide: bool) -> None:
    if found.rows:
        headings: tuple[str, ...] = (*_HEADINGS, "FAULT")
        if wide:
            headings = (*_HEADINGS, "CONFIG", "SOURCE", "SAYS IT IS", "DETAIL", "FAULT")
        print_table(headings, [_line(row, found.at, wide=wide) for row in found.rows], kind_at=4)
    else:
        click.echo("no fence device is configured for these nodes", err=True)
    if found.bare_count:
        more = found.bare_count - len(found.bare)
        named = ", ".join(found.bare) + (f" and {more} more" if more else "")
        click.echo(f"no fence configuration: {named}", err=True)
    if found.unknown:
        click.echo(f"no such node: {', '.join(found.unknown)}", err=True)


def _line(row: CheckRow, at: float, *, wide: bool) -> list[str]:
    from remediator.durations import format_duration  # noqa: PLC0415 - not needed for --help

    asked = row.asked_at > 0
    good = f"{format_duration(float(max(0, round(at - row.good_at))))} ago" if row.good_at else "-"
    told = row.power if asked else "not asked yet"
    if asked and row.power == "unknown" and not row.fault:
        told = "no state"  # its method has none to tell
    fault = f"{row.kind.value}: {row.fault}" if row.fault else "-"
    line = [
        row.node,
        row.device,
        row.method,
        str(row.level),
        told,
        row.owner if asked else "-",
        f"{row.took_s:.1f} s" if asked else "-",
        good,
    ]
    if wide:
        line += [row.config, row.source or "-", row.identity or "-", row.detail or "-"]
    return [*line, fault]
