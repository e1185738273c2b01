"""``remediator decisions``: what was decided and done, and why."""

from __future__ import annotations

import typing
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump, print_table
from remediator.cli.source_options import SourceChoice, open_source, source_options
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.cli.sources import DecisionSource
    from remediator.engine.chain import Decision
    from remediator.engine.rules import Policy
    from remediator.journal.query import DecisionQuery, StoredDecision

HEADINGS = ("SEQ", "TIME (UTC)", "SUBJECT", "KIND", "VERDICT", "ACTION", "OUTCOME", "WHY")
SHOWN_BEFORE_TAIL = 10


@click.group()
def decisions() -> None:
    """Ask the decision log what happened, and why."""


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--text", metavar="WORDS", help="Only records with all these words."),
        click.option("--until", metavar="TIME", help="Only before: like --since."),
        click.option("--since", metavar="TIME", help="Only after: 2h (ago), 2026-11-20T03:12."),
        click.option("--kind", metavar="KIND", help="Only this kind: verdict, planned, refused…"),
        click.option("--policy", metavar="NAME", help="Only incidents answered by this policy."),
        click.option("--verdict", metavar="VERDICT", help="Only with this verdict: Dead…"),
        click.option(
            "--outcome", metavar="OUTCOME", help="Only ended so: succeeded, failed, spared."
        ),
        click.option("--action", metavar="ACTION", help="Only this action: fence, force-stop…"),
        click.option("--incident", metavar="ID", help="Only this incident."),
        click.option("--vm", metavar="[NAMESPACE/]NAME", help="Only about this VM."),
        click.option("--node", metavar="NAME", help="Only about this node."),
        click.option(
            "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table"
        ),
    ):
        command = option(command)
    return command


@decisions.command(name="list")
@source_options
@_filters
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--before", type=click.IntRange(1), metavar="SEQ", help="The next page.")
def list_(output: str, limit: int, before: int | None, **given: Any) -> int:
    """List decisions, newest first."""

    async def work(source: DecisionSource) -> int:
        query = await _query(given, limit=limit, before_seq=before)
        found = await source.select(query)
        _print(found, output)
        if output == "table" and len(found) == limit:
            click.echo(f"older ones: --before {found[-1].seq}", err=True)
        return ExitCode.OK

    return _with_source(given, work)


@decisions.command()
@source_options
@click.argument("seq", type=click.IntRange(1))
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text")
def show(seq: int, output: str, **given: Any) -> int:
    """Explain one decision in plain words, with its whole incident."""

    async def work(source: DecisionSource) -> int:
        from remediator.journal.explain import explain  # noqa: PLC0415 - not needed for --help

        found = await source.get(seq)
        if found is None:
            raise CommandError(ExitCode.FINDING, f"there is no decision {seq} in {source.name}")
        if output != "text":
            click.echo(dump(_plain(found), output), nl=False)
            return ExitCode.OK
        decision = found.decision
        story = await _story(source, decision.incident) if decision.incident else []
        click.echo(explain(decision, [one.decision for one in story]), nl=False)
        return ExitCode.OK

    return _with_source(given, work)


@decisions.command()
@source_options
@_filters
def tail(output: str, **given: Any) -> int:
    """Print the latest decisions, then each new one, until Ctrl-C."""

    async def work(source: DecisionSource) -> int:
        from remediator.cli.sources import follow  # noqa: PLC0415 - not needed for --help

        query = await _query(given, limit=SHOWN_BEFORE_TAIL)
        latest = (await source.select(query))[::-1]
        for one in latest:
            _print_one(one, output)
        after = latest[-1].seq if latest else 0
        async for one in follow(source, msgspec.structs.replace(query, after_seq=after)):
            _print_one(one, output)
        return ExitCode.OK

    return _with_source(given, work)


@decisions.command()
@source_options
@click.argument("seq", type=click.IntRange(1))
@click.option(
    "--policies",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The policies of then; default the shipped ones.",
)
def again(seq: int, directory: Path | None, **given: Any) -> int:
    """Make one decision again from its own record, and say whether it is the same (else exit 1)."""

    async def work(source: DecisionSource) -> int:
        from remediator.cli.again import text_of  # noqa: PLC0415 - not needed for --help
        from remediator.engine.reevaluate import differences, reevaluate  # noqa: PLC0415

        found = await source.get(seq)
        if found is None:
            raise CommandError(ExitCode.FINDING, f"there is no decision {seq} in {source.name}")
        made = reevaluate(found.decision, _policies(directory))
        for line in text_of(found.decision, made):
            click.echo(line)
        return ExitCode.FINDING if differences(found.decision, made) else ExitCode.OK

    return _with_source(given, work)


