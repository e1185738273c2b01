"""Faults drawn at random: planes, hosts, zones, BMCs, the API server, NATS, clocks, people."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from harness import Rehearsal, Seat
from seed_story import Story

from remediator.sim.bmc import BmcMode
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.faults import ApiMode
from remediator.sim.reach import API, KUBELET_PORT
from remediator.sim.resources import ResourceType

MAINTENANCES = ResourceType(
    "nodemaintenance.medik8s.io",
    "v1beta1",
    "nodemaintenances",
    "NodeMaintenance",
    namespaced=False,
    status_subresource=True,
)


class Trouble:
    """Draws faults that a correct daemon must survive, and only those.

    Left out are the stories in which nobody could be right: an administrator who deletes the Node
    of a living host (Kubernetes itself then starts its VMs a second time), and a BMC that begins to
    lie "off" within a minute before its host is cut off.
    """

    def __init__(self, rehearsal: Rehearsal, rng: random.Random, story: Story) -> None:
        self._r = rehearsal
        self._rng = rng
        self._story = story
        self._liars: dict[str, float] = {}
        self._hung: set[str] = set()
        self._cut: dict[str, float] = {}  # until when a node's networks are cut, or its probes
        self._zones = rehearsal.cluster.reach.zones()
        self._kinds = CustomKinds(rehearsal.cluster.server)
        self._tended: set[str] = set()  # nodes under maintenance
        self._nodes = list(rehearsal.cluster.hosts)

    def act(self) -> None:
        """Do one random thing."""
        rng, faults = self._rng, self._r.cluster.faults
        node = rng.choice(self._nodes)
        now = self._r.clock.now()
        fresh_liar = now - self._liars.get(node, 0.0) < 70.0
        choices: list[tuple[int, Callable[[], object]]] = [
            (6, lambda: faults.power_loss(node)),
            (3, lambda: faults.power_restore(node)),
            (3, lambda: faults.kubelet_hang(node)),
            (2, lambda: faults.handler_hang(node)),
            (2, lambda: faults.resume(node)),
            (3, lambda: faults.kernel_panic(node)),
            (3, lambda: faults.heal(node)),
            (2, lambda: faults.clock_skew(node, rng.uniform(-900.0, 900.0))),
            (2, lambda: faults.bmc(node, BmcMode.OK)),
            (3, lambda: faults.bmc(node, self._bmc_fault(node, now))),
            (2, self._api),
            (2, self._bus),
            (2, self._ntp_jump),
            (1, lambda: faults.handler_rollout(away_s=rng.uniform(2.0, 30.0))),
            (2, lambda: self._condition(node)),
            (2, lambda: self._maintain(node)),
            (1, self._kill_prober),
        ]
        if not any(now - at < 70.0 for at in self._liars.values()):
            choices += [(2, lambda: self._cut_zone(now)), (2, lambda: self._cut_probes(now))]
        if not fresh_liar:
            choices += [
                (2, lambda: self._lose_probes(node, now)),
                (2, lambda: self._cut_route(node, now)),
            ]
            choices += [
                (6, lambda: faults.partition(node, bmc=rng.random() < 0.3)),
                (2, lambda: faults.host_hang(node)),
                (2, lambda: faults.flap(node, period_s=rng.uniform(10.0, 60.0), times=3)),
                (1, lambda: self._swap(node)),
            ]
        weights = [weight for weight, _ in choices]
        ((_, chosen),) = rng.choices(choices, weights)
        before = len(faults.timeline)
        chosen()
        for entry in faults.timeline[before:]:
            self._note(f"{entry.verb} {entry.target} {entry.detail}")
            if entry.verb.endswith("-hang"):
                self._hung.add(entry.target)
            elif entry.verb == "resume":
                self._hung.discard(entry.target)

    def _bmc_fault(self, node: str, now: float) -> BmcMode:
        host = self._r.cluster.hosts[node]
        modes = [
            BmcMode.TIMEOUT,
            BmcMode.GARBAGE,
            BmcMode.ERROR_500,
            BmcMode.NO_POWER_STATE,
            BmcMode.ALWAYS_ON,
            BmcMode.AUTH_FAILURE,
            BmcMode.IGNORES_RESET,
            BmcMode.SLOW,
            BmcMode.DEAD_WITH_HOST,
        ]
        living = host.powered and host.network and not (host.crashed or host.frozen)
        if living and node not in self._hung and self._cut.get(node, 0.0) < now:
            modes.append(BmcMode.ALWAYS_OFF)
        mode = self._rng.choice(modes)
        if mode is BmcMode.ALWAYS_OFF:
            self._liars[node] = now
        return mode

    def _swap(self, node: str) -> None:
        other = self._rng.choice(self._nodes)
        if other != node:
            self._r.cluster.faults.swap_bmcs(node, other)

    # --- planes that fail alone -------------------------------------------------------------------

    def _lose_probes(self, node: str, now: float) -> None:
        """Let a firewall drop every probe of a node."""
        faults, for_s = self._r.cluster.faults, self._rng.uniform(3.0, 60.0)
        self._cut[node] = now + for_s + 20.0
        for port in (KUBELET_PORT, 0):
            faults.firewall(node, port=port)
        self._later(for_s, lambda: faults.firewall_end(node))

    def _cut_route(self, node: str, now: float) -> None:
        """Cut a host off the API server, and nothing else of it."""
        faults, for_s = self._r.cluster.faults, self._rng.uniform(3.0, 60.0)
        self._cut[node] = now + for_s + 20.0
        faults.cut(node, API)
        self._later(for_s, lambda: faults.mend(node, API))

    def _cut_zone(self, now: float) -> None:
        self._zone_fault(now, self._r.cluster.faults.cut_zone)

    def _cut_probes(self, now: float) -> None:
        self._zone_fault(now, self._r.cluster.faults.cut_probes)

    def _zone_fault(self, now: float, cut: Callable[[str], object]) -> None:
        zone, for_s = self._rng.choice(self._zones), self._rng.uniform(3.0, 60.0)
        for node in self._nodes:  # cut off from one another, as the vantage points see it
            self._cut[node] = max(self._cut.get(node, 0.0), now + for_s + 20.0)
        cut(zone)
        self._later(for_s, lambda: self._r.cluster.faults.mend_zone(zone))

    def _ntp_jump(self) -> None:
        """Let the wall clocks jump that our own processes believe which start from now on.

        Not those of all hosts at once: KubeVirt itself, whose clock would stand still here, calls
        hosts unresponsive whose heartbeats are five minutes old.
        """
        self._r.wall_skew_s += self._rng.choice((-600.0, 600.0))
        self._note(f"our wall clock is off by {self._r.wall_skew_s:+g} s")

    def _condition(self, node: str) -> None:
        kind = self._rng.choice(("KernelDeadlock", "MemoryPressure", "ReadonlyFilesystem"))
        faults = self._r.cluster.faults
        faults.node_condition(node, kind, "True")
        self._later(
            self._rng.uniform(2.0, 90.0), lambda: faults.node_condition(node, kind, "False")
        )

    def _kill_prober(self) -> None:
        """Kill one stand-alone prober; another starts in its place."""
        if self._r.vantages:
            name = self._rng.choice(sorted(self._r.vantages))
            place, _ = self._r.vantages[name]
            self._r.end_vantage(name)
            self._note(f"kill {name}")
            self._later(
                self._rng.uniform(1.0, 20.0),
                lambda: self._r.start_vantage(name, Seat(place.zone)),
            )

    def _maintain(self, node: str) -> None:
        """Put a node under maintenance for a while; the first time its CRD is installed for it."""
        registry, store = self._r.cluster.registry, self._r.cluster.store
        if registry.find(MAINTENANCES.group, MAINTENANCES.version, MAINTENANCES.plural) is None:
            self._kinds.install(MAINTENANCES)
            self._note("the CRD of NodeMaintenance is installed")
        if node in self._tended:
            return
        self._tended.add(node)
        self._note(f"NodeMaintenance of {node}")
        store.create(
            MAINTENANCES,
            {
                "apiVersion": MAINTENANCES.api_version,
                "kind": MAINTENANCES.kind,
                "metadata": {"name": f"of-{node}"},
                "spec": {"nodeName": node, "reason": "a seed says so"},
            },
        )
        self._later(self._rng.uniform(5.0, 90.0), lambda: self.release(node))

    def release(self, node: str) -> None:
        """End a maintenance."""
        if node in self._tended:
            self._tended.discard(node)
            self._note(f"end of NodeMaintenance of {node}")
            self._r.cluster.store.delete(MAINTENANCES, "", f"of-{node}")

    def end(self) -> None:
        """End what ``Faults.end_all`` does not know of."""
        self.bus_back()
        for node in list(self._tended):
            self.release(node)

    def _api(self) -> None:
        mode = self._rng.choice(list(ApiMode))
        self._r.cluster.faults.api(mode)
        self._later(self._rng.uniform(1.0, 40.0), lambda: self._r.cluster.faults.api(ApiMode.OK))

    def _bus(self) -> None:
        which = self._rng.choice(("bus", "journal", "both"))
        self._note(f"{which} away")
        if which != "journal":
            self._r.bus.outage = True
        if which != "bus":
            self._r.journal.outage = True
        self._later(self._rng.uniform(0.5, 30.0), self.bus_back)

    def bus_back(self) -> None:
        self._r.bus.outage = False
        self._r.journal.outage = False

    def _later(self, delay_s: float, act: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(delay_s, act)

    def _note(self, what: str) -> None:
        self._story.acts.append((self._r.clock.now(), what))
