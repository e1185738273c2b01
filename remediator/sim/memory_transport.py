"""The way to the simulated API server without sockets, for virtual time.

Speaks ``kube.transport.Transport``, so the daemon's client and reflectors and the emulated hosts
run on it unchanged, with the faults that a network has: latency, silence, resets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from remediator.kube.transport import LineStream, Query, Response, TransportError, accepted
from remediator.sim.api_faults import ApiFaults
from remediator.sim.apiserver import ApiServer
from remediator.sim.client_link import BODY_LIMIT, ClientLink, WatchLines
from remediator.sim.watch_streams import WatchStream


class MemoryTransport:
    """One client's connections to one simulated server.

    ``latency`` draws the seconds of one round trip; None for none. ``client_name`` is what
    partitions and admission know the client by. ``faults`` are the server's own unless others
    are given.
    """

    def __init__(
        self,
        server: ApiServer,
        *,
        latency: Callable[[], float] | None = None,
        client_name: str,
        faults: ApiFaults | None = None,
    ) -> None:
        self._server = server
        self._client = client_name
        self._link = ClientLink(faults or server.faults, client_name, latency=latency)
        self._streams: dict[WatchLines, None] = {}  # a set in the order of opening

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str | None = None,
        timeout_s: float,
    ) -> Response:
        """Send one request; see ``Transport``."""
        headers = {"user-agent": self._client, "accept": accepted(path)}
        if content_type is not None:
            headers["content-type"] = content_type

        def send() -> Response:
            return self._server.handle(method, path, query, headers, body)

        self._check_open()
        if self._link.immediate:
            await asyncio.sleep(0)  # as any request, it lets others run
            return send()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._link.exchange(send)
        except TimeoutError as error:
            text = f"no answer to {method} {path} within {timeout_s} s"
            raise TransportError(text) from error

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AsyncIterator[LineStream]:
        """Open a GET that is read line by line; see ``Transport``."""
        headers = {"user-agent": self._client}

        def send() -> Response | WatchStream:
            return self._server.answer("GET", path, query, headers, None)

        self._check_open()
        try:
            async with asyncio.timeout(connect_timeout_s):
                answer = await self._link.exchange(send)
        except TimeoutError as error:
            text = f"no answer to GET {path} within {connect_timeout_s} s"
            raise TransportError(text) from error
        if isinstance(answer, Response):
            yield _WholeAnswer(answer)
            return
        lines = WatchLines(answer, self._link)
        self._streams[lines] = None
        try:
            yield lines
        finally:
            del self._streams[lines]
            lines.leave()

    async def close(self) -> None:
        """Break every stream; further calls raise TransportError."""
        self._link.closed = True
        for lines in tuple(self._streams):
            lines.wake()

    def _check_open(self) -> None:
        if self._link.closed:
            raise TransportError("the transport is closed")


class _WholeAnswer:
    """An answer that is no watch, read as a stream."""

    def __init__(self, answer: Response) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._body = answer.body

    async def lines(self) -> AsyncIterator[bytes]:
        """See ``LineStream``."""
        *whole, _unfinished = self._body.split(b"\n")
        for line in whole:
            yield line

    async def body(self) -> bytes:
        """See ``LineStream``."""
        return self._body[:BODY_LIMIT]
