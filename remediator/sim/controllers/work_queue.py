"""Work queues of the simulated controllers, and the gate that stops them in an outage.

A controller never acts inside a store notification: it puts the object's key on its queue, and the
key is reconciled a short documented delay later. Keys that are already queued coalesce, so the
queue never holds more than one entry for each object.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from remediator.sim.api_faults import ApiFaults, Passage
from remediator.sim.controllers.settings import Range
from remediator.sim.problems import Problem

log = structlog.get_logger(__name__)

Key = tuple[str, str]
"""(namespace, name); the namespace of cluster-wide objects is empty."""

CLIENT = "control-plane"
"""The name under which a scenario can partition the controllers from the API server."""


class ApiGate:
    """Closed while the API server does not answer the controllers.

    While it is closed, work waits. When it opens, the work goes on; when it had been closed for
    longer than the leader election's renew deadline, the controllers have lost their leases and
    start again with empty memories (``on_restart``), as real ones do.
    """

    def __init__(self, faults: ApiFaults | None, *, renew_deadline_s: float) -> None:
        self._faults = faults
        self._renew_deadline_s = renew_deadline_s
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[object, Callable[[], None]] = {}
        self._closed_at: float | None = None
        self._restarts: list[Callable[[], None]] = []
        self._leave: Callable[[], None] | None = None

    def start(self) -> None:
        """Follow the faults from now on."""
        if self._faults is not None:
            self._leave = self._faults.listen(self._switched)
            self._switched()

    def stop(self) -> None:
        """Forget all waiting work and follow no more."""
        self._waiting.clear()
        if self._leave is not None:
            self._leave()

    def on_restart(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after an outage that made the controllers start again."""
        self._restarts.append(callback)

    def blocks(self, token: object, resume: Callable[[], None]) -> bool:
        """Return True while the API server is down; ``resume`` is then called when it is back.

        A second call with the same ``token`` replaces the first.
        """
        if self._closed_at is None:
            return False
        self._waiting[token] = resume
        return True

    def _switched(self) -> None:
        assert self._faults is not None
        down = (
            self._faults.passage(CLIENT) is not Passage.OPEN or self._faults.refusal() is not None
        )
        if down and self._closed_at is None:
            self._closed_at = self._loop.time()
        elif not down and self._closed_at is not None:
            self._open(self._loop.time() - self._closed_at)

    def _open(self, outage_s: float) -> None:
        self._closed_at = None
        waiting, self._waiting = self._waiting, {}
        log.debug("controllers_resumed", outage_s=outage_s, waiting=len(waiting))
        if outage_s > self._renew_deadline_s:
            for restart in self._restarts:
                restart()
        for resume in waiting.values():
            resume()


class WorkQueue:
    """Reconciles keys one by one, each some milliseconds after it was added.

    ``reconcile`` may return a delay in seconds after which it wants to see the key again. When it
    raises a Problem (the API server refused) the key comes back after a doubling delay; any other
    exception is a defect and goes to the event loop's exception handler.
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[Key], float | None],
        *,
        gate: ApiGate,
        rng: random.Random,
        latency_s: Range,
        retry_s: Range,
    ) -> None:
        self._name = name
        self._reconcile = reconcile
        self._gate = gate
        self._rng = rng
        self._latency_s = latency_s
        self._retry_s = retry_s
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._timers)

    def add(self, key: Key, *, after_s: float | None = None) -> None:
        """Reconcile ``key`` after this queue's latency, or after ``after_s``; the earlier wins."""
        if self._closed:
            return
        delay_s = self._rng.uniform(*self._latency_s) if after_s is None else after_s
        due = self._loop.time() + delay_s
        queued = self._timers.get(key)
        if queued is not None:
            if queued.when() <= due:
                return
            queued.cancel()
        self._timers[key] = self._loop.call_at(due, self._run, key)

    def close(self) -> None:
        """Drop everything that is queued and accept nothing more."""
        self._closed = True
        self.clear()

    def clear(self) -> None:
        """Drop everything that is queued."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._failures.clear()

    def _run(self, key: Key) -> None:
        del self._timers[key]
        if self._gate.blocks((self._name, key), lambda: self.add(key)):
            return
        try:
            again_s = self._reconcile(key)
        except Problem as error:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            first_s, cap_s = self._retry_s
            delay_s = min(cap_s, first_s * 2.0 ** min(failures, 30))
            log.debug("reconcile_failed", queue=self._name, key=key, error=str(error))
            self.add(key, after_s=delay_s)
            return
        self._failures.pop(key, None)
        if again_s is not None:
            self.add(key, after_s=again_s)
