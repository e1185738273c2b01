"""``remediator simulate``: what would become of a scenario under given policies."""

from __future__ import annotations

import sys
import typing
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from remediator.cli.entry import CommandError
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from rich.progress import Progress

    from remediator.engine.rules import Policy
    from remediator.engine.settings import EngineSettings
    from remediator.rehearsal.course import Course
    from remediator.rehearsal.scenario import Scenario

# The built-in scenarios; rehearsal/built_in.py, which costs half a second to import.
BUILT_IN = ("host-lost", "rack-lost", "zone-cut", "storm", "api-away")


@click.command()
@click.argument("scenario", metavar="SCENARIO")
@click.option(
    "--policies",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Under these policies; default the shipped ones.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With the engine settings (budgets, pacing) of this file.",
)
@click.option(
    "--gate",
    "gate_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With the admission gate that this file installs: deploy/admission/webhook.yaml.",
)
@click.option("--nodes", type=click.IntRange(3, 1000), help="Hosts of a built-in scenario.")
@click.option("--zones", type=click.IntRange(1, 26), help="Its zones.")
@click.option("--vms", type=click.IntRange(1, 20_000), help="Its VMs.")
@click.option("--hosts", type=click.IntRange(1, 1000), help="How many hosts are lost.")
@click.option("--until", metavar="TIME", help="End at the latest so long after the first event.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same course.")
@click.option(
    "--mode", type=click.Choice(["enforce", "observe"]), default="enforce", show_default=True
)
@click.option("-v", "--verbose", is_flag=True, help="Print every decision about a host.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def simulate(
    *,
    scenario: str,
    directory: Path | None,
    config_file: Path | None,
    gate_file: Path | None,
    nodes: int | None,
    zones: int | None,
    vms: int | None,
    hosts: int | None,
    until: str | None,
    seed: int,
    mode: str,
    verbose: bool,
    output: str,
) -> int:
    """Play SCENARIO in virtual time against a simulated cluster, and print its course.

    SCENARIO is host-lost, rack-lost, zone-cut, storm, api-away, or a file (docs/decisions.md). Real
    replicas decide; minutes of it take seconds. Exit 1 where VMs stay down or one ran twice.
    """
    # All of it is loaded only here: the simulated cluster is large, and --help must be quick.
    from remediator.rehearsal.scenario import ScenarioError  # noqa: PLC0415

    _quiet()
    given = {"nodes": nodes, "zones": zones, "vms": vms, "hosts": hosts}
    try:
        sizes = {name: size for name, size in given.items() if size is not None}
        played = _scenario(scenario, sizes, until, seed)
        how: dict[str, Any] = {
            "seed": seed,
            "enforce": mode == "enforce",
            "engine": _engine(config_file),
            "webhook": _webhook(gate_file),
        }
        course = _play(played, _policies(directory), how)
    except ScenarioError as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error
    if output == "json":
        import msgspec  # noqa: PLC0415 - not needed for --help

        from remediator.cli.output import dump  # noqa: PLC0415 - the same

        click.echo(dump(msgspec.to_builtins(course), "json"), nl=False)
    else:
        from remediator.cli.simulate_text import text_of  # noqa: PLC0415 - the same

        click.echo(text_of(course, verbose=verbose), nl=False)
    recovery = course.recovery
    return ExitCode.FINDING if recovery.left or recovery.double_runs else ExitCode.OK


def _scenario(name: str, given: dict[str, int], until: str | None, seed: int) -> Scenario:
    import msgspec  # noqa: PLC0415 - not needed for --help

    from remediator.rehearsal.built_in import SHIPPED, Sizes, built_in  # noqa: PLC0415 - large
    from remediator.rehearsal.scenario import ScenarioError, check, read  # noqa: PLC0415

    if name in SHIPPED:
        found = built_in(name, Sizes(**given))
    elif given:
        wrong = ", ".join(f"--{option}" for option in given)
        raise CommandError(ExitCode.USAGE, f"{wrong}: a scenario file says so itself")
    elif Path(name).is_file():
        found = read(Path(name))
    else:
        known = ", ".join(SHIPPED)
        raise CommandError(ExitCode.USAGE, f"{name!r} is neither a file nor one of {known}")
    if until is not None:
        found = msgspec.structs.replace(found, until_s=_seconds(until))
    faults = list(check(found, found.cluster.spec(seed)))
    if faults:
        raise ScenarioError("\n".join(faults))
    return found


def _seconds(text: str) -> float:
    from remediator.durations import parse_duration  # noqa: PLC0415 - not needed for --help

    try:
        return parse_duration(text)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--until: {error}") from error


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


def _engine(config_file: Path | None) -> EngineSettings | None:
    if config_file is None:
        return None
    from remediator.cli.settings_options import load_settings  # noqa: PLC0415 - not for --help

    return load_settings(config_file, {}).engine


def _webhook(gate_file: Path | None) -> dict[str, Any] | None:
    """Return the configuration of the admission gate. Ends the command when it cannot be read."""
    if gate_file is None:
        return None
    from remediator import strict_yaml  # noqa: PLC0415 - not needed for --help

    try:
        found = strict_yaml.load(strict_yaml.read_text(gate_file), file=str(gate_file)).value
    except (strict_yaml.YamlError, OSError) as error:
        raise CommandError(ExitCode.USAGE, str(error)) from error
    if not isinstance(found, dict) or found.get("kind") != "MutatingWebhookConfiguration":
        raise CommandError(ExitCode.USAGE, f"{gate_file} is no MutatingWebhookConfiguration")
    return found


def _play(scenario: Scenario, policies: list[Policy], how: dict[str, Any]) -> Course:
    from remediator.rehearsal.simulation import play  # noqa: PLC0415 - large
    from remediator.sim.virtual_time import run  # noqa: PLC0415 - the same

    with _progress() as bar:
        task = bar.add_task("", total=scenario.until_s) if bar is not None else None

        def tell(at_s: float) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=at_s)

        return run(play(scenario, policies, tell=tell, **how))


def _progress() -> AbstractContextManager[Progress | None]:
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console  # noqa: PLC0415 - rich costs 100 ms that pipes need not pay
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - the same

    return Progress(
        TextColumn("simulated"),
        BarColumn(),
        TextColumn("{task.completed:.0f} s of at most {task.total:.0f} s"),
        console=Console(stderr=True),
        transient=True,
    )


def _quiet() -> None:
    """Keep the replicas' own log out of it: what they decide is the output."""
    import logging  # noqa: PLC0415 - not needed for --help

    import structlog  # noqa: PLC0415 - costs 30 ms

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
