"""How fast the engine takes in heartbeats, with a large inventory, in quiet times and in bad."""

from __future__ import annotations

import time

from facts import STARTED_AT, VANTAGES, beat, inventory, life, sight, signal, warm
from table import Row, rate

from remediator.engine.effects import RecordDecision
from remediator.engine.events import Event, LeadershipGained, Tick, WatchProgressed
from remediator.engine.machine import Engine
from remediator.engine.model import Plane, Reading
from remediator.policy.loader import load_directory, shipped_directory

BEATS_PER_S = 1000  # of the simulated clock: 5,000 nodes at 10 s are 500 leases a second

HANDLER_EVERY = 12  # virt-handler beats so much more rarely than the kubelet


def measure(nodes: int, vms: int, beats: int) -> list[Row]:
    """Return the rows of one engine."""
    group = f"engine, {nodes:,} nodes, {vms:,} VMIs"
    engine = Engine(policies=load_directory(shipped_directory()))
    engine.handle(LeadershipGained(identity="bench", epoch=1), STARTED_AT)
    events = list(inventory(nodes, vms))
    began = time.perf_counter()
    for event in events:
        engine.handle(event, STARTED_AT)
    rows = [rate(group, "inventory taken in", len(events), time.perf_counter() - began)]
    del events
    warm(engine, nodes, 0, STARTED_AT)
    cluster = _Cluster(engine, nodes)
    quiet = rate(group, "heartbeats, quiet", beats, cluster.run(beats))
    rows.append(quiet)
    seconds = cluster.run(beats, probed=True)
    rows.append(rate(group, "beats and probe readings", 2 * beats, seconds, quiet))
    # One node in a hundred loses power: what this costs the heartbeats of all the others.
    cluster.silent = max(1, nodes // 100)
    while len(engine.state.incidents) < cluster.silent:
        cluster.run(BEATS_PER_S)
    for number in range(cluster.silent):
        cluster.handle(signal(number, cluster.now, Plane.POWER, Reading.DOWN))
    cluster.run(10 * BEATS_PER_S)
    cluster.records = 0
    seconds = cluster.run(beats)
    rows.append(
        rate(
            group,
            f"heartbeats, incidents: {len(engine.state.incidents)}",
            beats,
            seconds,
            quiet,
        )
    )
    rows.append(Row(group, "records meanwhile", cluster.records, ""))
    return rows


class _Cluster:
    """Lets nodes beat in turn, the watches prove progress and the clock tick."""

    def __init__(self, engine: Engine, nodes: int) -> None:
        self.now = STARTED_AT + 1.0
        self.silent = 0  # the first so many nodes beat no more
        self.records = 0
        self._engine = engine
        self._nodes = nodes
        self._turn = 0

    def handle(self, event: Event) -> None:
        for effect in self._engine.handle(event, self.now):
            self.records += isinstance(effect, RecordDecision)

    def run(self, beats: int, *, probed: bool = False) -> float:
        """Return how many seconds of this machine so many beats took.

        Where ``probed``, each comes with a reading of one of three vantage points.
        """
        events: list[tuple[float, Event]] = []
        for number in range(beats):
            if number % BEATS_PER_S == 0:
                events += [
                    (self.now, WatchProgressed(watch="leases", at=self.now)),
                    (self.now, WatchProgressed(watch="nodes", at=self.now)),
                    (self.now, Tick()),
                ]
                if probed:
                    events += [(self.now, life(vantage, self.now)) for vantage in VANTAGES]
            self.now += 1.0 / BEATS_PER_S
            self._turn += 1
            round_, node = divmod(self._turn, self._nodes - self.silent)
            events.append((self.now, beat(self.silent + node, self.now)))
            if probed:
                vantage = VANTAGES[number % len(VANTAGES)]
                events.append((self.now, sight(vantage, node, self.now)))
            if round_ % HANDLER_EVERY == 0:
                events.append((self.now, beat(self.silent + node, self.now, Plane.HANDLER)))
        began = time.perf_counter()
        for self.now, event in events:
            self.handle(event)
        return time.perf_counter() - began
