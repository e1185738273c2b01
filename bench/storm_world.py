"""A boot storm on the simulated storage, on virtual time, with any pace beside any other.

A VM that is started takes a while to be scheduled, attached and launched, which costs the storage
nothing; then it boots from the storage that all share; then it takes a moment until its guest agent
is seen. The storage is ``remediator.sim.storage``: processor sharing with a knee past which it
loses capacity. Nobody is told the knee; a pace sees starts and ends, as the daemon does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from remediator.sim import virtual_time
from remediator.sim.storage import SharedStorage, StorageSettings

LOOK_S = 1.0  # how often a pace is asked, besides at each change: the daemon's tick
TIERS = ("highest", "high", "medium", "low")
_TIER_SHARES = (0.05, 0.2, 0.5, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How many VMs of how many lost hosts, on what storage."""

    name: str
    vms: int
    lost: int
    survivors: int
    storage: StorageSettings = field(default_factory=StorageSettings)
    horizon_s: float = 6 * 3600.0  # what is not up by then counts as never

    def specs(self, seed: int) -> list[Vm]:
        """Return the VMs, dealt out by the seed."""
        rng = random.Random(f"storm/{self.name}/{seed}")
        tiers = rng.choices(range(len(TIERS)), _TIER_SHARES, k=self.vms)
        return [
            Vm(
                name=f"vm-{number:04d}",
                tier=tiers[number],
                ios=self.storage.boot_ios * rng.uniform(0.7, 1.3),
                launch_s=rng.uniform(2.5, 4.5),
                seen_s=rng.uniform(0.5, 1.5),
                node=f"n{number % self.survivors:03d}",
                lost=f"lost-{number % self.lost:02d}",
            )
            for number in range(self.vms)
        ]

    def bound_s(self, vms: Sequence[Vm]) -> float:
        """Return the time that nobody can beat: all I/Os at full capacity, or the longest boot."""
        work_s = sum(vm.ios for vm in vms) / self.storage.iops
        first_s = min(vm.launch_s for vm in vms) + min(vm.seen_s for vm in vms)
        longest_s = max(
            vm.launch_s + vm.ios / self.storage.guest_iops_max + vm.seen_s for vm in vms
        )
        return max(work_s + first_s, longest_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """One VM to be started."""

    name: str
    tier: int
    ios: float
    launch_s: float
    seen_s: float
    node: str  # where the scheduler will put it
    lost: str  # where it ran


class Pace(Protocol):
    """Decides who starts; is told what became of it."""

    def choose(self, now: float) -> Sequence[Vm]:
        """Return the VMs to start now."""

    def reads(self, vm: Vm, now: float) -> None:
        """Note that a VM runs: launched, and booting from now on."""

    def up(self, vm: Vm, now: float) -> None:
        """Note that a VM was seen to be up."""

    def idle(self, now: float) -> None:
        """Note that time has passed."""


@dataclass(slots=True)
class Course:
    """What came of one storm."""

    up_at: dict[str, float] = field(default_factory=dict)
    started_at: dict[str, float] = field(default_factory=dict)
    peak_boots: int = 0
    failed_boots: int = 0
    boots: list[tuple[float, int]] = field(default_factory=list)  # (time, boots reading)
    limits: list[tuple[float, float]] = field(default_factory=list)


def play(case: Case, vms: Sequence[Vm], pace: Pace) -> Course:
    """Run one storm to its end or its horizon."""
    return virtual_time.run(_Storm(case, vms, pace).run())


class _Storm:
    def __init__(self, case: Case, vms: Sequence[Vm], pace: Pace) -> None:
        self._case, self._vms, self._pace = case, vms, pace
        self._course = Course()
        self._done = asyncio.Event()

    async def run(self) -> Course:
        self._storage = SharedStorage(self._case.storage)
        self._loop = asyncio.get_running_loop()
        done = asyncio.create_task(self._done.wait())
        looking = asyncio.create_task(self._look())
        await asyncio.wait(
            {done, looking},
            timeout=self._case.horizon_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if looking.done():
            looking.result()  # it never ends but by its own fault
        looking.cancel()
        done.cancel()
        self._course.peak_boots = self._storage.peak_boots
        self._course.failed_boots = self._storage.timeouts
        return self._course

    async def _look(self) -> None:
        while True:
            self._pace.idle(self._loop.time())
            self._ask()
            await asyncio.sleep(LOOK_S)

    def _ask(self) -> None:
        now = self._loop.time()
        for vm in self._pace.choose(now):
            assert vm.name not in self._course.started_at, f"{vm.name} is started twice"
            self._course.started_at[vm.name] = now
            self._loop.call_later(vm.launch_s, self._boot, vm)
        self._course.boots.append((now, self._storage.boots))
        self._course.limits.append((now, float(getattr(self._pace, "limit", 0.0))))

    def _boot(self, vm: Vm) -> None:
        self._pace.reads(vm, self._loop.time())
        self._storage.boot(lambda: self._loop.call_later(vm.seen_s, self._up, vm), ios=vm.ios)

    def _up(self, vm: Vm) -> None:
        now = self._loop.time()
        self._course.up_at[vm.name] = now
        self._pace.up(vm, now)
        if len(self._course.up_at) == len(self._vms):
            self._done.set()
        else:
            self._ask()


def ordered(vms: Sequence[Vm]) -> Iterator[Vm]:
    """Yield the VMs as a cluster without order starts them: by name."""
    yield from sorted(vms, key=lambda vm: vm.name)
