"""One fault, one seed: the real replicas and vantage points against the simulated cluster."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import harness_path  # noqa: F401
from harness import Rehearsal

from remediator.engine.chain import Decision
from remediator.engine.model import Fence, Verdict
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.faults import ApiMode
from remediator.sim.virtual_time import run as run_virtually

# Verdicts that say nothing against a node yet.
_OPEN = frozenset({Verdict.SUSPECT, Verdict.UNKNOWN, Verdict.HEALTHY, Verdict.CONTRADICTION})
_WARM_S = 40.0  # so that every lease has been renewed at least three times
_NODES, _ZONES = 9, 3
_VMS = 9
_REPLICAS = 3

Break = Callable[[Rehearsal, str], object]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of fault. ``verdicts`` are the right ones; empty: nobody may be convicted.

    ``lost``: the host, or its VMs, are lost, so that a fence is right. ``hits``: the nodes that the
    fault is of, where it is not that of one node. ``watch_s``: how long the run goes on after the
    fault where no verdict comes.
    """

    name: str
    do: Break
    verdicts: tuple[str, ...] = ()
    lost: bool = False
    hits: Callable[[Rehearsal, str], set[str]] = lambda _rehearsal, node: {node}
    within_s: float = 0.0
    p50_within_s: float = 0.0
    watch_s: float = 200.0


@dataclass(kw_only=True)
class Run:
    """What came of one. ``after_s``: from the fault to the first verdict that convicts."""

    kind: Kind = field(repr=False)
    name: str
    seed: int
    verdict: str = ""
    row: str = ""
    after_s: float | None = None
    others: tuple[str, ...] = ()  # nodes without a fault that were convicted
    fenced: tuple[str, ...] = ()
    wrong_fences: int = 0

    @property
    def as_told(self) -> bool:
        """Whether the verdict is one of the right ones, and nobody else was convicted."""
        right = self.verdict in self.kind.verdicts if self.kind.verdicts else not self.verdict
        return right and not self.others and not self.wrong_fences


def _power_loss(rehearsal: Rehearsal, node: str) -> None:
    rehearsal.cluster.faults.power_loss(node)


def _power_loss_without_bmc(rehearsal: Rehearsal, node: str) -> None:
    rehearsal.cluster.faults.bmc(node, BmcMode.DEAD_WITH_HOST)
    rehearsal.cluster.faults.power_loss(node)


def _bmc_lies_off(rehearsal: Rehearsal, node: str) -> None:
    rehearsal.cluster.faults.bmc(node, BmcMode.ALWAYS_OFF)


def _no_probes(rehearsal: Rehearsal, node: str) -> None:
    faults = rehearsal.cluster.faults
    faults.firewall(node)
    faults.firewall(node, port=0)


def _api_pause(rehearsal: Rehearsal, _node: str) -> None:
    rehearsal.cluster.faults.api(ApiMode.HANG)
    rehearsal.later(60.0, lambda: rehearsal.cluster.faults.api(ApiMode.OK))


def _nats_pause(rehearsal: Rehearsal, _node: str) -> None:
    rehearsal.bus.outage = rehearsal.journal.outage = True

    def back() -> None:
        rehearsal.bus.outage = rehearsal.journal.outage = False
        for replica in rehearsal.alive.values():
            replica.start_over()

    rehearsal.later(45.0, back)


def _leases_all_silent(rehearsal: Rehearsal, _node: str) -> None:
    for name in rehearsal.cluster.hosts:
        rehearsal.cluster.faults.cut(name, "api")


def _zone_of(rehearsal: Rehearsal, node: str) -> str:
    return rehearsal.cluster.hosts[node].spec.zone


def _everybody(rehearsal: Rehearsal, _node: str) -> set[str]:
    return set(rehearsal.cluster.hosts)


def _its_zone(rehearsal: Rehearsal, node: str) -> set[str]:
    zone = _zone_of(rehearsal, node)
    return {name for name in rehearsal.cluster.hosts if _zone_of(rehearsal, name) == zone}


_DEAD, _UNREACHABLE = Verdict.DEAD.value, Verdict.UNREACHABLE.value

