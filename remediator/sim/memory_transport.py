"""The way to the simulated API server without sockets, for virtual time.

Speaks ``kube.transport.Transport``, so the daemon's client and reflectors and the emulated hosts
run on it unchanged, with the faults that a network has: latency, silence, resets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from remediator.kube.transport import LineStream, Query, Response, TransportError
from remediator.sim.api_faults import ApiFaults, Passage
from remediator.sim.apiserver import ApiServer
from remediator.sim.watch_streams import WatchStream

A = TypeVar("A", Response, "Response | WatchStream")

_ERROR_BODY_LIMIT = 1024 * 1024  # as the real transport reads of an answer that is an error


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
        self._latency = latency
        self._client = client_name
        self._faults = faults or server.faults
        self._closed = False
        self._streams: dict[_WatchLines, None] = {}  # a set in the order of opening

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
        headers = {"user-agent": self._client}
        if content_type is not None:
            headers["content-type"] = content_type

        def send() -> Response:
            return self._server.handle(method, path, query, headers, body)

        self._check_open()
        if self._latency is None and self._faults.quiet:
            await asyncio.sleep(0)  # as any request, it lets others run
            return send()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(send)
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
                answer = await self._exchange(send)
        except TimeoutError as error:
            text = f"no answer to GET {path} within {connect_timeout_s} s"
            raise TransportError(text) from error
        if isinstance(answer, Response):
            yield _WholeAnswer(answer)
            return
        lines = _WatchLines(answer, self._faults, self._client, self._half_trip_s)
        self._streams[lines] = None
        try:
            yield lines
        finally:
            del self._streams[lines]
            lines.leave()

    async def close(self) -> None:
        """Break every stream; further calls raise TransportError."""
        self._closed = True
        for lines in tuple(self._streams):
            lines.abort()

    def _check_open(self) -> None:
        if self._closed:
            raise TransportError("the transport is closed")

    def _check_connection(self, resets: int) -> None:
        broken = self._faults.passage(self._client) is Passage.BROKEN
        if broken or self._faults.resets != resets or self._closed:
            raise TransportError("connection reset by peer")

    def _half_trip_s(self) -> float:
        own_s = 0.0 if self._latency is None else self._latency()
        return (own_s + self._faults.latency_s) / 2

    async def _exchange(self, send: Callable[[], A]) -> A | Response:
        """Let the request travel, take effect, and the answer travel back."""
        faults, client = self._faults, self._client
        resets = faults.resets
        await asyncio.sleep(self._half_trip_s())
        if not faults.takes_effect(client):
            await faults.until_heard(client)
            self._check_connection(resets)
        if (refusal := faults.refusal()) is not None:
            return refusal
        answer = send()
        try:
            await asyncio.sleep(self._half_trip_s())
            await faults.until_heard(client)
            self._check_connection(resets)
        except BaseException:  # nobody will read this watch: cancelled, timed out or reset
            if isinstance(answer, WatchStream):
                answer.close()
            raise
        return answer


class _WatchLines:
    """An open watch as its client sees it: a LineStream and its own line iterator."""

    def __init__(
        self,
        watch: WatchStream,
        faults: ApiFaults,
        client: str,
        half_trip_s: Callable[[], float],
    ) -> None:
        self.status = watch.status
        self.headers: Mapping[str, str] = watch.headers
        self._watch = watch
        self._faults = faults
        self._client = client
        self._half_trip_s = half_trip_s
        self._aborted = False
        self._resets = faults.resets
        self._half_lines = faults.half_lines
        self._stop_listening = faults.listen(watch.wake)

    def lines(self) -> AsyncIterator[bytes]:
        """See ``LineStream``; one reader at a time."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        watch, faults = self._watch, self._faults
        while True:
            heard = faults.quiet or faults.passage(self._client) is not Passage.SILENT
            if self._aborted or (heard and faults.resets != self._resets):
                raise TransportError("connection reset by peer")
            if heard:
                line = watch.pop()
                if line is not None:
                    if faults.half_lines != self._half_lines:
                        raise TransportError("connection closed within a line")
                    return line
                if watch.ended:
                    raise StopAsyncIteration
            await watch.wait()
            if trip_s := self._half_trip_s():
                await asyncio.sleep(trip_s)

    async def body(self) -> bytes:
        """See ``LineStream``."""
        rest = b""
        async for line in self:
            rest += line + b"\n"
            if len(rest) > _ERROR_BODY_LIMIT:
                break
        return rest[:_ERROR_BODY_LIMIT]

    def abort(self) -> None:
        """Break: the next read raises TransportError."""
        self._aborted = True
        self._watch.wake()

    def leave(self) -> None:
        """Tell the server that nobody reads any more."""
        self._stop_listening()
        self._watch.close()


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
        return self._body[:_ERROR_BODY_LIMIT]
