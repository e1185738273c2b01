"""An event loop on virtual time: it never sleeps, it jumps to the next timer.

Simulations run the daemon and a whole cluster on this loop: an hour of cluster time takes seconds,
and the same seed gives the same run. Everything lives in one thread and in memory. Threads and
sockets belong to the outside world, which does not wait for virtual time, so they are refused with
an error rather than left to hang.

The loop replaces asyncio's ``_run_once`` and timer heap (names unchanged since Python 3.4): timers
are kept as tuples, which compare in C, and timers due at the same instant run in the order in which
they were set, which asyncio itself does not promise.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import selectors
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Timers closer together than this are due together. It must exceed the spacing of floats at epoch
# seconds (2.4e-7 at 1.7e9), or a timer due "now" would never compare as due.
_RESOLUTION_S = 1e-6
# Cancelled timers are swept out of the heap when they are many and most of it (asyncio's rule).
_SWEEP_ABOVE = 100
_TASKS_SHOWN = 20  # of the waiting tasks in a deadlock's message


class DeadlockError(RuntimeError):
    """Nothing is ready and no timer is set: virtual time can never move again."""


class _Timer(asyncio.TimerHandle):
    """A timer that knows whether it still waits in the heap, so that cancelled ones are counted."""

    __slots__ = ("waiting",)
    waiting: bool


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock moves only when nothing is left to run at the present instant.

    ``start_at`` is the clock's first reading, in seconds. Raises DeadlockError out of
    ``run_until_complete`` when every task waits for something that nobody will do.
    """

    # Of asyncio.BaseEventLoop, but not in the type stubs.
    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self, *, start_at: float = 0.0) -> None:
        self._virtual_now = start_at
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timer_count = 0
        self._timers_cancelled = 0
        self._home_thread = threading.get_ident()
        super().__init__(_NoSockets())

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` at virtual time ``when``; ties run in the order of these calls."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        timer = _Timer(when, callback, args, self, context)
        timer.waiting = True
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` after ``delay`` seconds of virtual time."""
        return self.call_at(self._virtual_now + delay, callback, *args, context=context)

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As ``call_soon``. Raises RuntimeError from another thread."""
        if threading.get_ident() != self._home_thread:
            raise RuntimeError("virtual time has one thread: nothing may call in from another")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Refuse: a thread takes real time, and virtual time would jump over it."""
        del executor, args
        raise RuntimeError(f"virtual time has no threads: {func!r} cannot run in an executor")

    def close(self) -> None:
        """Close the loop and drop its timers."""
        super().close()
        self._timers.clear()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Count a cancelled timer (TimerHandle.cancel calls this)."""
        if isinstance(handle, _Timer) and handle.waiting:
            self._timers_cancelled += 1

    def _run_once(self) -> None:
        """Run what is ready now; if nothing is, jump to the next timer first."""
        if self._timers_cancelled > _SWEEP_ABOVE:
            self._sweep()
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)[2].waiting = False
            self._timers_cancelled -= 1
        ready = self._ready
        if not ready and not self._stopping:
            if not timers:
                raise DeadlockError(self._describe_deadlock())
            self._virtual_now = max(self._virtual_now, timers[0][0])
        due_before = self._virtual_now + _RESOLUTION_S
        while timers and timers[0][0] < due_before:
            when, _, timer = heapq.heappop(timers)
            timer.waiting = False
            if timer.cancelled():
                self._timers_cancelled -= 1
            else:
                # Whoever waited for this moment must find it come, or would wait for it anew.
                self._virtual_now = max(self._virtual_now, when)
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - what asyncio's own loop does with a handle

    def _sweep(self) -> None:
        if self._timers_cancelled * 2 < len(self._timers):
            return
        kept = []
        for entry in self._timers:
            if entry[2].cancelled():
                entry[2].waiting = False
            else:
                kept.append(entry)
        heapq.heapify(kept)
        self._timers[:] = kept
        self._timers_cancelled = 0

    def _describe_deadlock(self) -> str:
        waiting = sorted(f"{task.get_name()} at {_where(task)}" for task in asyncio.all_tasks(self))
        shown = "; ".join(waiting[:_TASKS_SHOWN]) or "no task"
        more = len(waiting) - _TASKS_SHOWN
        tail = f"; and {more} more" if more > 0 else ""
        return (
            f"deadlock at {self._virtual_now:.3f} s: no timer is set and these wait: {shown}{tail}"
        )


class _NoSockets(selectors.BaseSelector):
    """Holds asyncio's own wake-up pipe and refuses every other file."""

    def __init__(self) -> None:
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._keys:
            raise RuntimeError("virtual time has no sockets: the outside world does not wait")
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._keys[fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> NoReturn:
        del timeout
        raise RuntimeError("virtual time never waits for files")

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._keys.clear()


def run(main: Coroutine[Any, Any, T], *, start_at: float = 0.0) -> T:
    """Run ``main`` to its end on a fresh virtual-time loop and return its result.

    As ``asyncio.run``: what is still running afterwards is cancelled. Raises DeadlockError.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_at=start_at)) as runner:
        return runner.run(main)


def _where(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    if not frames:
        return "its start"
    code = frames[-1].f_code
    return f"{code.co_qualname} ({code.co_filename}:{frames[-1].f_lineno})"
