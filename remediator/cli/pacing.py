"""``remediator pacing``: what waits for its start, what boots, why, and when each is back."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump
from remediator.cli.source_options import SourceChoice, live_source_options
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.engine.pacing_view import PacingView
    from remediator.health_query import HealthAnswer

_CODES = {400: ExitCode.USAGE, 500: ExitCode.INTERNAL}
_SHOWN = 15  # VMs of each list in the short table


@click.command()
@live_source_options
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table"
)
def pacing(output: str, server: str | None, nats: str | None, config_file: Path | None) -> int:
    """Show which VMs wait for their start and which boot, why, and when each will be back.

    The table shows the first of each list; -o wide shows them all, and the limits.
    """
    log_to_stderr()
    choice = SourceChoice(server=server, nats=nats, config_file=config_file)
    answer = run_async(_ask(choice))
    if answer.status != 200:
        raise CommandError(_CODES.get(answer.status, ExitCode.NO_DAEMON), answer.detail)
    click.echo(_text(answer, output), nl=False)
    return ExitCode.OK


async def _ask(choice: SourceChoice) -> HealthAnswer:
    from remediator.cli.health_source import open_health  # noqa: PLC0415 - not needed for --help
    from remediator.health_query import HealthQuery  # noqa: PLC0415 - the same

    async with open_health(choice) as source:
        return await source.answer(HealthQuery(view="pacing"))


def _text(answer: HealthAnswer, output: str) -> str:
    import msgspec  # noqa: PLC0415 - not needed for --help

    if output in ("json", "yaml"):
        return dump(msgspec.json.decode(answer.view), output)
    from remediator.engine.pacing_view import PacingView  # noqa: PLC0415 - the same

    try:
        view = msgspec.json.decode(answer.view, type=PacingView)
    except msgspec.ValidationError as error:
        raise CommandError(
            ExitCode.NO_DAEMON,
            f"the daemon speaks another version ({error}); -o json shows its answer as it is",
        ) from error
    return pacing_text(view, wide=output == "wide")


def pacing_text(view: PacingView, *, wide: bool = False) -> str:
    """Return the view as people read it."""
    lines = [f"leader {view.leader}, mode {view.mode}", _summary(view)]
    if view.gate:
        lines.append(f"admission gate {view.gate}")
    if view.boot_s:
        lines.append(f"a boot takes {view.boot_s:g} s undisturbed, {view.took_s:g} s now")
    if view.not_yet:
        lines.append(f"{view.not_yet} VMs of lost hosts are not in it: no proof yet")
    if wide:
        lines += [
            f"fixed limit for each {each.scope}: {_bound(each.at_once, each.per_minute)}"
            for each in view.bounds
        ]
    lines += _boots(view, wide=wide)
    lines += _queue(view, wide=wide)
    if view.left_out:
        lines.append(f"… and {view.left_out} more")
    return "\n".join(lines) + "\n"


def _summary(view: PacingView) -> str:
    from remediator.cli.health_text import span  # noqa: PLC0415 - not needed for --help

    if not view.booting and not view.waiting:
        return f"nothing waits and nothing boots; {view.limit} may boot at once"
    text = f"{view.booting} boot, of {view.limit} that may at once ({view.phase}); "
    text += f"{view.waiting} wait"
    if view.all_back_in_s is not None:
        text += f"; all are back in about {span(view.all_back_in_s)}"
    return text


def _bound(at_once: int | None, per_minute: int | None) -> str:
    said = [f"{at_once} at once"] if at_once is not None else []
    said += [f"{per_minute} a minute"] if per_minute is not None else []
    return ", ".join(said)


def _boots(view: PacingView, *, wide: bool) -> list[str]:
    from remediator.cli.health_text import columns, span  # noqa: PLC0415 - not needed for --help

    if not view.boots:
        return []
    shown = view.boots if wide else view.boots[:_SHOWN]
    rows = [
        (
            each.vm,
            each.tier,
            each.node or "-",
            click.style(span(each.for_s), fg="yellow") if each.late else span(each.for_s),
            "late" if each.late else f"~{span(each.back_in_s)}",
        )
        for each in shown
    ]
    more = [f"… and {len(view.boots) - len(shown)} more"] if len(shown) < len(view.boots) else []
    return ["", *columns(("BOOTS", "TIER", "NODE", "FOR", "BACK IN"), rows), *more]


def _queue(view: PacingView, *, wide: bool) -> list[str]:
    from remediator.cli.health_text import columns, span  # noqa: PLC0415 - not needed for --help

    if not view.queue:
        return []
    shown = view.queue if wide else view.queue[:_SHOWN]
    rows = [
        (
            str(each.position),
            each.vm,
            each.tier,
            span(each.waited_s),
            "?" if each.back_in_s is None else f"~{span(each.back_in_s)}",
            each.why,
        )
        for each in shown
    ]
    more = [f"… and {len(view.queue) - len(shown)} more"] if len(shown) < len(view.queue) else []
    headings = ("#", "WAITS", "TIER", "SINCE", "BACK IN", "BECAUSE")
    return ["", *columns(headings, rows), *more, *(_places(view) if wide else [])]


def _places(view: PacingView) -> list[str]:
    """Say where those that wait would go now, and why there."""
    from remediator.cli.health_text import columns  # noqa: PLC0415 - not needed for --help

    rows = [(each.vm, each.place or "-", each.place_why) for each in view.queue if each.place_why]
    return ["", *columns(("WOULD GO", "TO", "BECAUSE"), rows)] if rows else []
