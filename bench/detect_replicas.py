"""Ordinary trouble, and everything real: replicas, watches, probes and actions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import harness_path  # noqa: F401
from detect_signals import Days
from harness import Rehearsal

from remediator.engine.chain import DecisionKind
from remediator.engine.model import Fence, Verdict
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.faults import ApiMode
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.virtual_time import run as run_virtually

NODES, ZONES, REPLICAS = 9, 3, 3
HOUR_S = 3600.0
LOST_BEATS = 0.01
LOST_PACKETS = 0.01
TROUBLES_AN_HOUR = 12.0


class _Week:
    """Draws one trouble after the other; each ends before long, and no host is ever lost."""

    def __init__(self, rehearsal: Rehearsal, rng: random.Random) -> None:
        self._r = rehearsal
        self._rng = rng
        self._nodes = list(rehearsal.cluster.hosts)

    def trouble(self) -> None:
        choices: tuple[tuple[int, Callable[[], None]], ...] = (
            (3, self._api),
            (2, self._nats),
            (3, self._kubelet),
            (3, self._handler),
            (2, self._restart_replica),
            (2, self._probes_of_a_zone),
            (2, self._probes_of_a_node),
            (2, self._clock),
            (2, self._bmc),
        )
        ((_, act),) = self._rng.choices(choices, [weight for weight, _ in choices])
        act()

    def _node(self) -> str:
        return self._rng.choice(self._nodes)

    def _api(self) -> None:
        faults = self._r.cluster.faults
        modes = (ApiMode.HANG, ApiMode.RESET, ApiMode.TOO_MANY, ApiMode.DROP_CONNECTIONS)
        faults.api(self._rng.choice(modes))
        self._r.later(self._rng.uniform(1.0, 90.0), lambda: faults.api(ApiMode.OK))

    def _nats(self) -> None:
        rehearsal = self._r
        rehearsal.bus.outage = rehearsal.journal.outage = True

        def back() -> None:
            rehearsal.bus.outage = rehearsal.journal.outage = False
            for replica in rehearsal.alive.values():
                replica.start_over()

        rehearsal.later(self._rng.uniform(0.5, 45.0), back)

    def _kubelet(self) -> None:
        """Restart a kubelet: now and then slowly."""
        node, faults = self._node(), self._r.cluster.faults
        faults.kubelet_hang(node, refuses=self._rng.random() < 0.5)
        self._r.later(self._rng.uniform(2.0, 90.0), lambda: faults.resume(node))

    def _handler(self) -> None:
        node, faults = self._node(), self._r.cluster.faults
        faults.handler_hang(node)
        self._r.later(self._rng.uniform(5.0, 120.0), lambda: faults.resume(node))

    def _restart_replica(self) -> None:
        if len(self._r.replicas) == REPLICAS:
            self._r.end(self._rng.choice(sorted(self._r.replicas)))
            self._r.later(self._rng.uniform(2.0, 20.0), self._r.start_replica)

    def _probes_of_a_zone(self) -> None:
        faults = self._r.cluster.faults
        zone = self._rng.choice(self._r.cluster.reach.zones())
        faults.cut_probes(zone)
        self._r.later(self._rng.uniform(5.0, 300.0), lambda: faults.mend_zone(zone))

    def _probes_of_a_node(self) -> None:
        node, faults = self._node(), self._r.cluster.faults
        faults.firewall(node)
        faults.firewall(node, port=0)
        self._r.later(self._rng.uniform(5.0, 300.0), lambda: faults.firewall_end(node))

    def _clock(self) -> None:
        self._r.cluster.faults.clock_skew(self._node(), self._rng.choice((-600.0, 0.0, 600.0)))

    def _bmc(self) -> None:
        node, faults = self._node(), self._r.cluster.faults
        modes = (BmcMode.TIMEOUT, BmcMode.ERROR_500, BmcMode.NO_POWER_STATE, BmcMode.ALWAYS_OFF)
        faults.bmc(node, self._rng.choice(modes))
        self._r.later(self._rng.uniform(5.0, 600.0), lambda: faults.bmc(node, BmcMode.OK))


def days_of_replicas(hours: float, *, seed: int) -> Days:
    """Play a cluster for so many hours."""
    return run_virtually(_play(hours, seed))


async def _play(hours: float, seed: int) -> Days:
    began = time.perf_counter()
    rng = random.Random(f"replicas/{seed}")
    spec = ClusterSpec(
        nodes=NODES,
        zones=ZONES,
        vms=NODES,
        seed=seed,
        api_latency_s=0.02,
        hosts=HostSettings(lease_lost_share=LOST_BEATS),
    )
    rehearsal = Rehearsal(spec, seed=seed)
    await rehearsal.start(replicas=REPLICAS)
    rehearsal.cluster.faults.packet_loss(LOST_PACKETS)
    week = _Week(rehearsal, rng)
    until = rehearsal.clock.now() + hours * HOUR_S
    while rehearsal.clock.now() < until:
        await rehearsal.run(rng.expovariate(TROUBLES_AN_HOUR / HOUR_S))
        week.trouble()
    decisions = rehearsal.decisions()
    fences = [d for d in decisions if d.action is not None and isinstance(d.action.work, Fence)]
    result = Days(
        what=f"{REPLICAS} replicas on a simulated cluster of {NODES} nodes",
        node_days=NODES * hours / 24.0,
        signals=rehearsal.bus.published,
        opened=sum(d.kind is DecisionKind.OPENED for d in decisions),
        convicted=sum(
            d.kind in (DecisionKind.OPENED, DecisionKind.VERDICT)
            and d.verdict in (Verdict.DEAD, Verdict.UNREACHABLE)
            for d in decisions
        ),
        wrong_fences=sum(d.outcome is None for d in fences),
        told=tuple(
            f"{d.at:.1f} {d.subject} {d.kind.value} {d.why}"
            for fence in fences
            for d in decisions[max(0, fence.seq - 8) : fence.seq]
        ),
    )
    await rehearsal.stop()
    result.wall_s = time.perf_counter() - began
    return result
