"""A light Transport with TLS and a bearer token, for the many clients of one test process.

Emulated hosts must not cost what kubernetes-asyncio costs; the daemon, in its own process, uses the
real one.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp

from remediator.sim.http_transport import HttpTransport

_LINE_LIMIT = 4 * 1024 * 1024
_CONNECTIONS = 64  # of all clients together; the API server serves 600 requests at once


class Connections:
    """The sockets that all clients share. Make it inside the running loop."""

    def __init__(self, ca: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._requests = aiohttp.TCPConnector(ssl=context, limit=_CONNECTIONS)
        self._watches = aiohttp.TCPConnector(ssl=context, limit=0)

    def transport(self, url: str, name: str, token: str, *, watches: bool = False) -> HttpTransport:
        """Return a transport; ``watches``: its streams may not wait for others' requests."""
        return _SecureTransport(url, name, token, self._watches if watches else self._requests)

    async def close(self) -> None:
        """Close every socket."""
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
