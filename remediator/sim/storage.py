"""A model of shared storage under a boot storm: processor sharing with a knee.

A boot needs a number of I/Os. One guest reads at most ``guest_iops_max``; all together at most
``iops``. Up to the knee (``iops / guest_iops_max`` boots at once) every boot runs at full speed.
Beyond it the backend does not only share its capacity, it loses some: caches no longer fit, queues
grow, requests become random. The defaults reproduce what was measured (facts/lab.md section 6):
10 boots at once take 10 s, 20 take 30 s instead of two times 10 s, 60 take 210 s instead of 60 s.

With all boots equal in rate, progress is one number: the I/Os that a boot would have done since
the beginning. It is recomputed only when a boot arrives or leaves.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """The backend. Defaults: facts/lab.md section 6.

    ``thrash``: how much of the capacity is lost beyond the knee; with ``n`` boots at once the
    backend gives ``iops / (1 + thrash * (n - knee) / knee)``.
    ``boot_timeout_s``: a guest that has not booted by then starts its boot again (a watchdog, or
    systemd's device timeouts ending in a reset); its I/Os so far were for nothing.
    """

    iops: float = 15_000.0
    guest_iops_max: float = 1_500.0
    thrash: float = 0.5
    boot_ios: float = 15_000.0
    boot_timeout_s: float = 600.0

    @property
    def knee(self) -> float:
        """How many boots at once the backend serves at full speed."""
        return self.iops / self.guest_iops_max

    def rate(self, boots: int) -> float:
        """I/Os per second that each of ``boots`` guests gets."""
        if boots <= self.knee:
            return self.guest_iops_max
        return self.iops / (1 + self.thrash * (boots - self.knee) / self.knee) / boots


class Boot:
    """One guest's boot in progress: a handle to cancel, suspend and resume it.

    Its fields belong to SharedStorage.
    """

    __slots__ = ("done_mark", "finished", "ios", "remaining", "restarted", "storage", "timer")

    def __init__(
        self,
        storage: SharedStorage,
        ios: float,
        finished: Callable[[], None],
        restarted: Callable[[], None],
    ) -> None:
        self.ios = ios
        self.storage = storage
        self.finished = finished
        self.restarted = restarted
        self.remaining = ios
        self.done_mark: float | None = None  # None: not reading (suspended, done or cancelled)
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """End it, as the guest is gone: neither callback will be called."""
        self.storage.leave(self)
        self.stop_timer()

    def suspend(self) -> None:
        """Read nothing until ``resume`` (host hang, storage cut); what was read stays read."""
        self.storage.leave(self)
        self.stop_timer()

    def resume(self) -> None:
        """Go on after ``suspend``; the time to the boot timeout starts afresh."""
        if self.done_mark is None and self.remaining > 0:
            self.storage.enter(self)

    def stop_timer(self) -> None:
        """Forget the boot timeout."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class SharedStorage:
    """One backend that all guests boot from. Create it on the running event loop."""

    def __init__(self, settings: StorageSettings | None = None) -> None:
        self.settings = settings or StorageSettings()
        self._loop = asyncio.get_running_loop()
        self._reading: dict[Boot, None] = {}
        self._marks: list[tuple[float, int, Boot]] = []
        self._sequence = 0
        self._progress = 0.0  # I/Os that a boot would have done since the beginning
        self._progress_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.peak_boots = 0
        self.timeouts = 0

    @property
    def boots(self) -> int:
        """How many guests boot now."""
        return len(self._reading)

    def boot(
        self,
        finished: Callable[[], None],
        *,
        ios: float | None = None,
        restarted: Callable[[], None] = lambda: None,
    ) -> Boot:
        """Begin a boot of ``ios`` I/Os (default: the settings').

        ``finished`` is called when it is through, ``restarted`` each time it timed out and began
        again.
        """
        boot = Boot(self, self.settings.boot_ios if ios is None else ios, finished, restarted)
        self.enter(boot)
        return boot

    def enter(self, boot: Boot) -> None:
        """Let the boot read from now on."""
        self._advance()
        boot.done_mark = self._progress + boot.remaining
        boot.timer = self._loop.call_later(self.settings.boot_timeout_s, self._timed_out, boot)
        self._sequence += 1
        heapq.heappush(self._marks, (boot.done_mark, self._sequence, boot))
        self._reading[boot] = None
        self.peak_boots = max(self.peak_boots, len(self._reading))
        self._arm()

    def leave(self, boot: Boot) -> None:
        """Let the boot read no more, and remember what it still needs."""
        if boot not in self._reading:
            return
        self._advance()
        assert boot.done_mark is not None
        boot.remaining = max(0.0, boot.done_mark - self._progress)
        boot.done_mark = None
        del self._reading[boot]
        self._arm()

    def _advance(self) -> None:
        now = self._loop.time()
        if self._reading:
            rate = self.settings.rate(len(self._reading))
            self._progress += (now - self._progress_at) * rate
        self._progress_at = now

    def _arm(self) -> None:
        """Set the one timer to the next end of a boot."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._marks and self._marks[0][2].done_mark != self._marks[0][0]:
            heapq.heappop(self._marks)  # it left meanwhile, or came again with a new mark
        if self._marks:
            missing = max(0.0, self._marks[0][0] - self._progress)
            rate = self.settings.rate(len(self._reading))
            self._timer = self._loop.call_later(missing / rate, self._finish_due)

    def _finish_due(self) -> None:
        self._timer = None
        self._advance()
        done: list[Boot] = []
        # A thousandth of an I/O: the timer may fire a rounding error early.
        while self._marks and self._marks[0][0] <= self._progress + 1e-3:
            mark, _, boot = heapq.heappop(self._marks)
            if boot.done_mark == mark:
                boot.done_mark = None
                boot.remaining = 0.0
                boot.stop_timer()
                del self._reading[boot]
                done.append(boot)
        self._arm()
        for boot in done:
            boot.finished()

    def _timed_out(self, boot: Boot) -> None:
        if boot not in self._reading:
            return
        self.timeouts += 1
        self.leave(boot)
        boot.remaining = boot.ios
        self.enter(boot)
        boot.restarted()
