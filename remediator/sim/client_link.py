"""One client's way to the simulated server: where latency and faults happen.

Both faces of the server use it: in memory, and over HTTP, where silence and resets are made by the
server in place of the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from remediator.kube.transport import Response, TransportError
from remediator.sim.api_faults import ApiFaults, Passage
from remediator.sim.watch_streams import WatchStream

A = TypeVar("A", Response, "Response | WatchStream")

BODY_LIMIT = 1024 * 1024  # what a LineStream's body() reads at most
_RESET = "connection reset by peer"


class HalfLineError(TransportError):
    """The connection closed within a line; ``sent`` is the part that came."""

    def __init__(self, sent: bytes) -> None:
        super().__init__("connection closed within a line")
        self.sent = sent


class ClientLink:
    """The way of one client.

    ``latency`` draws the seconds of one round trip. ``settle_s`` passes after a silence before a
    waiting request goes on: over sockets, the time in which a client that gave up is noticed.
    """

    def __init__(
        self,
        faults: ApiFaults,
        client: str,
        *,
        latency: Callable[[], float] | None = None,
        settle_s: float = 0.0,
    ) -> None:
        self.faults = faults
        self.client = client
        self._latency = latency
        self._settle_s = settle_s
        self.closed = False

    @property
    def immediate(self) -> bool:
        """Return whether nothing delays or disturbs a request now."""
        return self._latency is None and self.faults.quiet

    def half_trip_s(self) -> float:
        """Draw the time of one way."""
        own_s = 0.0 if self._latency is None else self._latency()
        return (own_s + self.faults.latency_s) / 2

    def check(self, resets: int) -> None:
        """Raise TransportError when the connection broke since ``resets`` were counted."""
        broken = self.faults.passage(self.client) is Passage.BROKEN
        if broken or self.faults.resets != resets or self.closed:
            raise TransportError(_RESET)

    async def exchange(self, send: Callable[[], A]) -> A | Response:
        """Let a request travel, take effect through ``send``, and its answer travel back.

        Raises TransportError on a reset, also when the request has taken effect by then. Under a
        partition or a hang it waits: the caller sets the deadline.
        """
        faults, client = self.faults, self.client
        resets = faults.resets
        await asyncio.sleep(self.half_trip_s())
        if not faults.takes_effect(client):
            await faults.until_heard(client)
            await asyncio.sleep(self._settle_s)
            self.check(resets)
        if (refusal := faults.refusal()) is not None:
            return refusal
        answer = send()
        try:
            await asyncio.sleep(self.half_trip_s())
            await faults.until_heard(client)
            self.check(resets)
        except BaseException:  # nobody will read this watch: cancelled, timed out or reset
            if isinstance(answer, WatchStream):
                answer.close()
            raise
        return answer


class WatchLines:
    """An open watch as its client sees it: a LineStream and its own line iterator."""

    def __init__(self, watch: WatchStream, link: ClientLink) -> None:
        faults = link.faults
        self.status = watch.status
        self.headers: Mapping[str, str] = watch.headers
        self._watch = watch
        self._link = link
        self._resets = faults.resets
        self._half_lines = faults.half_lines
        self._stop_listening = faults.listen(watch.wake)

    def lines(self) -> AsyncIterator[bytes]:
        """See ``LineStream``; one reader at a time."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        watch, link, faults = self._watch, self._link, self._link.faults
        while True:
            heard = faults.quiet or faults.passage(link.client) is not Passage.SILENT
            if link.closed or (heard and faults.resets != self._resets):
                raise TransportError(_RESET)
            if heard:
                line = watch.pop()
                if line is not None:
                    if faults.half_lines != self._half_lines:
                        raise HalfLineError(line[: len(line) // 2])
                    return line
                if watch.ended:
                    raise StopAsyncIteration
            await watch.wait()
            if trip_s := link.half_trip_s():
                await asyncio.sleep(trip_s)

    async def body(self) -> bytes:
        """See ``LineStream``."""
        rest = b""
        async for line in self:
            rest += line + b"\n"
            if len(rest) > BODY_LIMIT:
                break
        return rest[:BODY_LIMIT]

    def wake(self) -> None:
        """Look at the link again: it was closed."""
        self._watch.wake()

    def leave(self) -> None:
        """Tell the server that nobody reads any more."""
        self._stop_listening()
        self._watch.close()
