"""What may be simulated: the built-in scenarios, and files of the same form.

A scenario is a cluster, what happens to it and when, and how long to look on. Times are relative to
the first event, which stands at 0 s; before it the daemon gets to know the cluster.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from remediator import strict_yaml, typed_tree
from remediator.durations import parse_duration
from remediator.rehearsal.rehearsal import Rehearsal
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.faults import ApiMode
from remediator.sim.hosts.settings import HostSettings

QUIET_S = 45.0  # four lease periods: every kubelet was heard renewing
_NODES_MAX, _VMS_MAX, _UNTIL_MAX_S = 1000, 20_000, 86_400.0


class ScenarioError(Exception):
    """A scenario that cannot be played; the text names every fault, one per line."""


class ClusterSize(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster before anything happens."""

    nodes: int = 12
    zones: int = 3
    vms: int = 60
    # Further nodes that run no VMs.
    control_plane: int = msgspec.field(name="controlPlane", default=0)
    # Of a host, from power on to its kubelet.
    boot_s: float = msgspec.field(name="boot", default=120.0)
    api_latency_s: float = msgspec.field(name="apiLatency", default=0.01)

    def spec(self, seed: int) -> ClusterSpec:
        """Return it as the simulation takes it. Raises ScenarioError."""
        try:
            return ClusterSpec(
                nodes=self.nodes,
                zones=self.zones,
                vms=self.vms,
                control_plane=self.control_plane,
                seed=seed,
                api_latency_s=self.api_latency_s,
                hosts=HostSettings(os_boot_s=self.boot_s),
            )
        except ValueError as error:
            raise ScenarioError(f"cluster: {error}") from error


class Verb(enum.StrEnum):
    """What may happen. Most take hosts: names, shell patterns, or ``zone/NAME``."""

    POWER_LOSS = "power-loss"
    POWER_RESTORE = "power-restore"
    KERNEL_PANIC = "kernel-panic"
    HOST_HANG = "host-hang"
    KUBELET_HANG = "kubelet-hang"
    RESUME = "resume"  # ends hangs
    PARTITION = "partition"
    HEAL = "heal"  # ends partitions
    BMC_SILENT = "bmc-silent"
    BMC_WORKS = "bmc-works"
    CUT_ZONE = "cut-zone"  # takes zones
    MEND_ZONE = "mend-zone"
    API = "api"  # takes a mode: hang, reset, too-many, unavailable-html, ok …


_OF_ZONES = frozenset({Verb.CUT_ZONE, Verb.MEND_ZONE})


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens, to these hosts or zones, or with this mode."""

    at_s: float
    verb: Verb
    to: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = ", ".join(self.to[:6]) + (f" and {len(self.to) - 6} more" if self.to[6:] else "")
        return f"{self.verb} {what}".strip()


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What is played."""

    about: str
    cluster: ClusterSize = ClusterSize()
    replicas: int = 2
    happenings: tuple[Happening, ...] = ()
    until_s: float = 1800.0  # it ends sooner once all is well again


# --- happening ------------------------------------------------------------------------------------


def happen(rehearsal: Rehearsal, happening: Happening) -> None:
    """Let it happen now. Raises ScenarioError for a mode that does not exist."""
    faults = rehearsal.cluster.faults
    on_hosts: dict[Verb, Callable[[str], object]] = {
        Verb.POWER_LOSS: faults.power_loss,
        Verb.POWER_RESTORE: faults.power_restore,
        Verb.KERNEL_PANIC: faults.kernel_panic,
        Verb.HOST_HANG: faults.host_hang,
        Verb.KUBELET_HANG: faults.kubelet_hang,
        Verb.RESUME: faults.resume,
        Verb.PARTITION: faults.partition,
        Verb.HEAL: faults.heal,
        Verb.BMC_SILENT: lambda node: faults.bmc(node, BmcMode.TIMEOUT),
        Verb.BMC_WORKS: lambda node: faults.bmc(node, BmcMode.OK),
    }
    if happening.verb is Verb.API:
        faults.api(ApiMode(happening.to[0]))
    elif happening.verb in _OF_ZONES:
        cut = faults.cut_zone if happening.verb is Verb.CUT_ZONE else faults.mend_zone
        for zone in happening.to:
            cut(zone)
    else:
        for node in hosts_of(rehearsal, happening.to):
            on_hosts[happening.verb](node)


