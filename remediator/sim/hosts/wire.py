"""One host's line to the API server, which a partition cuts and a hang stills."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from remediator.kube.transport import Query, Response, Transport, TransportError

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

encode = msgspec.json.Encoder().encode
decode_obj = msgspec.json.Decoder(Obj).decode


class RefusedError(Exception):
    """The API server answered with an error status."""

    def __init__(self, method: str, path: str, response: Response) -> None:
        super().__init__(f"{method} {path}: {response.status} {response.body[:300]!r}")
        self.status = response.status

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status == 429 or self.status >= 500


class Gate:
    """Open while a process runs; whoever passes a closed gate waits until it opens."""

    def __init__(self) -> None:
        self.open = True
        self._opened = asyncio.Event()

    def close(self) -> None:
        """Let nobody pass."""
        self.open = False
        self._opened.clear()

    def reopen(self) -> None:
        """Let all pass that wait."""
        self.open = True
        self._opened.set()

    async def passed(self) -> None:
        """Return at once when open, else when it opens."""
        while not self.open:
            await self._opened.wait()


class Line(Protocol):
    """What a process needs to know of its host."""

    @property
    def connected(self) -> bool:
        """Whether packets reach the API server and back."""
        ...


class HostProcess:
    """A process on a host (kubelet, virt-handler): its tasks, its requests, its hang.

    Every wait passes the gate, so a hung process stands still wherever it is.
    """

    def __init__(
        self,
        line: Line,
        transport: Transport,
        rng: random.Random,
        *,
        request_timeout_s: float,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.gate = Gate()
        self.rng = rng
        self.running = False
        self._line = line
        self._transport = transport
        self._request_timeout_s = request_timeout_s
        self._failed = failed
        # In their order: whoever ends first tells first, and chance is drawn in that order.
        self._tasks: dict[asyncio.Task[None], None] = {}

    @property
    def listening(self) -> bool:
        """Whether news of the shared watches reaches this process now."""
        return self.running and self.gate.open and self._line.connected

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` until it ends or the process dies; a defect in it ends the simulation."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._failed(error)

    def kill(self) -> None:
        """End all work at once."""
        self.running = False
        for task in self._tasks:
            task.cancel()

    async def sleep(self, seconds: float) -> None:
        """Sleep, and longer while the process hangs."""
        await asyncio.sleep(seconds)
        await self.gate.passed()

    async def request(
        self,
        method: str,
        path: str,
        body: Obj | None = None,
        *,
        content_type: str = JSON,
        query: Query = (),
    ) -> bytes:
        """Send one request and return the answer's body.

        Raises TransportError without an answer, RefusedError for an error status.
        """
        await self.gate.passed()
        timeout_s = self._request_timeout_s
        if self._cut():
            await self.sleep(timeout_s)
            raise TransportError(f"{method} {path}: no answer within {timeout_s:g} s")
        response = await self._transport.request(
            method,
            path,
            query=query,
            body=None if body is None else encode(body),
            content_type=None if body is None else content_type,
            timeout_s=timeout_s,
        )
        await self.gate.passed()
        if self._cut():  # the answer was on its way when the line broke
            await self.sleep(timeout_s)
            raise TransportError(f"{method} {path}: the answer was lost")
        if response.status >= 400:
            raise RefusedError(method, path, response)
        return response.body

    def _cut(self) -> bool:
        return not self._line.connected

    async def get(self, path: str) -> bytes:
        """Fetch one path; raises as ``request``."""
        return await self.request("GET", path)
