"""``remediator health``: how the cluster is, as its leader sees it, and why."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump
from remediator.cli.source_options import SourceChoice, live_source_options
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.health_query import HealthAnswer, HealthQuery

_CODES = {400: ExitCode.USAGE, 404: ExitCode.FINDING, 500: ExitCode.INTERNAL}


@click.command()
@live_source_options
@click.argument("subject", required=False, metavar="[node/NAME | vm/NAMESPACE/NAME]")
@click.option("--zone", metavar="ZONE", help="Of the cluster: only this zone.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table"
)
def health(
    subject: str | None,
    zone: str | None,
    output: str,
    server: str | None,
    nats: str | None,
    config_file: Path | None,
) -> int:
    """Show how the cluster is, or one node or VM: what is seen, which row decides, what is next.

    Any daemon may be asked; the answer is the leader's, and its times are by the leader's clock.
    """
    query = _query(subject, zone)
    choice = SourceChoice(server=server, nats=nats, config_file=config_file)
    log_to_stderr()
    answer = run_async(_ask(choice, query))
    if answer.status != 200:
        raise CommandError(_CODES.get(answer.status, ExitCode.NO_DAEMON), answer.detail)
    click.echo(_text(answer, query, output), nl=False)
    return ExitCode.OK


def _query(subject: str | None, zone: str | None) -> HealthQuery:
    """Build the question. Ends the command when the arguments make none."""
    from remediator.health_query import HealthQuery  # noqa: PLC0415 - not needed for --help

    if subject is None:
        return HealthQuery(view="cluster", zone=zone or "")
    if zone is not None:
        raise CommandError(ExitCode.USAGE, "--zone is for the whole cluster, not for one subject")
    match subject.split("/"):
        case ["node", name] if name:
            return HealthQuery(view="node", name=name)
        case ["vm", namespace, name] if namespace and name:
            return HealthQuery(view="vm", namespace=namespace, name=name)
        case _:
            raise CommandError(ExitCode.USAGE, f"{subject!r}: write node/NAME or vm/NAMESPACE/NAME")


async def _ask(choice: SourceChoice, query: HealthQuery) -> HealthAnswer:
    from remediator.cli.health_source import open_health  # noqa: PLC0415 - not needed for --help

    async with open_health(choice) as source:
        return await source.answer(query)


def _text(answer: HealthAnswer, query: HealthQuery, output: str) -> str:
    import msgspec  # noqa: PLC0415 - not needed for --help

    if output in ("json", "yaml"):
        return dump(msgspec.json.decode(answer.view), output)
    from remediator.cli.health_detail import node_text, vm_text  # noqa: PLC0415 - the same
    from remediator.cli.health_text import cluster_text  # noqa: PLC0415 - the same
    from remediator.engine.views import ClusterView, NodeView, VmView  # noqa: PLC0415 - the same

    wide = output == "wide"
    try:
        if query.view == "cluster":
            return cluster_text(msgspec.json.decode(answer.view, type=ClusterView), wide=wide)
        if query.view == "node":
            return node_text(msgspec.json.decode(answer.view, type=NodeView), wide=wide)
        return vm_text(msgspec.json.decode(answer.view, type=VmView), wide=wide)
    except msgspec.ValidationError as error:
        raise CommandError(
            ExitCode.NO_DAEMON,
            f"the daemon speaks another version ({error}); -o json shows its answer as it is",
        ) from error
