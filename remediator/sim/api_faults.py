"""Faults of the simulated API server and of the way to it.

One ``ApiFaults`` belongs to one server; both faces of the server (memory and HTTP) ask it before
they answer and before they send a watch line. A scenario switches it.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable

from remediator.kube.transport import Response

# What a load balancer answers while no API server is behind it.
_HTML_503 = (
    b"<html><body><h1>503 Service Unavailable</h1>\n"
    b"No server is available to handle this request.\n</body></html>\n"
)
_STATUS_429 = (
    b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"Too many requests, please try again later.",'
    b'"reason":"TooManyRequests","details":{"retryAfterSeconds":%d},"code":429}'
)


class Passage(enum.Enum):
    """What becomes of a client's packets at this moment."""

    OPEN = "open"
    SILENT = "silent"  # no answer, no watch line, no end: as a half-open connection
    BROKEN = "broken"  # connections are reset


class ApiFaults:
    """The faults that are on now. All off at first.

    A fault of the server (``hang``, ``reset``, ``too_many``, ``unavailable_html``) replaces the one
    before it and lasts until ``clear``. Partitions are per client and last until ``heal``.
    ``latency_s`` is added to every answer.
    """

    def __init__(self) -> None:
        self.latency_s = 0.0
        self._server = Passage.OPEN
        self._answers_lost = False
        self._refusal: Response | None = None
        self._partitioned: set[str] = set()
        self._listeners: list[Callable[[], None]] = []
        self._compactors: list[Callable[[], None]] = []
        # Both count: a stream compares with what it read when it was opened.
        self.resets = 0
        self.half_lines = 0

    def hang(self, *, after_commit: bool = False) -> None:
        """Answer nothing; watches go silent. What waits is answered after ``clear``.

        With ``after_commit`` requests still take effect: only their answers are withheld.
        """
        self._set(Passage.SILENT, answers_lost=after_commit)

    def reset(self) -> None:
        """Break every open connection and refuse new ones."""
        self.resets += 1
        self._set(Passage.BROKEN)

    def drop_connections(self) -> None:
        """Break every open watch once; new requests are answered."""
        self.resets += 1
        self._tell()

    def cut_half_line(self) -> None:
        """Send only half of each open watch's next line, then close the connection."""
        self.half_lines += 1
        self._tell()

    def too_many(self, retry_after_s: int) -> None:
        """Answer every request 429 with Retry-After; open watches go on."""
        headers = {"content-type": "application/json", "retry-after": str(retry_after_s)}
        body = _STATUS_429 % retry_after_s
        self._set(Passage.OPEN, Response(status=429, headers=headers, body=body))

    def unavailable_html(self) -> None:
        """Answer every request with a load balancer's 503 page; open watches go on."""
        headers = {"content-type": "text/html"}
        self._set(Passage.OPEN, Response(status=503, headers=headers, body=_HTML_503))

    def gone(self) -> None:
        """Forget all past events: open watches end with 410, so do starts at older versions."""
        for compact in tuple(self._compactors):
            compact()

    def clear(self) -> None:
        """End the server's fault and the latency; partitions stay."""
        self.latency_s = 0.0
        self._set(Passage.OPEN)

    def partition(self, client: str) -> None:
        """Let no packet pass between this client and the server, without closing anything."""
        self._partitioned.add(client)
        self._tell()

    def heal(self, client: str) -> None:
        """End the client's partition: what was on its way arrives (TCP sends it again)."""
        self._partitioned.discard(client)
        self._tell()

    @property
    def quiet(self) -> bool:
        """Return whether no fault is on at all."""
        return (
            self._server is Passage.OPEN
            and self._refusal is None
            and not self._partitioned
            and not self.latency_s
        )

    def passage(self, client: str) -> Passage:
        """Return what becomes of this client's packets now, in either direction."""
        if client in self._partitioned:
            return Passage.SILENT
        return self._server

    def takes_effect(self, client: str) -> bool:
        """Return whether a request sent now reaches the server's storage."""
        if client in self._partitioned:
            return False
        return self._server is Passage.OPEN or self._answers_lost

    async def until_heard(self, client: str) -> None:
        """Wait while this client's packets get lost. The caller sets the deadline."""
        while self.passage(client) is Passage.SILENT:
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def tell(changed: asyncio.Future[None] = changed) -> None:
                if not changed.done():
                    changed.set_result(None)

            leave = self.listen(tell)
            try:
                await changed
            finally:
                leave()

    def refusal(self) -> Response | None:
        """Return the answer that every request gets now in place of its own."""
        return self._refusal

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after every switch; returns the way out."""
        self._listeners.append(changed)

        def leave() -> None:
            if changed in self._listeners:
                self._listeners.remove(changed)

        return leave

    def on_gone(self, compact: Callable[[], None]) -> None:
        """Call ``compact`` when past events are to be forgotten; the server registers itself."""
        self._compactors.append(compact)

    def _set(
        self, server: Passage, refusal: Response | None = None, *, answers_lost: bool = False
    ) -> None:
        self._server = server
        self._refusal = refusal
        self._answers_lost = answers_lost
        self._tell()

    def _tell(self) -> None:
        for changed in tuple(self._listeners):
            changed()