def hosts_of(rehearsal: Rehearsal, patterns: tuple[str, ...]) -> list[str]:
    """Return the hosts that these patterns name, in order."""
    specs = [host.spec for host in rehearsal.cluster.hosts.values()]
    return [
        spec.name
        for spec in specs
        if any(
            pattern == f"zone/{spec.zone}" or fnmatchcase(spec.name, pattern)
            for pattern in patterns
        )
    ]


def check(scenario: Scenario, spec: ClusterSpec) -> Iterator[str]:
    """Yield what is wrong with a scenario that reads well."""
    size = scenario.cluster
    for name, value, least, most in (
        ("cluster.nodes", size.nodes, 1, _NODES_MAX),
        ("cluster.vms", size.vms, 0, _VMS_MAX),
        ("replicas", scenario.replicas, 1, 5),
        ("until", scenario.until_s, 1.0, _UNTIL_MAX_S),
    ):
        if not least <= value <= most:
            yield f"{name}: {value:g} is not between {least:g} and {most:g}"
    hosts = [(host.name, host.zone) for host in spec.host_specs()]
    zones = sorted({zone for _, zone in hosts})
    for at, one in enumerate(scenario.happenings):
        where = f"events[{at}]: {one.verb}"
        if not 0 <= one.at_s <= scenario.until_s:
            yield f"events[{at}]: at {one.at_s:g} s is not between 0 s and the end"
        if not one.to:
            yield f"{where}: names nothing to happen to"
        elif one.verb is Verb.API:
            known = [mode.value for mode in ApiMode]
            if len(one.to) != 1 or one.to[0] not in known:
                yield f"{where}: takes one of {', '.join(known)}"
        elif one.verb in _OF_ZONES:
            yield from (f"{where}: there is no {zone}" for zone in one.to if zone not in zones)
        else:
            for pattern in one.to:
                fits = any(pattern == f"zone/{z}" or fnmatchcase(n, pattern) for n, z in hosts)
                if not fits:
                    yield f"{where}: no host is named {pattern}"
    if scenario.happenings and min(one.at_s for one in scenario.happenings) != 0.0:
        yield "events: the first must be at 0s"


# --- files ----------------------------------------------------------------------------------------


class _File(msgspec.Struct, frozen=True, kw_only=True):
    about: str
    cluster: ClusterSize = ClusterSize()
    replicas: int = 2
    until_s: float = msgspec.field(name="until", default=1800.0)
    events: list[dict[str, Any]] = []


def read(path: Path) -> Scenario:
    """Read one scenario file. Raises ScenarioError that names every fault with its line."""
    try:
        document = strict_yaml.load(strict_yaml.read_text(path), file=str(path))
    except (strict_yaml.YamlError, OSError) as error:
        raise ScenarioError(str(error)) from error
    found, problems = typed_tree.convert(document.value, _File)
    faults = [
        f"{path}:{document.mark(problem.path).line}: "
        f"{typed_tree.dotted(problem.path)}: {problem.text}"
        for problem in problems
    ]
    happenings: list[Happening] = []
    for at, raw in enumerate(found.events if found is not None else ()):
        try:
            happenings.append(_happening(raw))
        except ValueError as error:
            line = document.mark(("events", at)).line
            faults.append(f"{path}:{line}: events[{at}]: {error}")
    if found is None or faults:
        raise ScenarioError("\n".join(faults))
    return Scenario(
        about=" ".join(found.about.split()),
        cluster=found.cluster,
        replicas=found.replicas,
        happenings=tuple(sorted(happenings, key=lambda one: one.at_s)),
        until_s=found.until_s,
    )


def _happening(raw: dict[str, Any]) -> Happening:
    rest = dict(raw)
    at = rest.pop("at", None)
    if at is None or len(rest) != 1:
        raise ValueError("an event has 'at' and one verb")
    ((verb, to),) = rest.items()
    known = [each.value for each in Verb]
    if verb not in known:
        raise ValueError(f"{verb!r} is no verb{typed_tree.did_you_mean(verb, known)}")
    names = to if isinstance(to, list) else [to]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{verb}: names must be words, not {to!r}")
    return Happening(at_s=parse_duration(str(at)), verb=Verb(verb), to=tuple(names))
