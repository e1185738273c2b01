"""The journal on JetStream: append with the expected last sequence, read whole, follow for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
import structlog

from remediator.backoff import Backoff
from remediator.bus.connection import BusConnection, JetStreamError
from remediator.bus.feed import Feed
from remediator.bus.protocols import AppendRefusedError, BusUnavailableError, StoredRecord
from remediator.bus.streams import DECISIONS

_log = structlog.get_logger(__name__)

WRONG_LAST_SEQUENCE = 10071  # nats-server, JSStreamWrongLastSequenceErrF
READ_AHEAD = 1024
ALIVE_CHECK_S = 1.0


class JournalGapError(Exception):
    """The journal lacks records between two that it has. It must not be acted upon."""


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of the journal, seconds."""

    append_deadline_s: float = 10.0
    attempt_s: float = 1.5  # one append with fsync takes 0.4 ms on the server
    read_stall_s: float = 20.0  # longest wait for the next record, reconnects included


class NatsJournal:
    """A JournalStream over the stream DECISIONS, and ``tail`` for projectors."""

    def __init__(
        self,
        connection: BusConnection,
        *,
        stream: str = DECISIONS,
        settings: JournalSettings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._settings = settings or JournalSettings()
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self.retried = 0

    async def append(
        self, subject: str, payload: bytes, *, expected_last_seq: int, message_id: str
    ) -> int:
        """Append if nobody else did; see ``JournalStream.append``.

        JetStream looks at the expected sequence before it looks at the message id, so a repeat of
        a stored message is refused with 10071. The record behind the expected sequence then tells
        whether it is ours.
        """
        headers = {
            "Nats-Msg-Id": message_id,
            "Nats-Expected-Last-Sequence": str(expected_last_seq),
            "Nats-Expected-Stream": self._stream,
        }
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.append_deadline_s
        backoff = Backoff(base_s=0.05, cap_s=0.5, rng=self._rng)
        last_error = ""
        while (left_s := deadline - loop.time()) > 0:
            try:
                await self._connection.wait_connected(left_s)
                return await self._attempt(
                    subject,
                    payload,
                    headers,
                    expected_last_seq,
                    min(self._settings.attempt_s, max(0.05, deadline - loop.time())),
                )
            except BusUnavailableError as error:
                last_error = str(error)
            self.retried += 1
            await asyncio.sleep(
                min(backoff.next_s(at_least_s=0.02), max(0, deadline - loop.time()))
            )
        raise BusUnavailableError(
            f"the journal did not acknowledge in {self._settings.append_deadline_s:g} s: "
            f"{last_error}; whether the record was stored is unknown"
        )

    async def read(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield what is stored now, in order, complete.

        Raises BusUnavailableError, and JournalGapError when records are missing.
        """
        from_seq = max(1, from_seq)
        last = await self.last_seq()
        if from_seq > last:
            return
        async with contextlib.aclosing(self._follow(from_seq, self._settings.read_stall_s)) as feed:
            async for record in feed:
                yield record
                if record.seq >= last:
                    return

    async def tail(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield every record from ``from_seq`` on, then each new one, until closed.

        Waits out every outage. Raises JournalGapError when records are missing.
        """
        async with contextlib.aclosing(self._follow(max(1, from_seq), None)) as feed:
            async for record in feed:
                yield record

    async def last_seq(self) -> int:
        """Return the stream's last sequence, 0 when it is empty. Raises BusUnavailableError."""
        try:
            info = await self._connection.api(f"STREAM.INFO.{self._stream}")
        except JetStreamError as error:
            raise BusUnavailableError(f"stream {self._stream}: {error}") from error
        return int(info["state"]["last_seq"])

    async def _attempt(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str],
        expected_last_seq: int,
        timeout_s: float,
    ) -> int:
        reply = await self._connection.request(
            subject, payload, headers=headers, timeout_s=timeout_s
        )
        answer: dict[str, Any] = msgspec.json.decode(reply.data)
        error = answer.get("error")
        if error is None:
            seq = int(answer["seq"])
            if answer.get("duplicate") and not await self._is_ours(seq, payload, headers):
                raise AppendRefusedError(
                    f"message id {headers['Nats-Msg-Id']} is taken by another record ({seq})"
                )
            return seq
        if int(error.get("err_code", 0)) == WRONG_LAST_SEQUENCE:
            seq = expected_last_seq + 1
            if await self._is_ours(seq, payload, headers):
                return seq
            raise AppendRefusedError(
                f"the journal does not end at {expected_last_seq}: {error.get('description', '')}"
            )
        # Anything else (no leader, no space, wrong stream) is not a verdict on leadership.
        raise BusUnavailableError(str(error.get("description", error)))

    async def _is_ours(self, seq: int, payload: bytes, headers: dict[str, str]) -> bool:
        """Whether record ``seq`` is the message that we are appending. Asks the stream's leader."""
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{self._stream}", {"seq": seq})
        except JetStreamError as error:
            if error.code == 404:
                return False
            raise BusUnavailableError(str(error)) from error
        stored = msgspec.convert(answer["message"], _StoredMessage, strict=False)
        lines = stored.hdrs.decode("utf-8", "replace").splitlines()
        return stored.data == payload and f"Nats-Msg-Id: {headers['Nats-Msg-Id']}" in lines

    async def _follow(
        self, from_seq: int, stall_s: float | None
    ) -> AsyncGenerator[StoredRecord, None]:
        """Yield records from ``from_seq`` on, contiguous, each within ``stall_s`` of the last."""
        queue: asyncio.Queue[StoredRecord] = asyncio.Queue(READ_AHEAD)
        feed = Feed(self._connection, self._stream, queue.put, from_seq=from_seq, rng=self._rng)
        running = asyncio.create_task(feed.run(), name=f"journal-feed-{self._stream}")
        expected = from_seq
        try:
            while True:
                record = await self._next_record(queue, running, expected, stall_s)
                if record.seq != expected:
                    raise JournalGapError(
                        f"the journal goes from record {expected - 1} to {record.seq}"
                    )
                expected += 1
                yield record
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def _next_record(
        self,
        queue: asyncio.Queue[StoredRecord],
        running: asyncio.Task[None],
        expected: int,
        stall_s: float | None,
    ) -> StoredRecord:
        waited_s = 0.0
        while queue.empty():
            if running.done():
                await running  # raises what ended it
            if stall_s is not None and waited_s >= stall_s:
                raise BusUnavailableError(f"the journal gave no record {expected} in {stall_s:g} s")
            try:
                async with asyncio.timeout(ALIVE_CHECK_S):
                    return await queue.get()
            except TimeoutError:
                waited_s += ALIVE_CHECK_S
        return queue.get_nowait()


class _StoredMessage(msgspec.Struct):
    seq: int
    data: bytes = b""  # base64 in JSON, decoded by msgspec
    hdrs: bytes = b""
