"""What a ``scenario.yaml`` may say, and the reading of it. Unknown keys are errors.

Times are relative to the first fault, which stands at ``0s``; what is before it (a label, a lease
of somebody else) has a negative time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from remediator import strict_yaml, typed_tree
from remediator.durations import parse_duration
from remediator.engine.settings import EngineSettings
from remediator.sim.cluster_spec import ClusterSpec, VmSpec
from remediator.sim.hosts.settings import HostSettings

ACCESS_MODES = {"rwx": "ReadWriteMany", "rwo": "ReadWriteOnce", "none": ""}


class Vm(msgspec.Struct, frozen=True, kw_only=True):
    """One VM of the story. ``node`` is where it runs at first; empty: it does not run."""

    name: str  # NAMESPACE/NAME
    node: str = ""
    run_strategy: str = "Always"
    disk: Literal["rwx", "rwo", "none"] = "rwx"
    agent: bool = True
    grace_s: int = 30  # that its guest has to shut down
    memory_mib: int = 4096
    apart: str = ""  # VMs with the same word must not share a node

    def spec(self) -> VmSpec:
        namespace, name = self.name.split("/")
        return VmSpec(
            namespace=namespace,
            name=name,
            run_strategy=self.run_strategy,
            access_mode=ACCESS_MODES[self.disk],
            agent=self.agent,
            grace_s=self.grace_s,
            memory_mib=self.memory_mib,
            apart=self.apart,
        )


class Hosts(msgspec.Struct, frozen=True, kw_only=True):
    """Timings of the hosts that a story may change."""

    os_boot_s: float = 30.0  # from power on to running kubelet
    heartbeat_s: float = 60.0  # of virt-handler, before jitter
    lease_period_s: float = 10.0  # of the kubelet
    migration_copy_s: tuple[float, float] = (2.0, 5.0)  # of a live migration


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster before the story."""

    nodes: int = 6
    zones: int = 3
    control_plane: int = 0
    seed: int = 1
    api_latency_s: float = 0.0
    node_memory_mib: int = 131_072
    vms: tuple[Vm, ...] = ()
    hosts: Hosts = Hosts()
    kinds: tuple[str, ...] = ()  # custom kinds that are installed; see scenario_objects
    lease_periods_s: dict[str, float] = {}  # of single kubelets that renew faster or slower


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica or a prober runs: in a zone, and perhaps on a host of the cluster."""

    zone: str
    host: str = ""


class Vantage(Place, frozen=True, kw_only=True):
    """A prober that runs on its own: ``remediator probe``."""

    name: str


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon that looks after it."""

    mode: Literal["observe", "enforce"] = "enforce"
    replicas: int = 1
    fenced: tuple[str, ...] = ("*",)  # nodes that have a fence device, as shell patterns
    engine: EngineSettings = EngineSettings()
    places: tuple[Place, ...] = ()  # of the replicas; else in the zones by turns, on no host
    probes: bool = True  # each replica is a vantage point
    webhook: bool = False  # the admission gate is installed, and each replica serves it
    vantages: tuple[Vantage, ...] = ()
    policies: tuple[str, ...] = ()  # besides the shipped ones; see scenario_policies


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens: at a time, or just ``after`` a record with these words is stored."""

    verb: str
    arguments: Any
    at_s: float | None = None
    after: tuple[str, ...] = ()
    plus_s: float = 0.0


class Expect(msgspec.Struct, frozen=True, kw_only=True):
    """What must be true when the story ends, whatever the log says."""

    double_runs: int = 0
    running: tuple[str, ...] = ()
    not_running: tuple[str, ...] = ()
    back_within_s: float | None = msgspec.field(name="back_within", default=None)
    fenced: tuple[str, ...] = ()  # nodes that a record says were proven off by their device
    powered_off_by_us: tuple[
        str, ...
    ] = ()  # nodes that were on when their BMC was ordered to cut the power
    marks_left: tuple[str, ...] = ()  # nodes with a taint or cordon of ours
    cordoned: tuple[str, ...] = ()  # nodes that somebody else has cordoned
    boots_at_once_max: int | None = None  # the most that ever booted together
    boots_at_once_min: int | None = None  # a storm without gates boots at least so many together
    gates: Literal["some", "none"] = "none"  # whether any pod was ever held back
    never_said: tuple[str, ...] = ()  # words that no record's reason may hold
    open_incidents: dict[str, str] = {}  # node -> state
    on: dict[str, str] = {}  # VM -> the node (or nodes, with spaces) that it runs on at the end
    moved_off: tuple[str, ...] = ()  # nodes on which no VM runs at the end
    writes: Literal["some", "none"] = "some"  # apart from the daemon's own Leases


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One story."""

    story: str
    cluster: Cluster
    daemon: Daemon = Daemon()
    quiet_s: float = msgspec.field(name="quiet", default=60.0)  # before the first fault
    events: tuple[Event, ...] = ()
    until_s: float = msgspec.field(name="until")
    expect: Expect

    def cluster_spec(self) -> ClusterSpec:
        """Return the simulated cluster without its VMs, which ``vms`` names one by one."""
        namespaces = dict.fromkeys(vm.name.split("/")[0] for vm in self.cluster.vms)
        return ClusterSpec(
            nodes=self.cluster.nodes,
            zones=self.cluster.zones,
            control_plane=self.cluster.control_plane,
            seed=self.cluster.seed,
            vms=0,
            namespaces=tuple(namespaces) or ("default",),
            api_latency_s=self.cluster.api_latency_s,
            node_memory_mib=self.cluster.node_memory_mib,
            hosts=HostSettings(
                os_boot_s=self.cluster.hosts.os_boot_s,
                heartbeat_s=self.cluster.hosts.heartbeat_s,
                lease_period_s=self.cluster.hosts.lease_period_s,
                migration_copy_s=self.cluster.hosts.migration_copy_s,
            ),
        )


def read(path: Path) -> Scenario:
    """Read one file. Raises ValueError that names every fault with its line."""
    document = strict_yaml.load(strict_yaml.read_text(path), file=str(path))
    tree = dict(document.value)
    tree["events"] = []
    scenario, problems = typed_tree.convert(tree, Scenario)
    if scenario is None:
        raise ValueError(
            "\n".join(
                f"{path}:{document.mark(problem.path).line}: "
                f"{typed_tree.dotted(problem.path)}: {problem.text}"
                for problem in problems
            )
        )
    events = tuple(_event(raw, path) for raw in document.value.get("events", []))
    if not any(event.at_s == 0.0 for event in events):
        raise ValueError(f"{path}: the first fault must be at 0s")
    return msgspec.structs.replace(scenario, events=events)


def _event(raw: dict[str, Any], path: Path) -> Event:
    rest = dict(raw)
    at, after, plus = rest.pop("at", None), rest.pop("after", ""), rest.pop("plus", "0s")
    if len(rest) != 1 or (at is None) is not bool(after):
        raise ValueError(f"{path}: an event has one verb, and either at or after: {raw}")
    ((verb, arguments),) = rest.items()
    return Event(
        verb=verb,
        arguments=arguments,
        at_s=None if at is None else _moment(str(at)),
        after=tuple(after.split()),
        plus_s=parse_duration(str(plus)),
    )


def _moment(text: str) -> float:
    return -parse_duration(text[1:]) if text.startswith("-") else parse_duration(text)
