"""``remediator policy``: check policies before they are given to a daemon."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.backtest import backtest
from remediator.cli.entry import CommandError
from remediator.cli.output import dump
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.engine.rules import Policy

_directory = click.argument(
    "directory", required=False, type=click.Path(path_type=Path), metavar="[DIR]"
)


@click.group()
def policy() -> None:
    """Check and print policies. DIR is the shipped ones by default."""


policy.add_command(backtest)


@policy.command()
@_directory
def lint(directory: Path | None) -> int:
    """Check every policy of DIR; name each fault with file, line and field (exit 1)."""
    from remediator.policy import PolicyError  # noqa: PLC0415 - not needed for --help

    try:
        found = _load(directory)
    except PolicyError as error:
        for problem in error.problems:
            click.echo(str(problem))
        faults = len(error.problems)
        click.echo(f"{faults} fault{'s' if faults > 1 else ''}", err=True)
        return ExitCode.FINDING
    for one in found:
        click.echo(f"{one.source}: {one.name}: ok")
    return ExitCode.OK


@policy.command()
@_directory
@click.option("-o", "--output", type=click.Choice(["text", "yaml", "json"]), default="text")
def show(directory: Path | None, output: str) -> None:
    """Print the policies of DIR in the order in which they are asked."""
    import msgspec  # noqa: PLC0415 - not needed for --help

    from remediator.policy import PolicyError  # noqa: PLC0415 - the same

    try:
        found = _load(directory)
    except PolicyError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error
    if output == "text":
        click.echo("\n\n".join(_described(at, one) for at, one in enumerate(found, 1)))
    else:
        click.echo(dump(msgspec.to_builtins(found), output), nl=False)


def _load(directory: Path | None) -> list[Policy]:
    from remediator.policy import load_directory, shipped_directory  # noqa: PLC0415 - the same

    return load_directory(directory or shipped_directory())


def _described(at: int, one: Policy) -> str:
    from remediator.durations import format_duration  # noqa: PLC0415 - not needed for --help

    labels = ", ".join(f"{key}={value}" for key, value in sorted(one.node_labels.items()))
    held = {verdict: one.stands_for_s(verdict) for verdict in one.verdicts}
    when = " or ".join(
        f"{verdict} for {format_duration(for_s)}" if for_s else verdict
        for verdict, for_s in held.items()
    )
    manual = "starts them too" if one.start_manual else "leaves them stopped"
    return "\n".join(
        (
            f"{at}. {one.name} (priority {one.priority}, {one.source}, {one.content_hash[:12]})",
            f"   when    a node is {when}",
            f"   nodes   {labels or 'all'}",
            f"   then    {', '.join(one.steps)}",
            f"   proof   {' or '.join(one.required_proof) or 'none'}",
            f"   manual  VMs with run strategy Manual: {manual}",
            f"   mode    {'enforce' if one.enforce else 'observe'} (the daemon's may be stricter)",
        )
    )
