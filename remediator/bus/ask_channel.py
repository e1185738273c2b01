"""Calls to all vantage points over core NATS: heard by whoever listens now, stored nowhere.

A call that is lost is made again by whoever still wants it, so nothing here is repeated, and what
cannot be sent at once is dropped: a call that arrives after an outage asks about the past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from remediator.bus import subjects
from remediator.bus.connection import BusConnection
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.queries import round_trip

_log = structlog.get_logger(__name__)

WAITING_MAX = 10_000  # calls not yet sent: every node of a large cluster at once
BODY_MAX = 1024  # a node's name has at most 253 characters
LOOK_EVERY_S = 1.0
ROUND_TRIP_S = 3.0


class _Call(msgspec.Struct):
    node: str


_decoder = msgspec.json.Decoder(_Call)


class NatsAskChannel:
    """An AskChannel. ``listening`` is set while a call from anybody would be heard.

    Counters: ``sent``, ``dropped`` (NATS was away, or too many waited), ``unreadable`` (heard, and
    no call).
    """

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection
        self._waiting: dict[str, None] = {}  # in order, each node once
        self._sending: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        self.sent = 0
        self.dropped = 0
        self.unreadable = 0

    def ask(self, node: str) -> None:
        """Call every vantage point that listens now. Must be called on the event loop."""
        if not self._connection.connected or len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            return
        self._waiting[node] = None
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="ask-probes")

    async def _send(self) -> None:
        try:
            while self._waiting:
                node = next(iter(self._waiting))
                del self._waiting[node]
                await self._connection.client.publish(
                    subjects.ASK_PROBES, msgspec.json.encode(_Call(node))
                )
                self.sent += 1
        except (BusUnavailableError, nats.errors.Error, OSError) as error:
            self.dropped += len(self._waiting) + 1
            self._waiting.clear()
            _log.debug("ask_not_sent", error=str(error))
        finally:
            self._sending = None

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call ``heard`` with each node that is asked for, until cancelled."""
        while True:
            try:
                await self._connection.wait_connected()
                await self._listen(heard)
            except (BusUnavailableError, nats.errors.Error, OSError) as error:
                _log.debug("ask_channel_broken", error=str(error))
            await asyncio.sleep(0.1)

    async def _listen(self, heard: Callable[[str], None]) -> None:
        """Hold one subscription until the connection is another, as its client may be."""

        async def take(message: Msg) -> None:
            node = _read(message.data)
            if node is None:
                self.unreadable += 1
                _log.debug("ask_unreadable", size=len(message.data))
            else:
                heard(node)

        epoch, client = self._connection.epoch, self._connection.client
        subscription = await client.subscribe(subjects.ASK_PROBES, cb=take)
        try:
            await round_trip(self._connection, ROUND_TRIP_S)  # answered in order: we are heard
            self.listening.set()
            while self._connection.epoch == epoch:
                await self._connection.wait_change(LOOK_EVERY_S)
                if not self._connection.connected:
                    self.listening.clear()
        finally:
            self.listening.clear()
            if client.is_connected:
                await subscription.unsubscribe()


def _read(body: bytes) -> str | None:
    """Return the node that a call names; None where it is no call. Unknown fields do not matter."""
    if len(body) > BODY_MAX:
        return None
    try:
        return _decoder.decode(body).node
    except msgspec.DecodeError:
        return None
