"""``remediator policy explain``: what would happen right now, and why every other rule says no."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump
from remediator.cli.source_options import SourceChoice, live_source_options
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.engine.policy_view import PolicyView, PolicyWord
    from remediator.health_query import HealthAnswer, HealthQuery

_CODES = {400: ExitCode.USAGE, 404: ExitCode.FINDING, 500: ExitCode.INTERNAL}


@click.command()
@live_source_options
@click.argument("subject", metavar="node/NAME | vm/NAMESPACE/NAME")
@click.option("--if", "verdict", metavar="VERDICT", default="", help="As if it were so, for long.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text")
def explain(
    subject: str,
    verdict: str,
    output: str,
    server: str | None,
    nats: str | None,
    config_file: Path | None,
) -> int:
    """Say what the policies would do about a node or VM now, and why every other would not.

    Any daemon may be asked; the answer is the leader's, by the policies that are in force there.
    """
    query = _query(subject, verdict)
    choice = SourceChoice(server=server, nats=nats, config_file=config_file)
    log_to_stderr()
    answer = run_async(_ask(choice, query))
    if answer.status != 200:
        raise CommandError(_CODES.get(answer.status, ExitCode.NO_DAEMON), answer.detail)
    click.echo(_text(answer, output), nl=False)
    return ExitCode.OK


def _query(subject: str, verdict: str) -> HealthQuery:
    from remediator.health_query import HealthQuery  # noqa: PLC0415 - not needed for --help

    match subject.split("/"):
        case ["node", name] if name:
            return HealthQuery(view="policies", name=name, verdict=verdict)
        case ["vm", namespace, name] if namespace and name:
            return HealthQuery(view="policies", namespace=namespace, name=name, verdict=verdict)
        case _:
            raise CommandError(ExitCode.USAGE, f"{subject!r}: write node/NAME or vm/NAMESPACE/NAME")


async def _ask(choice: SourceChoice, query: HealthQuery) -> HealthAnswer:
    from remediator.cli.health_source import open_health  # noqa: PLC0415 - not needed for --help

    async with open_health(choice) as source:
        return await source.answer(query)


def _text(answer: HealthAnswer, output: str) -> str:
    import msgspec  # noqa: PLC0415 - not needed for --help

    from remediator.engine.policy_view import PolicyView  # noqa: PLC0415 - the same

    if output != "text":
        return dump(msgspec.json.decode(answer.view), output)
    try:
        view = msgspec.json.decode(answer.view, type=PolicyView)
    except msgspec.ValidationError as error:
        raise CommandError(
            ExitCode.NO_DAEMON,
            f"the daemon speaks another version ({error}); -o json shows its answer as it is",
        ) from error
    return "\n".join(lines(view)) + "\n"


def lines(view: PolicyView) -> Iterator[str]:
    """Yield the view for a person."""
    from remediator.durations import format_duration  # noqa: PLC0415 - not needed for --help

    since = "assumed" if view.since_s is None else f"for {format_duration(view.since_s)}"
    row = f" ({view.row})" if view.row else ""
    incident = f", {view.incident}" if view.incident else ""
    yield f"{view.subject} is {view.verdict}{row}, {since}{incident}"
    yield f"policy   {view.chosen or 'none'}"
    for at, line in enumerate(view.would):
        yield f"{'would' if at == 0 else '':8} {line}"
    for guard in view.guards:
        until = f" ({format_duration(guard.in_s)} more)" if guard.in_s is not None else ""
        yield f"but      {guard.guard}: {guard.answer}: {guard.why}{until}"
    yield ""
    chosen = False
    for word in view.words:
        yield f"{_mark(word, after=chosen)} {word.name}"
        chosen = chosen or word.chosen
        for row_ in word.clauses:
            yield f"    {'holds' if row_.held else 'FAILS'}  {row_.clause}: {row_.value}"


def _mark(word: PolicyWord, *, after: bool) -> str:
    if word.chosen:
        return "=>"
    return "~ " if word.matches and after else "- "
