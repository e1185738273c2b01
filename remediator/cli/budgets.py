"""``remediator budgets``: what each limit is, who uses it, and what is withheld now."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump
from remediator.cli.source_options import SourceChoice, live_source_options
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.engine.budget_view import BudgetsView, LimitLine
    from remediator.health_query import HealthAnswer

_CODES = {400: ExitCode.USAGE, 500: ExitCode.INTERNAL}


@click.command()
@live_source_options
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table"
)
def budgets(output: str, server: str | None, nats: str | None, config_file: Path | None) -> int:
    """Show the limits, pauses and approvals, and whose plans they withhold now.

    The table leaves out limits that nobody uses; -o wide shows all of them, and who uses them.
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
        return await source.answer(HealthQuery(view="budgets"))


def _text(answer: HealthAnswer, output: str) -> str:
    import msgspec  # noqa: PLC0415 - not needed for --help

    if output in ("json", "yaml"):
        return dump(msgspec.json.decode(answer.view), output)
    from remediator.engine.budget_view import BudgetsView  # noqa: PLC0415 - the same

    try:
        view = msgspec.json.decode(answer.view, type=BudgetsView)
    except msgspec.ValidationError as error:
        raise CommandError(
            ExitCode.NO_DAEMON,
            f"the daemon speaks another version ({error}); -o json shows its answer as it is",
        ) from error
    return budgets_text(view, wide=output == "wide")


def budgets_text(view: BudgetsView, *, wide: bool = False) -> str:
    """Return the view as people read it."""
    lines = [f"leader {view.leader}, mode {view.mode}"]
    for section in (_limits(view, wide=wide), _pauses(view), _approvals(view), _withheld(view)):
        if section:
            lines += ["", *section]
    return "\n".join(lines) + "\n"


def _limits(view: BudgetsView, *, wide: bool) -> list[str]:
    from remediator.cli.health_text import columns, span  # noqa: PLC0415 - not needed for --help

    def row(each: LimitLine) -> tuple[str, ...]:
        used = click.style(str(each.used), fg="yellow") if each.spent else str(each.used)
        room = "" if each.in_s is None else f"room in {span(each.in_s)}"
        said = [room] if room else []
        if each.who and (wide or each.spent):
            said.append(", ".join(each.who))
        return each.guard, each.about, each.scope, used, str(each.limit), "; ".join(said)

    shown = [each for each in view.limits if wide or each.used or each.spent]
    if not shown:
        return ["no limit is in use (-o wide shows them all)"]
    headings = ("BUDGET", "OF", "SCOPE", "USED", "LIMIT", "")
    return columns(headings, [row(each) for each in shown], right=frozenset({3, 4}))


def _pauses(view: BudgetsView) -> list[str]:
    from remediator.cli.health_text import columns, span  # noqa: PLC0415 - not needed for --help

    rows = [
        (
            each.scope,
            each.meaning,
            span(each.in_s) if each.in_s is not None else "-",
            each.by,
            each.reason,
        )
        for each in view.pauses
    ]
    return columns(("PAUSED", "MEANING", "ENDS IN", "BY", "REASON"), rows) if rows else []


def _approvals(view: BudgetsView) -> list[str]:
    from remediator.cli.health_text import columns, span  # noqa: PLC0415 - not needed for --help

    rows = [
        (
            each.incident,
            each.subject,
            each.policy,
            each.answer,
            span(each.in_s) if each.in_s is not None else "-",
            each.by,
        )
        for each in view.approvals
    ]
    headings = ("APPROVAL", "SUBJECT", "POLICY", "ANSWER", "LAPSES IN", "BY")
    return columns(headings, rows) if rows else []


def _withheld(view: BudgetsView) -> list[str]:
    from remediator.cli.health_text import columns, span  # noqa: PLC0415 - not needed for --help

    rows = [
        (
            line.incident,
            line.subject,
            guard.guard,
            guard.answer,
            span(guard.in_s) if guard.in_s is not None else "-",
            guard.why,
        )
        for line in view.withheld
        for guard in line.guards
    ]
    if not rows:
        return []
    lines = columns(("WITHHELD", "SUBJECT", "GUARD", "ANSWER", "AGAIN IN", "WHY"), rows)
    if view.more_withheld:
        lines.append(f"and {view.more_withheld} incidents more, not looked at")
    return lines
