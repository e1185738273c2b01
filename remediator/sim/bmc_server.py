"""The BMCs' service on a real loopback socket, for daemons in their own process."""

from __future__ import annotations

import asyncio

from aiohttp import web

from remediator.sim.bmc import BmcService

# A request that will never be answered is held open so long; fencing clients give up earlier.
_SILENCE_S = 120.0


class BmcServer:
    """One HTTP server for all BMCs of a fleet."""

    def __init__(self, service: BmcService) -> None:
        self._service = service
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen and return the base URL. Port 0 takes a free one. Raises OSError."""
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.url = f"http://{host}:{runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        """Close the socket and drop open requests."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        answer = await self._service.handle(
            request.method, request.path, request.headers, await request.read()
        )
        if answer is None:
            await asyncio.sleep(_SILENCE_S)
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPGatewayTimeout
        return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)