def _policies(directory: Path | None) -> list[Policy]:
    from remediator.policy import (  # noqa: PLC0415 - not needed for --help
        PolicyError,
        load_directory,
        shipped_directory,
    )

    try:
        return load_directory(directory or shipped_directory())
    except PolicyError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error


@decisions.command()
@source_options
@click.option("--since", metavar="TIME", help="Only after: 30d (ago), 2026-11-20T03:12.")
def export(since: str | None, **given: Any) -> int:
    """Print every record as it was stored, one JSON object a line, oldest first."""

    async def work(source: DecisionSource) -> int:
        from remediator.engine import chain  # noqa: PLC0415 - not needed for --help

        after = (await _query({"since": since})).since
        async for record in source.walk():
            if after is not None:
                try:
                    if chain.decode(record.payload, record.seq).at < after:
                        continue
                except chain.ChainError:
                    pass  # passed on as it is: who reads it says so
            click.echo(record.payload)
        return ExitCode.OK

    return _with_source(given, work)


@decisions.command()
@source_options
def verify(**given: Any) -> int:
    """Walk the whole chain and name the first record that does not fit (exit 1)."""

    async def work(source: DecisionSource) -> int:
        from remediator.cli.verification import walk_chain  # noqa: PLC0415 - not for --help

        report = await walk_chain(source)
        click.echo(report.text)
        return ExitCode.OK if report.sound else ExitCode.FINDING

    return _with_source(given, work)


def _with_source(
    given: dict[str, Any], work: Callable[[DecisionSource], Coroutine[Any, Any, int]]
) -> int:
    choice = SourceChoice(**{name: given.get(name) for name in SourceChoice.__struct_fields__})

    async def opened() -> int:
        async with open_source(choice) as source:
            return await work(source)

    log_to_stderr()
    return run_async(opened())


async def _query(given: dict[str, Any], **more: Any) -> DecisionQuery:
    """Build the question from the options. Ends the command when one of them is wrong."""
    from remediator.clock import Clock  # noqa: PLC0415 - not needed for --help
    from remediator.durations import parse_moment  # noqa: PLC0415 - the same
    from remediator.journal.query import DecisionQuery  # noqa: PLC0415 - the same
    from remediator.typed_tree import convert, dotted  # noqa: PLC0415 - the same

    values: dict[str, Any] = dict(more)
    for name in DecisionQuery.__struct_fields__:
        if given.get(name) is not None:
            values[name] = given[name]
    for name in ("since", "until"):
        if name in values:
            try:
                values[name] = parse_moment(values[name], Clock().now())
            except ValueError as error:
                raise CommandError(ExitCode.USAGE, f"--{name}: {error}") from error
    query, problems = convert(values, DecisionQuery)
    if query is None:
        text = "; ".join(f"--{dotted(one.path)}: {one.text}" for one in problems)
        raise CommandError(ExitCode.USAGE, text)
    return query


async def _story(source: DecisionSource, incident: str) -> list[StoredDecision]:
    from remediator.journal import query as queries  # noqa: PLC0415 - not needed for --help

    found: list[StoredDecision] = []
    question: DecisionQuery | None = queries.story_page(incident)
    while question is not None:
        page = await source.select(question)
        found += page
        question = queries.next_story_page(question, page, len(found))
    return found


def _plain(found: StoredDecision) -> Any:
    return msgspec.json.decode(found.payload)


def _print(found: Sequence[StoredDecision], output: str) -> None:
    if output == "table":
        print_table(HEADINGS, [_row(one.decision) for one in found], kind_at=3)
    else:
        click.echo(dump([_plain(one) for one in found], output), nl=False)


def _print_one(found: StoredDecision, output: str) -> None:
    """Print one record as it comes: a line, or one JSON object a line, or one YAML document."""
    if output == "json":
        click.echo(found.payload)
    elif output == "yaml":
        click.echo("---\n" + dump(_plain(found), output), nl=False)
    else:
        click.echo("  ".join(cell for cell in _row(found.decision) if cell != "-"))


def _row(decision: Decision) -> tuple[str, ...]:
    from remediator.journal.rows import kind_of_work  # noqa: PLC0415 - not needed for --help

    when = datetime.fromtimestamp(decision.at, UTC)
    return (
        str(decision.seq),
        f"{when:%Y-%m-%d %H:%M:%S}",
        str(decision.subject),
        str(decision.kind),
        str(decision.verdict or "-"),
        kind_of_work(decision) or "-",
        str(decision.outcome.status) if decision.outcome else "-",
        decision.why,
    )
