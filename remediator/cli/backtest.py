"""``remediator policy backtest``: what other policies would have answered to what was recorded."""

from __future__ import annotations

import sys
import typing
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump, print_table
from remediator.cli.source_options import SourceChoice, open_source, source_options
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from rich.progress import Progress

    from remediator.cli.record_file import RecordFile
    from remediator.cli.sources import DecisionSource
    from remediator.engine.rules import Policy
    from remediator.journal.backtest import Backtest, Difference, Report

HEADINGS = ("INCIDENT", "SUBJECT", "TIME (UTC)", "VERDICT", "THEN", "NOW", "WHY")
STEP = 500  # records between two looks at the progress bar


@click.command()
@source_options
@click.option(
    "--policies",
    "directory",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The policies to try.",
)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read exported records (JSON Lines; - is stdin): see decisions export.",
)
@click.option(
    "--since",
    default="30d",
    show_default=True,
    metavar="TIME",
    help="Only decisions after: 30d (ago), 2026-11-20T03:12.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
def backtest(directory: Path, file: Path | None, since: str, output: str, **given: Any) -> int:
    """Put every recorded decision's inputs to the policies of DIR; print what differs (exit 1).

    Compared are the answers to what was asked, as it stood then: which policy, its steps, its
    proof. What would have come of another answer shows in: remediator simulate.
    """
    policies = _load(directory)
    choice = SourceChoice(**{name: given.get(name) for name in SourceChoice.__struct_fields__})

    async def work() -> int:
        from remediator.journal.backtest import Backtest  # noqa: PLC0415 - not for --help

        test = Backtest(policies)
        async with _opened(choice, file) as source:
            await walk(source, test, _moment(since))
            report = test.report()
            _print(report, output, f"{source.name}, since {since}")
        return ExitCode.FINDING if report.differing else ExitCode.OK

    log_to_stderr()
    return run_async(work())


def _load(directory: Path) -> list[Policy]:
    from remediator.policy import PolicyError, load_directory  # noqa: PLC0415 - not for --help

    try:
        return load_directory(directory)
    except PolicyError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error


def _moment(text: str) -> float:
    from remediator.clock import Clock  # noqa: PLC0415 - not needed for --help
    from remediator.durations import parse_moment  # noqa: PLC0415 - the same

    try:
        return parse_moment(text, Clock().now())
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--since: {error}") from error


@asynccontextmanager
async def _opened(
    choice: SourceChoice, file: Path | None
) -> AsyncIterator[DecisionSource | RecordFile]:
    if file is None:
        async with open_source(choice) as source:
            yield source
        return
    from remediator.cli.record_file import RecordFile  # noqa: PLC0415 - not needed for --help

    if given := [name for name in ("server", "db", "nats") if getattr(choice, name) is not None]:
        raise CommandError(ExitCode.USAGE, f"give one of --file and --{given[0]}, not both")
    yield RecordFile(file)


async def walk(source: DecisionSource | RecordFile, test: Backtest, since: float) -> None:
    """Read every record, with a progress bar where stderr is a terminal."""
    from remediator.engine import chain  # noqa: PLC0415 - not needed for --help

    total = await source.last_seq()
    with _progress() as bar:
        task = bar.add_task("records", total=total or None) if bar is not None else None
        read = 0
        async for record in source.walk():
            read += 1
            try:
                decision = chain.decode(record.payload, record.seq)
            except chain.ChainError:
                test.unreadable()
            else:
                if decision.at >= since:
                    test.take(decision)
            if bar is not None and task is not None and read % STEP == 0:
                bar.update(task, completed=read, found=test.differing)
        if bar is not None and task is not None:
            bar.update(task, total=read, completed=read, found=test.differing)


def _progress() -> AbstractContextManager[Progress | None]:
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console  # noqa: PLC0415 - rich costs 100 ms that pipes need not pay
    from rich.progress import (  # noqa: PLC0415 - the same
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("backtest"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[found]} differ"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _print(report: Report, output: str, where: str) -> None:
    if output != "table":
        import msgspec  # noqa: PLC0415 - not needed for --help

        click.echo(dump(msgspec.to_builtins(report), output), nl=False)
        return
    if report.differences:
        print_table(HEADINGS, [_row(one) for one in report.differences], kind_at=3)
    for line in _summary(report, where):
        click.echo(line, err=True)


def _row(one: Difference) -> tuple[str, ...]:
    from remediator.journal.backtest import describe  # noqa: PLC0415 - not needed for --help

    now = describe(one.now)
    if one.later_s:
        now += f" ({one.later_s:g} s later, if the verdict stands)"
    return (
        one.incident,
        one.subject,
        f"{datetime.fromtimestamp(one.at, UTC):%Y-%m-%d %H:%M:%S}",
        str(one.verdict),
        describe(one.then),
        now,
        one.why,
    )


def _summary(report: Report, where: str) -> list[str]:
    asked = f"{report.asked} questions to the policies in {report.incidents} incidents"
    found = f"{report.differing or 'none'} would be answered otherwise"
    lines = [f"{report.records} records ({where}): {asked}; {found}"]
    if report.differing > len(report.differences):
        lines.append(f"only the first {len(report.differences)} differences are shown")
    if report.without_inputs:
        lines.append(
            f"{report.without_inputs} records chose a policy and keep no inputs (an older version "
            "wrote them): not compared"
        )
    if report.unreadable:
        lines.append(f"{report.unreadable} records could not be read: see decisions verify")
    return lines
