"""A light Transport with TLS and a bearer token, for the many clients of one test process.

Emulated hosts must not cost what kubernetes-asyncio costs; the daemon, in its own process, uses the
real one.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from remediator.kube.transport import LineStream, Query
from remediator.sim.http_transport import HttpTransport

_LINE_LIMIT = 4 * 1024 * 1024
_CONNECTIONS = 64  # of all clients together; the API server serves 600 requests at once


class Connections:
    """The sockets that all clients share. Make it inside the running loop."""

    def __init__(self, ca: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._requests = aiohttp.TCPConnector(ssl=context, limit=_CONNECTIONS)
        self._watches = aiohttp.TCPConnector(ssl=context, limit=0)
        self._transports: list[HttpTransport] = []

    def transport(self, url: str, name: str, token: str, *, watches: bool = False) -> HttpTransport:
        """Return a transport; ``watches``: its streams may not wait for others' requests."""
        connector = self._watches if watches else self._requests
        transport = _SecureTransport(url, name, token, connector)
        self._transports.append(transport)
        return transport

    async def close(self) -> None:
        """Close every transport and every socket."""
        for transport in self._transports:
            await transport.close()
        await self._requests.close()
        await self._watches.close()


class _SecureTransport(HttpTransport):
    def __init__(self, url: str, name: str, token: str, connector: aiohttp.TCPConnector) -> None:
        super().__init__(lambda: url, name)
        self._headers["authorization"] = f"Bearer {token}"
        self._session = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=_LINE_LIMIT,
        )

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AsyncIterator[LineStream]:
        """Open a stream; at its end the socket is dropped: TLS's farewell may outlive the loop."""
        opened = super().stream(path, query=query, connect_timeout_s=connect_timeout_s)
        async with opened as lines:
            try:
                yield lines
            finally:
                connection = lines._answer.connection
                if connection is not None and connection.transport is not None:
                    connection.transport.abort()
