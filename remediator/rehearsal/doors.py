"""What stands between a rehearsed replica and its world: clocks that err, ears, sudden deaths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from remediator.bus.protocols import JournalStream, StoredRecord
from remediator.clock import Clock
from remediator.http_client import HttpClient, HttpResponse
from remediator.kube.transport import LineStream, Query, Response, Transport


class WallClock(Clock):
    """The clock of a process that started when the wall clock was so far off."""

    def __init__(self, right: Clock, skew_s: float) -> None:
        self._right = right
        self.skew_s = skew_s

    def now(self) -> float:
        """Return the time as that process believes it to be."""
        return self._right.now() + self.skew_s


class AuditedTransport:
    """Reports every write that the daemon sends."""

    def __init__(self, inner: Transport, wrote: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._wrote = wrote

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
        """Send one request; raises as the transport below does."""
        if method != "GET":
            self._wrote(method, path)
        return await self._inner.request(
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            timeout_s=timeout_s,
        )

    def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AbstractAsyncContextManager[LineStream]:
        """Open a watch."""
        return self._inner.stream(path, query=query, connect_timeout_s=connect_timeout_s)

    async def close(self) -> None:
        """Close the transport below."""
        await self._inner.close()


class AuditedHttp:
    """Reports every order to a BMC."""

    def __init__(self, inner: HttpClient, ordered: Callable[[str], None]) -> None:
        self._inner = inner
        self._ordered = ordered

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpResponse:
        """Send one request; raises as the client below does."""
        if method == "POST" and "Reset" in url:
            self._ordered(url)
        return await self._inner.request(
            method, url, headers=headers, body=body, timeout_s=timeout_s
        )

    async def close(self) -> None:
        """Close the client below."""
        await self._inner.close()


class DeadlyJournal:
    """Ends its replica just after a chosen record was stored: with or without the acknowledgement.

    Stored but not acknowledged is the crash between the record and the act; acknowledged and then
    ended is the crash in the middle of the act.
    """

    def __init__(self, inner: JournalStream, stored: Callable[[int], bool]) -> None:
        self._inner = inner
        self._stored = stored

    async def append(
        self, subject: str, payload: bytes, *, expected_last_seq: int, message_id: str
    ) -> int:
        """Append, and perhaps never return."""
        seq = await self._inner.append(
            subject, payload, expected_last_seq=expected_last_seq, message_id=message_id
        )
        if self._stored(seq):
            await asyncio.get_running_loop().create_future()  # never: the process is gone
        return seq

    def read(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield the records that are stored now."""
        return self._inner.read(from_seq)

    async def last_seq(self) -> int:
        """Return the last sequence."""
        return await self._inner.last_seq()
