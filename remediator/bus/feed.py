"""An ordered feed of one stream that repairs itself.

nats-py's ordered consumer recovers only after a minute without heartbeats in the worst case, and
never notices that a memory stream was made anew. This one is a plain push consumer without
acknowledgements, whose messages are counted here: a gap in the consumer's own numbering, silence
longer than ``SILENCE_S`` (the server sends a heartbeat every ``IDLE_HEARTBEAT_S``), or a reconnect
each lead to a new consumer that starts behind the last message delivered. A stream that was made
anew (its creation time differs) is delivered from its first message. A stream that lost its end in
a crash, so that sequence numbers were given twice, is delivered from the time of the last message.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from remediator.backoff import Backoff
from remediator.bus.connection import BusConnection, JetStreamError
from remediator.bus.protocols import BusUnavailableError, StoredRecord

_log = structlog.get_logger(__name__)

IDLE_HEARTBEAT_S = 1.0
SILENCE_S = 3.0  # three heartbeats missed
CONSUMER_LINGERS_S = 30.0  # the server forgets a consumer that nobody listens to
YIELD_EVERY = 256  # messages handled in one go; a full backlog must not starve the event loop
_SECOND_NS = 1_000_000_000

Deliver = Callable[[StoredRecord], None] | Callable[[StoredRecord], Awaitable[None]]


class _Broken(Exception):  # noqa: N818 - not an error: the reason to make a new consumer
    """The present consumer is of no more use."""


class Feed:
    """Messages of one stream, in its order, each once, for ever.

    ``deliver`` is called for each message on the event loop; what it raises ends ``run``. If it
    returns an awaitable, the feed waits for it, and the server is held back meanwhile.
    ``from_seq`` 0 begins with what is stored after ``run`` attached.
    """

    def __init__(
        self,
        connection: BusConnection,
        stream: str,
        deliver: Deliver,
        *,
        from_seq: int = 0,
        filters: tuple[str, ...] = (),
        rng: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._deliver = deliver
        self._filters = filters
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._next_seq = from_seq
        self._created: str | None = None
        self._last_time_ns = 0  # when the last message delivered was stored
        self._resume_by_time = False
        self._dseq = 0
        self._heard_at = 0.0
        self._handled = 0
        self._generation = 0
        self._ended: asyncio.Future[None] | None = None
        self.attached = asyncio.Event()
        self.recreated = 0

    async def run(self) -> None:
        """Deliver until cancelled; waits out everything that NATS may do."""
        backoff = Backoff(base_s=0.1, cap_s=2.0, rng=self._rng)
        while True:
            try:
                await self._connection.wait_connected()
                await self._one_consumer(backoff)
            except (_Broken, BusUnavailableError, JetStreamError) as reason:
                _log.debug("feed_broken", stream=self._stream, reason=str(reason))
            except (nats.errors.Error, OSError) as error:
                _log.debug("feed_connection_broken", stream=self._stream, error=str(error))
            self.attached.clear()
            self.recreated += 1
            await asyncio.sleep(backoff.next_s(at_least_s=0.05))

    async def _one_consumer(self, backoff: Backoff) -> None:
        epoch, client = self._connection.epoch, self._connection.client
        loop = asyncio.get_running_loop()
        self._generation += 1
        generation = self._generation
        self._dseq = 0
        self._heard_at = loop.time()
        self._ended = loop.create_future()

        async def on_message(message: Msg) -> None:
            if generation == self._generation:
                await self._on_message(client, message)

        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=on_message)
        consumer = ""
        try:
            consumer = await self._create_consumer(inbox)
            self.attached.set()
            backoff.reset()
            while self._connection.epoch == epoch:
                done, _ = await asyncio.wait({self._ended}, timeout=IDLE_HEARTBEAT_S / 2)
                if done:
                    self._ended.result()
                if loop.time() - self._heard_at > SILENCE_S:
                    self._connection.suspect(f"stream {self._stream} is silent")
                    raise _Broken("no heartbeat")
            raise _Broken("reconnected")
        finally:
            self._generation += 1  # nothing of the old consumer is delivered any more
            await self._discard(client, subscription, consumer)

    async def _create_consumer(self, inbox: str) -> str:
        before = await self._connection.api(f"STREAM.INFO.{self._stream}")
        await self._place_start(before)
        answer = await self._connection.api(
            f"CONSUMER.CREATE.{self._stream}",
            {"stream_name": self._stream, "config": self._consumer_config(inbox)},
        )
        after = await self._connection.api(f"STREAM.INFO.{self._stream}")
        if after["created"] != before["created"]:
            raise _Broken("the stream was made anew meanwhile")
        return str(answer["name"])

    async def _place_start(self, info: dict[str, Any]) -> None:
        created, last_seq = str(info["created"]), int(info["state"]["last_seq"])
        self._resume_by_time = False
        if self._created is None:
            if self._next_seq <= 0:
                self._next_seq = last_seq + 1
        elif created != self._created:
            _log.warning("stream_made_anew", stream=self._stream)
            self._next_seq = 1
            self._last_time_ns = 0
        elif last_seq + 1 < self._next_seq or await self._another_took_its_place():
            _log.warning("stream_lost_its_end", stream=self._stream, last_seq=last_seq)
            self._resume_by_time = self._last_time_ns > 0
            self._next_seq = last_seq + 1
        self._created = created

    async def _another_took_its_place(self) -> bool:
        """Whether the sequence of the last message delivered now belongs to another message."""
        if not self._last_time_ns:
            return False
        try:
            answer = await self._connection.api(
                f"STREAM.MSG.GET.{self._stream}", {"seq": self._next_seq - 1}
            )
        except JetStreamError as error:
            if error.code == 404:  # replaced by a newer one of its subject, or too old: as usual
                return False
            raise
        return _nanoseconds(answer["message"]["time"]) != self._last_time_ns

    def _consumer_config(self, inbox: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(1, self._next_seq),
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(IDLE_HEARTBEAT_S * _SECOND_NS),
            "inactive_threshold": int(CONSUMER_LINGERS_S * _SECOND_NS),
            "num_replicas": 1,
            "mem_storage": True,
        }
        if self._resume_by_time:
            del config["opt_start_seq"]
            config["deliver_policy"] = "by_start_time"
            config["opt_start_time"] = _rfc3339(self._last_time_ns + 1)
        if len(self._filters) == 1:
            config["filter_subject"] = self._filters[0]
        elif self._filters:
            config["filter_subjects"] = list(self._filters)
        return config

    async def _on_message(self, client: Client, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        headers = message.headers
        if headers and "Status" in headers:
            await self._on_control(client, message, headers)
            return
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>,
        # with domain and account after "ACK" and a random token at the end on some servers.
        parts = message.reply.split(".")
        shift = 0 if len(parts) == 9 else 2
        stream_seq, consumer_seq = int(parts[5 + shift]), int(parts[6 + shift])
        if consumer_seq != self._dseq + 1:
            self._end(_Broken(f"message {self._dseq + 1} of the consumer is missing"))
            return
        self._dseq = consumer_seq
        self._next_seq = stream_seq + 1
        self._last_time_ns = int(parts[7 + shift])
        try:
            waiting = self._deliver(StoredRecord(stream_seq, message.subject, message.data))
            if waiting is not None:
                await waiting
        except Exception as error:  # noqa: BLE001 - carried to run(), which raises it
            self._end(error)
            return
        self._handled += 1
        if self._handled % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def _on_control(self, client: Client, message: Msg, headers: dict[str, str]) -> None:
        """Answer flow control; learn from a heartbeat whether messages were lost."""
        if headers["Status"] != "100":
            self._end(_Broken(f"status {headers['Status']}: {headers.get('Description', '')}"))
            return
        if message.reply:
            await client.publish(message.reply)
            return
        stalled = headers.get("Nats-Consumer-Stalled")
        if stalled:
            await client.publish(stalled)
        delivered = headers.get("Nats-Last-Consumer")
        if delivered is not None and int(delivered) != self._dseq:
            self._end(_Broken(f"{delivered} messages were sent, {self._dseq} arrived"))

    def _end(self, reason: Exception) -> None:
        self._generation += 1
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(reason)

    async def _discard(self, client: Client, subscription: Subscription, consumer: str) -> None:
        """Leave nothing behind where that is possible; the server forgets the rest by itself."""
        if self._ended is not None and self._ended.done() and not self._ended.cancelled():
            self._ended.exception()  # read, so that asyncio does not report it
        try:
            await subscription.unsubscribe()
            if consumer and client.is_connected:
                await client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{consumer}")
        except (nats.errors.Error, OSError) as error:
            _log.debug("feed_discard_failed", stream=self._stream, error=str(error))


def _nanoseconds(rfc3339: str) -> int:
    """Parse JetStream's UTC time, which has nanoseconds, in whole nanoseconds since the epoch."""
    whole, _, fraction = rfc3339.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * _SECOND_NS + int(fraction.ljust(9, "0") or "0")


def _rfc3339(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, _SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
