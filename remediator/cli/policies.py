"""``remediator policy``: write, check, try and understand policies."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.backtest import backtest
from remediator.cli.entry import CommandError
from remediator.cli.output import dump
from remediator.cli.policy_explain import explain
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.engine.rules import Policy
    from remediator.engine.settings import FenceMethod
    from remediator.policy import Reading
    from remediator.policy.table_tests import CaseResult

_path = click.argument(
    "path", required=False, type=click.Path(path_type=Path), metavar="[DIR | FILE]"
)
_form = click.option("-o", "--output", type=click.Choice(["text", "yaml", "json"]), default="text")


@click.group()
def policy() -> None:
    """Write, check, try and understand policies. DIR is the shipped ones by default."""


policy.add_command(backtest)
policy.add_command(explain)


@policy.command()
@_path
@click.option(
    "--fence-configs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also find steps that these fence configurations can never allow.",
)
@_form
def lint(path: Path | None, fence_configs: Path | None, output: str) -> int:
    """Check policies; name each fault and warning with file, line and field (exit 1 on any).

    A fault keeps a policy from being loaded. A warning does not: the policy does what it says, be
    it nothing, because an earlier one always answers first.
    """
    reading = _read(path)
    faults = [str(problem) for problem in reading.problems]
    warnings = [str(problem) for problem in reading.warnings]
    if fence_configs is not None:
        warnings += _unfenceable(reading, fence_configs)
    if output != "text":
        told = {"policies": [one.name for one in reading.policies]}
        click.echo(dump({**told, "faults": faults, "warnings": warnings}, output), nl=False)
        return ExitCode.FINDING if faults or warnings else ExitCode.OK
    for problem in faults:
        click.echo(problem)
    for warning in warnings:
        click.echo(f"warning: {warning}")
    if not faults and not warnings:
        for one in reading.policies:
            click.echo(f"{one.source}: {one.name}: ok")
        return ExitCode.OK
    click.echo(f"{_count(faults, 'fault')}, {_count(warnings, 'warning')}", err=True)
    return ExitCode.FINDING


def _count(items: list[str], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _unfenceable(reading: Reading, directory: Path) -> list[str]:
    """Return the steps that these fence configurations can never allow."""
    from remediator.actions.fence.drivers import NoClusterError  # noqa: PLC0415 - the same
    from remediator.cli.entry import run_async  # noqa: PLC0415 - not needed for --help
    from remediator.documents import DocumentError  # noqa: PLC0415 - the same
    from remediator.policy.findings import Surroundings, findings_in  # noqa: PLC0415 - the same
    from remediator.typed_tree import dotted  # noqa: PLC0415 - the same

    try:
        around = Surroundings(fence_methods=run_async(_methods(directory)))
    except (DocumentError, NoClusterError) as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error
    sources = {one.name: one.source for one in reading.policies}
    return [
        f"{sources[one.policy]}: {dotted(one.path)}: {one.text}"
        for one in findings_in(reading.policies, around)
    ]


async def _methods(directory: Path) -> tuple[FenceMethod, ...]:
    from remediator.actions.fence.devices import FenceDevices  # noqa: PLC0415 - as above
    from remediator.actions.fence.drivers import DriverFactory  # noqa: PLC0415 - the same
    from remediator.clock import Clock  # noqa: PLC0415 - the same
    from remediator.fence_config.loader import load_directory  # noqa: PLC0415 - the same

    clock = Clock()
    devices = FenceDevices(load_directory(directory), clock, DriverFactory(clock))
    try:
        return devices.methods()
    finally:
        await devices.close()


@policy.command()
@_path
@_form
def show(path: Path | None, output: str) -> None:
    """Print policies in the order in which they are asked, with every default."""
    from remediator.policy.render import described, plain  # noqa: PLC0415 - not needed for --help

    found = _load(path)
    if output == "text":
        click.echo("\n\n".join(described(at, one) for at, one in enumerate(found, 1)))
    else:
        click.echo(dump([plain(one) for one in found], output), nl=False)


@policy.command()
@click.option("--variables", is_flag=True, help="Only what conditions may read.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
def schema(variables: bool, output: str) -> None:  # noqa: FBT001 - a click flag
    """Print the schema of a policy (OpenAPI v3, as the CustomResource has it)."""
    from remediator.engine.match_facts import VARIABLES  # noqa: PLC0415 - not needed for --help
    from remediator.policy.crd import definition  # noqa: PLC0415 - the same

    if variables:
        table = {
            kind.value: {name: f"{one.type}: {one.means}" for name, one in known.items()}
            for kind, known in VARIABLES.items()
        }
        click.echo(dump(table, output), nl=False)
        return
    version = definition()["spec"]["versions"][0]
    click.echo(dump(version["schema"]["openAPIV3Schema"], output), nl=False)


@policy.command()
@_path
@click.option(
    "--policies",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Policies to test; by default those that the tests stand beside (DIR/tests/*.yaml).",
)
@click.option("-v", "--verbose", is_flag=True, help="Print every case, with its trace.")
@_form
def test(path: Path | None, policies: Path | None, verbose: bool, output: str) -> int:  # noqa: FBT001 - a click flag
    """Run table tests: given evidence, expect a decision (exit 1 where one differs)."""
    from remediator.documents import DocumentError  # noqa: PLC0415 - not needed for --help
    from remediator.policy import shipped_directory  # noqa: PLC0415 - the same
    from remediator.policy.table_tests import files_of, run_file  # noqa: PLC0415 - the same

    where = path or shipped_directory()
    files = files_of(where)
    if not files:
        raise CommandError(ExitCode.USAGE, f"{where}: holds no tests (tests/*.yaml)")
    found = _load(policies or files[0].resolve().parent.parent)
    results: list[CaseResult] = []
    try:
        for file in files:
            results += run_file(file, found)
    except DocumentError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error
    failed = [one for one in results if one.faults]
    if output != "text":
        import msgspec  # noqa: PLC0415 - not needed for --help

        click.echo(dump(msgspec.to_builtins(results), output), nl=False)
        return ExitCode.FINDING if failed else ExitCode.OK
    for one in results if verbose else failed:
        click.echo(f"{'FAILED' if one.faults else 'ok':6} {one.file}:{one.line}: {one.case}")
        for line in (*one.faults, *(one.trace if verbose or one.faults else ())):
            click.echo(f"       {line}")
    click.echo(f"{len(results) - len(failed)} of {len(results)} cases as expected")
    return ExitCode.FINDING if failed else ExitCode.OK


def _read(path: Path | None) -> Reading:
    from remediator.policy import read, read_text, shipped_directory  # noqa: PLC0415 - as above
    from remediator.strict_yaml import YamlError  # noqa: PLC0415 - the same
    from remediator.strict_yaml import read_text as read_file  # noqa: PLC0415 - the same

    where = path or shipped_directory()
    if not where.is_file():
        return read(where)
    try:
        return read_text(read_file(where), file=str(where))
    except YamlError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error


def _load(path: Path | None) -> list[Policy]:
    """Return sound policies. Ends the command where they are not."""
    reading = _read(path)
    if reading.problems:
        raise CommandError(ExitCode.USAGE, "\n".join(map(str, reading.problems)))
    return list(reading.policies)
