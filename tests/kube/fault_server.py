"""A server on real sockets that answers as scripted, and misbehaves as real ones do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

# What a script may answer with, besides a ``web.Response``:
HANG = object()  # take the request and say nothing
RESET = object()  # cut the connection


@dataclass
class Stream:
    """A streamed answer: bytes are sent as they are, numbers are seconds of waiting.

    HANG keeps it open, RESET cuts it; else it ends in order.
    """

    steps: Sequence[Any]
    status: int = 200


@dataclass
class FaultServer:
    script: Callable[[web.Request], Any]
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0
    open: int = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self._stop.set()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        said = self.script(request)
        if asyncio.iscoroutine(said):
            said = await said
        if isinstance(said, Stream):
            return await self._stream(request, said)
        return await self._fault(request, said) if not isinstance(said, web.Response) else said

    async def _stream(self, request: web.Request, said: Stream) -> web.StreamResponse:
        response = web.StreamResponse(status=said.status)
        self.open += 1
        try:
            await response.prepare(request)
            for step in said.steps:
                if isinstance(step, bytes):
                    await response.write(step)
                elif isinstance(step, (int, float)):
                    await asyncio.sleep(step)
                else:
                    return await self._fault(request, step)
            return response
        finally:
            self.open -= 1

    async def _fault(self, request: web.Request, fault: object) -> web.StreamResponse:
        if fault is RESET:
            request.transport.abort()
        await self._stop.wait()
        raise asyncio.CancelledError
