"""What watching VMs costs the engine, while they are well and while they are not."""

from __future__ import annotations

import time

import msgspec
from facts import STARTED_AT, beat, warm
from table import Row, rate

from remediator.engine.events import Event, LeadershipGained, ObjectSeen, Tick, WatchProgressed
from remediator.engine.machine import Engine
from remediator.engine.model import Plane, VmiFacts

SICK = (0.01, 0.1)  # shares of the VMs whose guests are silent
SECONDS = 400  # of watching: long enough for every silence to be suspected, and confirmed
_BOOT_S = 301
_BEATS = {Plane.LEASE: 10, Plane.HANDLER: 60}


def measure(nodes: int, vms: int) -> list[Row]:
    """Return the rows of one engine."""
    group = f"VM verdicts, {vms:,} VMs"
    engine = Engine()
    engine.handle(LeadershipGained(identity="bench", epoch=1), STARTED_AT)
    warm(engine, nodes, vms, STARTED_AT)
    watch = _Watch(engine, nodes)
    watch.run(_BOOT_S)
    well = list(engine.context.inventory.vmis.values())
    quiet_s = watch.run(SECONDS)
    rows = [Row(group, "a second of ticks, all VMs well", quiet_s / SECONDS * 1e3, "ms")]
    again = [msgspec.structs.replace(vmi, claims=("other",)) for vmi in well]
    updates = rate(group, "updates of VMIs that are well", len(again), watch.tell(again))
    rows.append(updates)
    for share in SICK:
        sick = [
            msgspec.structs.replace(vmi, agent_connected=False, agent_known=True)
            for vmi in again[: int(len(again) * share)]
        ]
        name = f"updates by which {len(sick):,} guests fall silent"
        rows.append(rate(group, name, len(sick), watch.tell(sick), updates))
        seconds, worst_s = watch.run(SECONDS), watch.worst_s
        told = f"{len(sick):,} guests silent, of which {len(engine.state.vm_incidents):,} told"
        rows.append(Row(group, f"a second of ticks, {told}", seconds / SECONDS * 1e3, "ms"))
        rows.append(Row(group, "the longest of these ticks", worst_s * 1e3, "ms"))
    return rows


class _Watch:
    """Lets the nodes beat, and measures what else is to be done once a second."""

    def __init__(self, engine: Engine, nodes: int) -> None:
        self.now = STARTED_AT + 1.0
        self.worst_s = 0.0
        self._engine = engine
        self._nodes = nodes

    def run(self, seconds: int) -> float:
        """Return how many seconds of this machine so many seconds of watching took."""
        total_s = self.worst_s = 0.0
        for _ in range(seconds):
            self.now += 1.0
            for plane, every_s in _BEATS.items():
                for number in range(round(self.now) % every_s, self._nodes, every_s):
                    self._handle(beat(number, self.now, plane))
            began = time.perf_counter()
            for watch in ("leases", "nodes"):
                self._handle(WatchProgressed(watch=watch, at=self.now))
            self._handle(Tick())
            took_s = time.perf_counter() - began
            self.worst_s = max(self.worst_s, took_s)
            total_s += took_s
        return total_s

    def tell(self, vmis: list[VmiFacts]) -> float:
        """Return how many seconds of this machine it took to take these in."""
        events = [ObjectSeen(facts=vmi) for vmi in vmis]
        began = time.perf_counter()
        for event in events:
            self._handle(event)
        return time.perf_counter() - began

    def _handle(self, event: Event) -> None:
        self._engine.handle(event, self.now)
