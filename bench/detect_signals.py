"""Ordinary trouble for days, as signals alone: nothing of it may end in a fence.

What watches, vantage points and BMCs would say is drawn and handed to the real engine, every beat
at its own time; nothing between the sources and the engine runs. ``detect_replicas`` plays fewer
days with everything real.
"""

from __future__ import annotations

import time

from town import DAY_S, EPOCH, ZONES, Days, Node, Town, booted, maintenance

from remediator.engine.events import (
    ObjectGone,
    ObjectSeen,
    OwnHealthSeen,
    SignalSeen,
    Tick,
    WatchProgressed,
)
from remediator.engine.model import (
    FactKind,
    Plane,
    Reading,
    Signal,
    vantage_subject,
)

# How often things happen, and for how long. Rates are per day.
LOST_BEATS = 0.01  # of the lease renewals
API_PAUSES, API_PAUSE_S = 6.0, (2.0, 120.0)
NATS_PAUSES, NATS_PAUSE_S = 4.0, (1.0, 60.0)
DAEMON_RESTARTS = 4.0
DEAF_VANTAGES, DEAF_S = 3.0, (10.0, 600.0)  # of all vantage points together
LYING_VANTAGES, LYING_S = 2.0, (10.0, 600.0)  # one calls every node down that it is asked about
CLOCK_JUMPS, CLOCK_JUMP_S = 2.0, 600.0  # of the prober of a vantage point, to and fro
# Of each node.
KUBELET_RESTARTS, KUBELET_RESTART_S = 0.5, (5.0, 60.0)
HANDLER_RESTARTS, HANDLER_RESTART_S = 0.5, (5.0, 100.0)
PLANNED_REBOOTS, REBOOT_S = 0.1, (60.0, 400.0)
FALSE_DOWNS, FALSE_DOWN_S = 0.2, (3.0, 30.0)  # one vantage point's word about one node
BMC_LIES, BMC_LIE_S = 0.02, (10.0, 900.0)  # "off" of a host that lives
BMC_SILENT = 0.03  # of the answers


