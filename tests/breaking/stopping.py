"""A process that stands still (SIGSTOP, a paused virtual machine, a starved CPU) and goes on later.

Everything that a replica does runs in a context that carries its name. While the replica stands
still its callbacks and timers are held back; the cluster, the other replicas and requests that it
has sent go on. When it wakes it runs first what was ready or had arrived, then the timers that
have become due meanwhile: the order in which asyncio's own loop would do it.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Mapping

from attack import Attack
from harness import CLIENT

from remediator.bus.protocols import AppendRefusedError
from remediator.http_client import HttpClient, HttpResponse
from remediator.kube.transport import Response, Transport
from remediator.sim.virtual_time import VirtualTimeLoop, _Timer

PROCESS: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        if not self._loop.holds_back(self):
            super()._run()


class _HeldTimer(_Timer):
    def _run(self) -> None:
        if not self._loop.holds_back(self):
            super()._run()


class StoppingLoop(VirtualTimeLoop):
    """Virtual time in which a process can stand still."""

    def __init__(self) -> None:
        self.stopped: set[str] = set()
        self._held: list[asyncio.Handle] = []
        super().__init__()

    def holds_back(self, handle: asyncio.Handle) -> bool:
        if handle._context.get(PROCESS) in self.stopped:
            self._held.append(handle)
            return True
        return False

    def wake(self, process: str) -> None:
        self.stopped.discard(process)
        mine = [each for each in self._held if each._context.get(PROCESS) == process]
        self._held = [each for each in self._held if each not in mine]
        mine.sort(key=lambda each: isinstance(each, _HeldTimer))  # stable: I/O first, then timers
        self._ready.extend(each for each in mine if not each.cancelled())

    def _call_soon(self, callback, args, context) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when, callback, *args, context=None) -> asyncio.TimerHandle:
        timer = _HeldTimer(when, callback, args, self, context)
        timer.waiting = True
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, timer))
        return timer


def run(main):
    with asyncio.Runner(loop_factory=StoppingLoop) as runner:
        return runner.run(main)


async def _outside(work):
    """Let a request take effect once it has been sent, whatever becomes of its sender."""
    task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


class OutsideTransport:
    """Requests take effect outside the process; ``answered`` is called before it hears so."""

    def __init__(self, inner: Transport, answered: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._answered = answered

    async def request(self, method, path, **options) -> Response:
        async def ask() -> Response:
            answer = await self._inner.request(method, path, **options)
            self._answered(method, path)
            return answer

        return await _outside(ask())

    def stream(self, path, **options):
        return self._inner.stream(path, **options)

    async def close(self) -> None:
        await self._inner.close()


class OutsideHttp:
    """The same for the way to the BMCs."""

    def __init__(self, inner: HttpClient, answered: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._answered = answered

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body, timeout_s: float
    ) -> HttpResponse:
        async def ask() -> HttpResponse:
            answer = await self._inner.request(
                method, url, headers=headers, body=body, timeout_s=timeout_s
            )
            self._answered(method, url)
            return answer

        return await _outside(ask())

    async def close(self) -> None:
        await self._inner.close()


class Stoppable(Attack):
    """``on_answer(replica, method, path)`` is called as an answer leaves for a replica."""

    on_answer: Callable[[str, str, str], None] = staticmethod(lambda _n, _m, _p: None)

    def start_replica(self) -> str:
        name = f"{CLIENT}-{self._started + 1}"
        context = contextvars.copy_context()
        context.run(PROCESS.set, name)
        cluster = self.cluster
        memory_transport, memory_http = cluster.memory_transport, cluster.memory_http

        def answered(method: str, path: str) -> None:
            self.on_answer(name, method, path)

        cluster.memory_transport = lambda client: OutsideTransport(
            memory_transport(client), answered
        )
        made = []

        def http(place=None):
            made.append(OutsideHttp(memory_http(place), answered))
            return made[-1]

        cluster.memory_http = http
        try:
            return context.run(super().start_replica)
        finally:
            cluster.memory_transport, cluster.memory_http = memory_transport, memory_http

    def stop_process(self, name: str) -> None:
        asyncio.get_running_loop().stopped.add(name)

    def wake_process(self, name: str) -> None:
        asyncio.get_running_loop().wake(name)

    async def leaves(self, name: str) -> None:
        """See that a replica that was deposed ends for that reason, if it ends."""
        if not self.replicas[name].done():
            return
        del self.alive[name]
        (result,) = await asyncio.gather(self.replicas.pop(name), return_exceptions=True)
        assert isinstance(result, AppendRefusedError), result
