"""The storage of ``sim/storage.py`` without an event loop: boots that share a knee, and a storm."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from remediator.engine.start_rate import StartRate


@dataclass
class Storage:
    """Up to ``knee`` boots at full speed; beyond it ``thrash`` of the capacity is lost."""

    knee: float = 10.0
    boot_s: float = 10.0
    thrash: float = 0.5
    spread: float = 0.0  # of the boots' sizes: uniform in 1 +- spread
    overhead_s: float = 0.0  # before the boot reads: scheduling, attaching

    def speed(self, boots: int) -> float:
        """Return the seconds of undisturbed boot that each gets done in a second."""
        if boots <= self.knee:
            return 1.0
        return self.knee / boots / (1 + self.thrash * (boots - self.knee) / self.knee)


@dataclass
class Storm:
    """So many VMs booted under a StartRate; ``took_s`` and what was seen on the way."""

    storage: Storage
    rate: StartRate
    seed: int = 0
    now: float = 0.0
    peak: int = 0
    limits: list[tuple[float, int]] = field(default_factory=list)

    def run(self, count: int) -> float:
        """Boot ``count`` VMs; return how long that took."""
        sizes = random.Random(self.seed)
        began_at, waiting, names = self.now, count, self._names(count)
        preparing: list[tuple[float, str]] = []
        reading: dict[str, float] = {}
        while waiting or reading or preparing:
            while waiting and len(reading) + len(preparing) < max(1, self.rate.limit):
                name = next(names)
                waiting -= 1
                self.rate.waits(waiting)
                self.rate.started(name, self.now)
                preparing.append((self.now + self.storage.overhead_s, name))
            while preparing and preparing[0][0] <= self.now + 1e-9:
                _, name = preparing.pop(0)
                spread = self.storage.spread
                reading[name] = self.storage.boot_s * sizes.uniform(1 - spread, 1 + spread)
            self.peak = max(self.peak, len(reading))
            self._pass(preparing, reading)
        return self.now - began_at

    def _pass(self, preparing: list[tuple[float, str]], reading: dict[str, float]) -> None:
        """Go to the next end of a boot, or of a preparation."""
        speed = self.storage.speed(len(reading))
        step = min(reading.values()) / speed if reading else float("inf")
        if preparing:
            step = min(step, preparing[0][0] - self.now)
        self.now += max(0.0, step)
        for name in list(reading):
            reading[name] -= step * speed
        done = next((name for name, left in reading.items() if left <= 1e-6), None)
        if done is None:
            return
        del reading[done]  # one at a time: the next start may come between two ends
        self.rate.up(done, self.now)
        if not self.limits or self.limits[-1][1] != self.rate.limit:
            self.limits.append((self.now, self.rate.limit))

    def _names(self, count: int) -> Iterator[str]:
        return (f"storm-{self.seed}/vm-{number}" for number in range(count))
