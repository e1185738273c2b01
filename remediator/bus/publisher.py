"""Sends observations to JetStream: never blocks a watcher, never leaks, never lies about order.

What is guaranteed, about messages offered to one publisher:

* **Newest per subject.** While a message waits, a newer one of the same subject takes its place.
* **Order per subject.** A newer message is not sent before the older one in flight is
  acknowledged. One in doubt (no acknowledgement by its deadline, or the connection broke) is sent
  again under the same ``Nats-Msg-Id``, so a copy that NATS had stored, or that a dying connection
  still delivers, is not stored twice (within the stream's duplicate window).
* **Markers do not overtake.** A marker (``subjects.is_marker``, or ``barrier=True``) is sent only
  when every message offered before it has been acknowledged. Of each marker's subject two may
  wait: the older keeps its place, so that a long queue cannot put it off for ever, and the newest
  is at the end. A marker may be late; it is never early.
* **Otherwise no order between subjects**: after a retry, a message may be stored behind one that
  was offered later.

What may be lost: when more than ``waiting_max`` subjects (or ``waiting_bytes_max``) wait, further
messages are dropped and counted. From then on no new marker is accepted, because it would vouch
for the lost ones, until the queue has drained to half and ``on_loss`` was called, whose callbacks
must offer everything again.

Without a ``message_id`` each offer gets one of its own. Do not derive ids from the content: a
republished inventory must not be taken for a duplicate.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from remediator.bus import subjects
from remediator.bus.connection import BusConnection
from remediator.bus.outbox import Message, Outbox
from remediator.bus.protocols import BusUnavailableError

_log = structlog.get_logger(__name__)


class PublisherSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the publisher.

    A window of 64 already gives 9 times the rate of one by one; 256 costs nothing more.
    """

    window: int = 256
    window_bytes: int = 4 * 1024 * 1024
    ack_timeout_s: float = 2.0
    retry_s: float = 0.3  # after an answer "not now", such as a stream not yet made again
    waiting_max: int = 262_144
    waiting_bytes_max: int = 256 * 1024 * 1024


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, int | str] | None = None


_ack_decoder = msgspec.json.Decoder(_Ack)