KINDS: tuple[Kind, ...] = (
    Kind(
        name="power loss, BMC answers",
        do=_power_loss,
        verdicts=(_DEAD,),
        lost=True,
        within_s=15.0,
        p50_within_s=5.0,
    ),
    Kind(
        name="power loss, BMC dead too",
        do=_power_loss_without_bmc,
        verdicts=(_UNREACHABLE,),
        lost=True,
        within_s=15.0,
    ),
    Kind(
        name="kernel panic",
        do=lambda r, node: r.cluster.faults.kernel_panic(node),
        verdicts=(_UNREACHABLE,),
        lost=True,
        within_s=15.0,
    ),
    Kind(
        name="kernel hang",
        do=lambda r, node: r.cluster.faults.host_hang(node),
        verdicts=(_UNREACHABLE,),
        lost=True,
        within_s=15.0,
    ),
    Kind(
        name="host network cut",
        do=lambda r, node: r.cluster.faults.partition(node),
        verdicts=(_UNREACHABLE,),
        lost=True,
        within_s=15.0,
    ),
    Kind(
        name="host and BMC network cut",
        do=lambda r, node: r.cluster.faults.partition(node, bmc=True),
        verdicts=(_UNREACHABLE,),
        lost=True,
        within_s=15.0,
    ),
    Kind(
        name="kubelet hung",
        do=lambda r, node: r.cluster.faults.kubelet_hang(node),
        verdicts=(Verdict.KUBELET_DOWN.value,),
    ),
    Kind(
        name="kubelet ended",
        do=lambda r, node: r.cluster.faults.kubelet_hang(node, refuses=True),
        verdicts=(Verdict.KUBELET_DOWN.value,),
    ),
    Kind(
        name="host cut off the API server only",
        do=lambda r, node: r.cluster.faults.cut(node, "api"),
        verdicts=(Verdict.KUBELET_DOWN.value,),
    ),
    Kind(
        name="virt-handler hung",
        do=lambda r, node: r.cluster.faults.handler_hang(node),
        verdicts=(Verdict.HANDLER_DOWN.value,),
        watch_s=400.0,
    ),
    Kind(name="probes of one node fail", do=_no_probes),
    Kind(
        name="probes of one zone fail",
        do=lambda r, node: r.cluster.faults.cut_probes(_zone_of(r, node)),
    ),
    Kind(name="BMC says off of a living host", do=_bmc_lies_off),
    Kind(
        name="virt-handler rollout",
        do=lambda r, _: r.cluster.faults.handler_rollout(away_s=40.0),
        watch_s=600.0,
    ),
    Kind(
        name="KernelDeadlock reported",
        do=lambda r, node: r.cluster.faults.node_condition(node, "KernelDeadlock", "True"),
        verdicts=(Verdict.DEGRADED.value,),
    ),
    Kind(name="API server pauses 60 s", do=_api_pause),
    Kind(name="NATS pauses 45 s", do=_nats_pause),
    Kind(
        name="all leases silent at once",
        do=_leases_all_silent,
        verdicts=(Verdict.KUBELET_DOWN.value,),
        hits=_everybody,
    ),
    Kind(
        name="zone cut off (held by its share)",
        do=lambda r, node: r.cluster.faults.cut_zone(_zone_of(r, node)),
        verdicts=(_UNREACHABLE,),
        hits=_its_zone,
    ),
)


def play(kind: Kind, seed: int) -> Run:
    """Play one run on virtual time."""
    return run_virtually(_play(kind, seed))


async def _play(kind: Kind, seed: int) -> Run:
    rng = random.Random(f"detect/{kind.name}/{seed}")
    spec = ClusterSpec(nodes=_NODES, zones=_ZONES, vms=_VMS, seed=seed, api_latency_s=0.01)
    rehearsal = Rehearsal(spec, seed=seed)
    await rehearsal.start(replicas=_REPLICAS)
    await rehearsal.run(_WARM_S + rng.uniform(0.0, 10.0))
    node = rng.choice(list(rehearsal.cluster.hosts))
    began_at = rehearsal.clock.now()
    before = len(rehearsal.journal.records)
    kind.do(rehearsal, node)
    result = Run(kind=kind, name=kind.name, seed=seed)

    def convictions() -> list[Decision]:
        return [
            decision
            for decision in rehearsal.decisions()[before:]
            if decision.subject.kind == "node"
            and decision.verdict is not None
            and decision.verdict not in _OPEN
        ]

    if kind.verdicts:
        try:
            await rehearsal.until(
                lambda: any(one.subject.name == node for one in convictions()), kind.watch_s
            )
            await rehearsal.run(45.0)  # what follows from it: a fence, a change of mind
        except TimeoutError:
            pass
    else:
        await rehearsal.run(kind.watch_s)
    hit = kind.hits(rehearsal, node)
    for one in convictions():
        if one.subject.name != node and kind.verdicts:
            if one.subject.name not in hit:
                result.others += (f"{one.subject.name} {one.verdict}",)
        elif result.after_s is None:
            result.after_s = one.at - began_at
            result.verdict = str(one.verdict)
    fenced = {
        decision.action.work.node
        for decision in rehearsal.decisions()
        if decision.action is not None and isinstance(decision.action.work, Fence)
    }
    result.fenced = tuple(sorted(fenced))
    result.wrong_fences = len(fenced - (hit if kind.lost else set()))
    await rehearsal.stop()
    return result
