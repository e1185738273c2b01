"""The truth ledger: which copy of which VM runs and writes, at each instant, on every host.

The Kubernetes API cannot show a double run (it keeps one VMI per VM); only somebody who sees the
hosts can. The emulated hosts report every start and end of a domain here. Scenarios and seeded
simulations judge the daemon by it; the daemon never sees it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_TIMELINE_ENTRIES_MAX = 200_000  # the newest are kept; double runs are all kept


@dataclass(slots=True, eq=False)
class Copy:
    """One domain of one VM on one node, from the start of the domain to its end.

    ``persistent``: the VM has a disk that outlives the domain, so two copies would destroy it.
    ``holding``: the copy writes, or is paused and may go on writing; False only while its storage
    is cut off.
    """

    number: int
    vm: str
    node: str
    vmi_uid: str
    persistent: bool
    started_at: float
    holding: bool = True
    paused: bool = False
    booting: bool = False
    up_at: float | None = None
    ended_at: float | None = None
    end_reason: str = ""

    def __str__(self) -> str:
        return f"{self.vm} on {self.node} (vmi {self.vmi_uid}, copy {self.number})"


@dataclass(slots=True, eq=False)
class DoubleRun:
    """Two copies of one VM that both held its disks, from ``began_at`` to ``ended_at``."""

    vm: str
    first: Copy
    second: Copy
    began_at: float
    ended_at: float | None = None

    def lasted_s(self, now: float) -> float:
        """Return its length in seconds, up to ``now`` when it still lasts."""
        return (now if self.ended_at is None else self.ended_at) - self.began_at

    def __str__(self) -> str:
        end = "still lasts" if self.ended_at is None else f"until {self.ended_at:.3f}"
        nodes = f"{self.first.node} and {self.second.node}"
        return f"double run of {self.vm} on {nodes} from {self.began_at:.3f} {end}"


@dataclass(slots=True, frozen=True)
class Entry:
    """One change of one copy.

    ``what`` is started, up, rebooting, paused, resumed, cut, rejoined, moved or ended.
    """

    at: float
    what: str
    vm: str
    node: str
    copy: int
    detail: str = ""


@dataclass(slots=True)
class _History:
    copies: list[Copy] = field(default_factory=list)
    running: list[Copy] = field(default_factory=list)


class Ledger:
    """Books of all copies. ``now`` returns epoch seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._vms: dict[str, _History] = {}
        self._open: dict[tuple[int, int], DoubleRun] = {}
        self._double_runs: list[DoubleRun] = []
        self._timeline: deque[Entry] = deque(maxlen=_TIMELINE_ENTRIES_MAX)
        self._listeners: list[Callable[[Entry], None]] = []
        self._next_number = 1
        self._booting = 0
        self._booting_on: dict[str, int] = {}
        self.peak_booting = 0
        self.peak_booting_at: float | None = None
        self.peak_booting_on: dict[str, int] = {}

    def subscribe(self, listener: Callable[[Entry], None]) -> None:
        """Call ``listener`` with every later entry, at once and on the loop."""
        self._listeners.append(listener)

    # What the hosts report.

    def started(
        self, vm: str, *, node: str, vmi_uid: str, persistent: bool, up: bool = False
    ) -> Copy:
        """Book a new domain; ``up`` says that its guest has booted long ago (a warm start)."""
        now = self._now()
        copy = Copy(
            number=self._next_number,
            vm=vm,
            node=node,
            vmi_uid=vmi_uid,
            persistent=persistent,
            started_at=now,
            up_at=now if up else None,
        )
        self._next_number += 1
        history = self._vms.setdefault(vm, _History())
        history.copies.append(copy)
        history.running.append(copy)
        self._write("started", copy)
        self._open_double_runs(copy)
        if not up:
            self._set_booting(copy, booting=True)
        return copy

    def up(self, copy: Copy) -> None:
        """Book that the guest has booted."""
        self._must_run(copy)
        self._set_booting(copy, booting=False)
        copy.up_at = self._now()
        self._write("up", copy)

    def rebooting(self, copy: Copy, why: str) -> None:
        """Book that the guest starts its boot again, in the same domain."""
        self._must_run(copy)
        copy.up_at = None
        self._set_booting(copy, booting=True)
        self._write("rebooting", copy, why)

    def paused(self, copy: Copy, why: str) -> None:
        """Book that its CPUs stand still; it may go on any moment, so it still holds its disks."""
        self._must_run(copy)
        if not copy.paused:
            copy.paused = True
            self._write("paused", copy, why)

    def resumed(self, copy: Copy) -> None:
        """Book that it goes on where it stood."""
        self._must_run(copy)
        if copy.paused:
            copy.paused = False
            self._write("resumed", copy)

    def cut_off(self, copy: Copy, why: str) -> None:
        """Book that its writes no longer reach the storage."""
        self._must_run(copy)
        if copy.holding:
            copy.holding = False
            self._close_double_runs(copy)
            self._write("cut", copy, why)

    def rejoined(self, copy: Copy) -> None:
        """Book that its writes reach the storage again."""
        self._must_run(copy)
        if not copy.holding:
            copy.holding = True
            self._write("rejoined", copy)
            self._open_double_runs(copy)

    def moved(self, copy: Copy, node: str) -> Copy:
        """Book a finished live migration: the copy on ``node`` takes over in the same instant."""
        self._must_run(copy)
        was_up_at = copy.up_at
        self.ended(copy, f"moved to {node}")
        heir = self.started(
            copy.vm, node=node, vmi_uid=copy.vmi_uid, persistent=copy.persistent, up=True
        )
        heir.up_at = was_up_at
        self._write("moved", heir, f"from {copy.node}")
        if was_up_at is None:
            self._set_booting(heir, booting=True)
        return heir

    def ended(self, copy: Copy, why: str) -> None:
        """Book that the domain is gone; it writes no more."""
        self._must_run(copy)
        self._set_booting(copy, booting=False)
        copy.ended_at = self._now()
        copy.end_reason = why
        self._vms[copy.vm].running.remove(copy)
        self._close_double_runs(copy)
        self._write("ended", copy, why)

    # What judges ask.

    @property
    def double_runs(self) -> tuple[DoubleRun, ...]:
        """All double runs of VMs with a persistent disk, those that still last included."""
        return tuple(self._double_runs)

    @property
    def booting(self) -> int:
        """How many guests boot now."""
        return self._booting

    def running_copies(self, vm: str) -> tuple[Copy, ...]:
        """Return the copies whose domain exists now, oldest first."""
        history = self._vms.get(vm)
        return () if history is None else tuple(history.running)

    def writers(self, vm: str) -> tuple[Copy, ...]:
        """Return the running copies that hold the VM's persistent disk now."""
        return tuple(c for c in self.running_copies(vm) if c.persistent and c.holding)

    def up_at(self, vm: str) -> float | None:
        """Return when the guest of the newest running copy was up; None while down or booting."""
        running = self.running_copies(vm)
        return running[-1].up_at if running else None

    def is_up(self, vm: str) -> bool:
        """Tell whether some copy serves now: booted, not paused, disks reachable."""
        return any(
            c.up_at is not None and not c.paused and (c.holding or not c.persistent)
            for c in self.running_copies(vm)
        )

    def running_on(self, node: str) -> tuple[Copy, ...]:
        """Return the copies whose domain exists on the node now."""
        return tuple(c for h in self._vms.values() for c in h.running if c.node == node)

    def copies(self, vm: str) -> tuple[Copy, ...]:
        """Return all copies that ever ran, oldest first."""
        history = self._vms.get(vm)
        return () if history is None else tuple(history.copies)

    def vms(self) -> Iterator[str]:
        """Yield all VMs that ever ran."""
        return iter(self._vms)

    def timeline(self, vm: str | None = None) -> tuple[Entry, ...]:
        """Return the newest 200 000 changes in order, of one VM or of all."""
        return tuple(e for e in self._timeline if vm is None or e.vm == vm)

    # Inside.

    def _must_run(self, copy: Copy) -> None:
        assert copy.ended_at is None, f"{copy} has ended: {copy.end_reason}"

    def _write(self, what: str, copy: Copy, detail: str = "") -> None:
        entry = Entry(self._now(), what, copy.vm, copy.node, copy.number, detail)
        self._timeline.append(entry)
        for listener in self._listeners:
            listener(entry)

    def _set_booting(self, copy: Copy, *, booting: bool) -> None:
        if copy.booting == booting:
            return
        copy.booting = booting
        step = 1 if booting else -1
        self._booting += step
        on_node = self._booting_on.get(copy.node, 0) + step
        self._booting_on[copy.node] = on_node
        if self._booting > self.peak_booting:
            self.peak_booting, self.peak_booting_at = self._booting, self._now()
        self.peak_booting_on[copy.node] = max(on_node, self.peak_booting_on.get(copy.node, 0))

    def _open_double_runs(self, copy: Copy) -> None:
        for other in self.writers(copy.vm):
            if other is not copy and copy.persistent:
                run = DoubleRun(copy.vm, other, copy, self._now())
                self._open[_pair(other, copy)] = run
                self._double_runs.append(run)

    def _close_double_runs(self, copy: Copy) -> None:
        for pair in [pair for pair in self._open if copy.number in pair]:
            self._open.pop(pair).ended_at = self._now()


def _pair(one: Copy, other: Copy) -> tuple[int, int]:
    return (min(one.number, other.number), max(one.number, other.number))