class Publisher:
    """An EventPublisher and a DeadLetterOffice over JetStream.

    ``run`` must run as a task; ``offer`` may come before.

    Counters: ``published`` (acknowledged), ``duplicates`` (of these, known to NATS already),
    ``retried``, ``dropped`` (for want of room), ``refused`` (by NATS, for good: too large),
    ``withheld`` (markers not accepted after a loss), ``unburied`` (dead letters without room or
    acknowledgement).
    """

    def __init__(
        self,
        connection: BusConnection,
        *,
        settings: PublisherSettings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._settings = settings or PublisherSettings()
        rng = rng or random.Random()  # noqa: S311 - ids must be unique, not secret
        self._id_prefix = f"{rng.getrandbits(64):016x}"
        self._offers = 0
        self._sends = 0
        self._outbox = Outbox(self._settings.waiting_max, self._settings.waiting_bytes_max)
        self._in_flight: dict[str, Message] = {}  # by token, in the order of their deadlines
        self._again: deque[Message] = deque()  # refused for now, in the order of their deadlines
        self._in_flight_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._epoch = -1
        self.lossy = False
        self.on_loss: list[Callable[[], None]] = []
        self.published = 0
        self.duplicates = 0
        self.retried = 0
        self.dropped = 0
        self.refused = 0
        self.withheld = 0
        self.unburied = 0

    @property
    def pending(self) -> int:
        """Messages offered and not yet acknowledged, replaced, dropped or refused."""
        return len(self._outbox) + len(self._in_flight) + len(self._again)

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet acknowledged."""
        return len(self._in_flight)

    def offer(
        self, subject: str, payload: bytes, *, message_id: str | None = None, barrier: bool = False
    ) -> None:
        """Queue one message; see the module for what is kept, ordered and dropped."""
        self._offers += 1
        barrier = barrier or subjects.is_marker(subject)
        if barrier and self.lossy:
            self.withheld += 1
            return
        message_id = message_id or f"{self._id_prefix}-{self._offers}"
        message = Message(subject, payload, message_id, self._offers, barrier=barrier)
        if not self._outbox.put(message):
            self._drop(subject)
            return
        self._idle.clear()
        self._wake.set()

    def bury(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Queue one dead letter (see ``DeadLetterOffice``); whoever calls bounds the rate.

        It takes no room that observations need, and is sent once: a marker waits for all before
        it, and must not wait for a stream of dead letters that is not there.
        """
        self._offers += 1
        message = Message(
            subject,
            payload,
            f"{self._id_prefix}-{self._offers}",
            self._offers,
            barrier=False,
            key=f"{subject} {self._offers}",
            headers=headers,
        )
        if not self._outbox.half_empty or not self._outbox.put(message):
            self.unburied += 1
            return
        self._idle.clear()
        self._wake.set()

    async def flush(self, deadline_s: float) -> bool:
        """Wait until nothing is pending, at most ``deadline_s``; return whether that came true."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Send what is offered, until cancelled. What is queued stays queued for another run."""
        self._connection.on_change.append(self._wake.set)
        try:
            while True:
                try:
                    await self._connection.wait_connected()
                    await self._follow_connection()
                    self._expire()
                    await self._repeat_due()
                    await self._pump()
                except (BusUnavailableError, nats.errors.Error, OSError) as error:
                    # The connection broke between two lines; its return brings everything again.
                    _log.debug("publish_interrupted", error=str(error))
                    await self._connection.wait_change(self._settings.retry_s)
                    continue
                await self._rest()
        finally:
            self._connection.on_change.remove(self._wake.set)
            await self._unsubscribe()

    def _drop(self, subject: str) -> None:
        self.dropped += 1
        if not self.lossy:
            _log.error("publisher_overflow", waiting=len(self._outbox), subject=subject)
        self.lossy = True

    def _recover_from_loss(self) -> None:
        if not self.lossy or not self.on_loss or not self._outbox.half_empty:
            return
        self.lossy = False
        _log.warning("publisher_overflow_over", dropped=self.dropped, withheld=self.withheld)
        for callback in list(self.on_loss):
            callback()

    def _settled(self, message: Message) -> None:
        """Give the message's subject free: it is acknowledged, or refused for good."""
        self._outbox.settled(message.key)
        if not self.pending:
            self._idle.set()
        self._wake.set()

    # --- sending ----------------------------------------------------------------------------------

    async def _pump(self) -> None:
        client = self._connection.client
        while self._connection.connected and self._room(client):
            message = self._outbox.take(settled=not self._in_flight and not self._again)
            if message is None:
                break
            await self._send(client, message)
        self._recover_from_loss()

    def _room(self, client: Client) -> bool:
        return (
            len(self._in_flight) + len(self._again) < self._settings.window
            and self._in_flight_bytes < self._settings.window_bytes
            and self._taken(client)
        )

    def _taken(self, client: Client) -> bool:
        """Whether the peer takes what is sent: nats-py's buffer must not fill, or it blocks."""
        return client.pending_data_size < self._settings.window_bytes

    async def _send(self, client: Client, message: Message) -> None:
        self._sends += 1
        message.token = format(self._sends, "x")
        message.deadline = asyncio.get_running_loop().time() + self._settings.ack_timeout_s
        self._in_flight[message.token] = message
        self._in_flight_bytes += len(message.payload)
        try:
            await client.publish(
                message.subject,
                message.payload,
                reply=self._inbox + message.token,
                headers={**(message.headers or {}), "Nats-Msg-Id": message.message_id},
            )
        except (nats.errors.MaxPayloadError, nats.errors.BadSubjectError) as error:
            self._land(message.token)
            self._refuse(message, str(error))

    def _land(self, token: str) -> Message | None:
        message = self._in_flight.pop(token, None)
        if message is not None:
            self._in_flight_bytes -= len(message.payload)
        return message

    def _refuse(self, message: Message, why: str) -> None:
        self.refused += 1
        _log.error("publish_refused", subject=message.subject, size=len(message.payload), error=why)
        self._settled(message)

    def _give_up(self, message: Message) -> None:
        """Let a dead letter go that was not acknowledged at once."""
        self.unburied += 1
        self._settled(message)

    async def _follow_connection(self) -> None:
        """After a reconnect every message in flight is in doubt: send all of them again."""
        epoch, client = self._connection.epoch, self._connection.client
        if epoch == self._epoch:
            return
        if client is not self._client:
            inbox = client.new_inbox()
            self._subscription = await client.subscribe(f"{inbox}.*", cb=self._on_ack)
            self._inbox, self._client = f"{inbox}.", client
        self._epoch = epoch
        self._doubt(list(self._in_flight.values()))
        for message in self._again:
            message.deadline = 0.0

    def _expire(self) -> None:
        """Doubt what is overdue, and have the connection probed."""
        now = asyncio.get_running_loop().time()
        overdue = []
        for message in self._in_flight.values():
            if message.deadline > now:
                break
            overdue.append(message)
        if overdue:
            self._connection.suspect(f"{len(overdue)} acknowledgements overdue")
            self._doubt(overdue)

    def _doubt(self, messages: list[Message]) -> None:
        """Put messages of unknown fate first among those to be sent again."""
        for message in messages:
            self._land(message.token)
            message.deadline = 0.0
            if message.headers is not None:
                self._give_up(message)
        self._again.extendleft(one for one in reversed(messages) if one.headers is None)

    async def _repeat_due(self) -> None:
        now = asyncio.get_running_loop().time()
        client = self._connection.client
        while self._again and self._again[0].deadline <= now and self._taken(client):
            self.retried += 1
            await self._send(client, self._again.popleft())

    async def _rest(self) -> None:
        """Sleep until there is something to do."""
        dues = [self._again[0].deadline] if self._again else []
        first = next(iter(self._in_flight.values()), None)
        if first is not None:
            dues.append(first.deadline)
        now = asyncio.get_running_loop().time()
        timeout_s = max(0.01, min(dues) - now) if dues else None
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _on_ack(self, reply: Msg) -> None:
        token = reply.subject.rpartition(".")[2]
        message = self._land(token)
        if message is None:
            return  # the answer to an earlier attempt: its repeat has a token of its own
        status = (reply.headers or {}).get("Status", "")
        ack = _Ack(error={"code": int(status)}) if status else _ack_decoder.decode(reply.data)
        if ack.error is None:
            self.published += 1
            self.duplicates += ack.duplicate
            self._settled(message)
            return
        code = int(ack.error.get("code", 500))
        if 400 <= code < 500:
            self._refuse(message, str(ack.error.get("description", code)))
            return
        if message.headers is not None:
            self._give_up(message)
            return
        # 503: no such stream (yet), no leader, no room just now.
        message.deadline = asyncio.get_running_loop().time() + self._settings.retry_s
        self._again.append(message)
        self._wake.set()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription, self._client = self._subscription, None, None
        self._epoch = -1
        if subscription is None:
            return
        try:
            await subscription.unsubscribe()
        except (nats.errors.Error, OSError):
            return  # the connection is gone, and the subscription with it