class Noise(Town):
    """A cluster in ordinary trouble, in which no host is ever lost."""

    def __init__(self, nodes: int, seed: int) -> None:
        self._api_back_at = 0.0
        self._deaf: dict[str, float] = {}  # zone of the vantage point -> until
        self._lying: dict[str, float] = {}
        super().__init__(nodes, seed)

    # --- what goes on in peace ------------------------------------------------------------------

    def begin(self) -> None:
        """Set everything going."""
        rng = self.rng
        for node in self.nodes:
            self.later(rng.uniform(0.0, node.period_s), lambda node=node: self._lease(node))
            self.later(rng.uniform(0.0, 60.0), lambda node=node: self._handler(node))
            self.again(KUBELET_RESTARTS, lambda node=node: self._kubelet_restart(node))
            self.again(HANDLER_RESTARTS, lambda node=node: self._handler_restart(node))
            self.again(PLANNED_REBOOTS, lambda node=node: self._reboot(node))
            self.again(FALSE_DOWNS, lambda node=node: self._false_down(node))
            self.again(BMC_LIES, lambda node=node: self._bmc_lie(node))
            for zone in ZONES:
                self.later(
                    rng.uniform(0.0, 120.0), lambda node=node, zone=zone: self._refresh(node, zone)
                )
        for zone in ZONES:
            self.later(rng.uniform(0.0, 5.0), lambda zone=zone: self._vantage(zone))
        self.later(1.0, self._second)
        self.later(30.0, self._bookmark)
        self.again(API_PAUSES, self._api_pause)
        self.again(NATS_PAUSES, self._nats_pause)
        self.again(DAEMON_RESTARTS, self.lead)
        self.again(DEAF_VANTAGES, lambda: self._vantage_trouble(self._deaf, DEAF_S))
        self.again(LYING_VANTAGES, lambda: self._vantage_trouble(self._lying, LYING_S))
        self.again(CLOCK_JUMPS, self._clock_jump)

    def _second(self) -> None:
        """Let a second pass: the canary's beat, our own health, a tick."""
        if self.now >= self._api_back_at:
            self.send("leases", WatchProgressed(watch="leases", at=self.now))
        paused_s = max(0.0, self._api_back_at - self.now)
        nats_s = self.now - self.nats_began_at if self.now < self.nats_back_at else 0.002
        self.tell(
            OwnHealthSeen(
                loop_lag_s=self.rng.expovariate(100.0),
                api_latency_s=2.0 if paused_s else self.rng.expovariate(20.0),
                nats_latency_s=nats_s,
                stale_watches=("leases",) if paused_s > 0.0 else (),
            )
        )
        self.tell(Tick())
        self.later(1.0, self._second)

    def _bookmark(self) -> None:
        if self.now >= self._api_back_at:
            self.send("nodes", WatchProgressed(watch="nodes", at=self.now))
        self.later(self.rng.uniform(10.0, 60.0), self._bookmark)

    def _lease(self, node: Node) -> None:
        """Renew a lease: now and then not, late while the API server pauses."""
        rng = self.rng
        if self.now < self._api_back_at:
            # The kubelet's request waits up to 10 s for its answer, and is repeated at once.
            self.at(self._api_back_at + rng.uniform(0.0, 10.0), lambda: self._lease(node))
            return
        away_until = max(node.down_until, node.kubelet_away_until)
        if self.now < away_until:
            self.at(away_until + rng.uniform(0.0, 1.0), lambda: self._lease(node))
            return
        if rng.random() >= LOST_BEATS:
            lag_s = rng.expovariate(50.0) if rng.random() < 0.999 else rng.uniform(0.5, 3.0)
            self.later(
                lag_s, lambda: self.say(Plane.LEASE, "lease watch", node.subject, Reading.UP)
            )
        self.later(node.period_s * (1.0 + 0.04 * rng.random()), lambda: self._lease(node))

    def _handler(self, node: Node) -> None:
        away_until = max(node.down_until, node.handler_away_until)
        if self.now < away_until:
            self.at(away_until + self.rng.uniform(0.0, 2.0), lambda: self._handler(node))
            return
        if self.now >= self._api_back_at and self.rng.random() >= LOST_BEATS:
            self.say(Plane.HANDLER, "node watch", node.subject, Reading.UP)
        self.later(60.0 * (1.0 + 1.2 * self.rng.random()), lambda: self._handler(node))

    # --- vantage points -------------------------------------------------------------------------

    def _vantage(self, zone: str) -> None:
        """Tell that a vantage point lives, and whether it can be believed."""
        reading = Reading.UNKNOWN if self.now < self._deaf.get(zone, 0.0) else Reading.UP
        name = f"vantage-{zone}"
        self.say(Plane.NETWORK, name, vantage_subject(name), reading, zone=zone)
        self.later(5.0, lambda: self._vantage(zone))

    def _refresh(self, node: Node, zone: str) -> None:
        self.probed(node, zone)
        self.later(120.0 * self.rng.uniform(0.9, 1.1), lambda: self._refresh(node, zone))

    def probed(self, node: Node, zone: str) -> None:
        """Say what a vantage point finds."""
        reading = Reading.UP
        if self.now < self._deaf.get(zone, 0.0):
            reading = Reading.UNKNOWN
        elif (
            self.now < node.down_until
            or self.now < node.false_down.get(zone, 0.0)
            or self.now < self._lying.get(zone, 0.0)
        ):
            reading = Reading.DOWN
        self.say(Plane.NETWORK, f"vantage-{zone}", node.subject, reading, zone=zone)

    def _false_down(self, node: Node) -> None:
        zone = self.rng.choice(ZONES)
        for_s = self.rng.uniform(*FALSE_DOWN_S)
        node.false_down[zone] = self.now + for_s
        self.probed(node, zone)
        self.later(for_s + 0.1, lambda: self.probed(node, zone))

    def _vantage_trouble(self, which: dict[str, float], for_s: tuple[float, float]) -> None:
        which[self.rng.choice(ZONES)] = self.now + self.rng.uniform(*for_s)

    def _clock_jump(self) -> None:
        zone = self.rng.choice(ZONES)
        self.clock_s[zone] = self.rng.choice((-CLOCK_JUMP_S, 0.0, CLOCK_JUMP_S))

    # --- BMCs -----------------------------------------------------------------------------------

    def powered(self, node: Node) -> None:
        """Say what a node's BMC says now."""
        reading = Reading.UP
        if self.rng.random() < BMC_SILENT:
            reading = Reading.UNKNOWN
        elif self.now < node.off_until:
            reading = Reading.DOWN
        self.say(Plane.POWER, "redfish bmc", node.subject, reading)

    def _bmc_lie(self, node: Node) -> None:
        node.off_until = self.now + self.rng.uniform(*BMC_LIE_S)
        self.powered(node)  # a poll in peace finds it

    # --- restarts and pauses --------------------------------------------------------------------

    def _kubelet_restart(self, node: Node) -> None:
        node.kubelet_away_until = self.now + self.rng.uniform(*KUBELET_RESTART_S)

    def _handler_restart(self, node: Node) -> None:
        node.handler_away_until = self.now + self.rng.uniform(*HANDLER_RESTART_S)
        source = "virt-handler pod"

        def pod(reading: Reading) -> None:
            signal = Signal(
                plane=Plane.HANDLER,
                source=source,
                subject=node.subject,
                reading=reading,
                at=self.now,
                aspect="pod",
            )
            self.send((Plane.HANDLER, source, node.name), SignalSeen(signal=signal))

        pod(Reading.DOWN)
        self.at(node.handler_away_until, lambda: pod(Reading.UP))

    def _reboot(self, node: Node) -> None:
        """Reboot a node under maintenance: nothing of it is heard, and its boot id is new."""
        if self.now < node.down_until:
            return
        facts = maintenance(node)
        node.down_until = self.now + 20.0 + self.rng.uniform(*REBOOT_S)
        self.send(("hands-off", node.name), ObjectSeen(facts=facts))

        def back() -> None:
            node.boot += 1
            node.facts = booted(node)
            self.send(("node", node.name), ObjectSeen(facts=node.facts))

        def over() -> None:
            self.send(
                ("hands-off", node.name),
                ObjectGone(kind=FactKind.HANDS_OFF, name=facts.name, uid=facts.uid),
            )

        self.at(node.down_until, back)
        self.at(node.down_until + 90.0, over)

    def _api_pause(self) -> None:
        self._api_back_at = self.now + self.rng.uniform(*API_PAUSE_S)

    def _nats_pause(self) -> None:
        """Let NATS be away; a long pause ends the connection, and with it the term."""
        for_s = self.rng.uniform(*NATS_PAUSE_S)
        self.nats_began_at, self.nats_back_at = self.now, self.now + for_s

        def back() -> None:
            held, self.held = self.held, {}
            if for_s > 20.0:
                self.lead()
                return
            for event in held.values():
                self.result.signals += 1
                self.tell(event)

        self.at(self.nats_back_at + 1e-6, back)


def days_of_signals(nodes: int, days: float, *, seed: int) -> Days:
    """Let a cluster of so many nodes speak for so many days to the real engine."""
    began = time.perf_counter()
    town = Noise(nodes, seed)
    town.begin()
    town.run(EPOCH + days * DAY_S)
    town.result.node_days = nodes * days
    town.result.wall_s = time.perf_counter() - began
    return town.result
