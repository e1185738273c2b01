"""The leader's word on the pace, over core NATS: heard by every replica now, stored nowhere.

Only the newest counts. It is said again every second, so nothing here is repeated, and what cannot
be sent at once is dropped: a word that arrives after an outage is about the past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats.errors
import structlog
from nats.aio.msg import Msg

from remediator.bus import subjects
from remediator.bus.connection import BusConnection
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.queries import round_trip

_log = structlog.get_logger(__name__)

BODY_MAX = 900_000  # bytes: NATS takes 1 MB (max_payload)
LOOK_EVERY_S = 1.0
ROUND_TRIP_S = 3.0


class NatsPaceChannel:
    """A PaceChannel. ``listening`` is set while a word of any leader would be heard.

    Counters: ``sent``, ``dropped`` (NATS was away, the word was too long, or a newer one came).
    """

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection
        self._waiting: bytes | None = None
        self._sending: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        self.sent = 0
        self.dropped = 0

    def tell(self, payload: bytes) -> None:
        """Tell every replica that listens now. Must be called on the event loop."""
        if not self._connection.connected or len(payload) > BODY_MAX:
            self.dropped += 1
            return
        self.dropped += self._waiting is not None
        self._waiting = payload
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="tell-pace")

    async def _send(self) -> None:
        try:
            while self._waiting is not None:
                payload, self._waiting = self._waiting, None
                await self._connection.client.publish(subjects.PACE, payload)
                self.sent += 1
        except (BusUnavailableError, nats.errors.Error, OSError) as error:
            self.dropped += 1
            self._waiting = None
            _log.debug("pace_not_told", error=str(error))
        finally:
            self._sending = None

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        """Call ``heard`` with each word of a leader, until cancelled."""
        while True:
            try:
                await self._connection.wait_connected()
                await self._listen(heard)
            except (BusUnavailableError, nats.errors.Error, OSError) as error:
                _log.debug("pace_channel_broken", error=str(error))
            await asyncio.sleep(0.1)

    async def _listen(self, heard: Callable[[bytes], None]) -> None:
        """Hold one subscription until the connection is another, as its client may be."""

        async def take(message: Msg) -> None:
            heard(message.data)

        epoch, client = self._connection.epoch, self._connection.client
        subscription = await client.subscribe(subjects.PACE, cb=take)
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
