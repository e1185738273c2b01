"""Delivers what the watchers and probes publish to the leader's engine.

The feed begins with what is stored after it attached, not with what the streams hold. A stored
inventory may show objects that were deleted while nobody watched, and a stored heartbeat is of
unknown age. A new leader therefore attaches first (``attached``), then has its own watchers offer
their whole store again, which ends with the markers "synced": so the engine's picture is as fresh
as the watch, and whole. After a break the feed goes on behind the last message delivered, and a
stream that NATS lost is read from its first message.

Order holds within each stream (HEARTBEATS, INVENTORY, SIGNALS), not between them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from remediator.bus.connection import BusConnection
from remediator.bus.feed import Feed
from remediator.bus.protocols import BusUnavailableError, StoredRecord
from remediator.bus.streams import HEARTBEATS, INVENTORY, SIGNALS

OBSERVATIONS = (HEARTBEATS, INVENTORY, SIGNALS)


class Consumer:
    """An EventSource over several streams; one ``run`` at a time."""

    def __init__(
        self,
        connection: BusConnection,
        *,
        streams: Sequence[str] = OBSERVATIONS,
        filters: tuple[str, ...] = (),
        rng: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._streams = tuple(streams)
        self._filters = filters
        self._rng = rng
        self._feeds: tuple[Feed, ...] = ()
        self._started = asyncio.Event()
        self.delivered = 0

    async def run(self, deliver: Callable[[str, bytes], None]) -> None:
        """Deliver ``(subject, payload)`` until cancelled; what ``deliver`` raises ends it."""

        def pass_on(record: StoredRecord) -> None:
            self.delivered += 1
            deliver(record.subject, record.payload)

        self._feeds = tuple(
            Feed(self._connection, stream, pass_on, filters=self._filters, rng=self._rng)
            for stream in self._streams
        )
        self._started.set()
        try:
            async with asyncio.TaskGroup() as group:
                for feed in self._feeds:
                    group.create_task(feed.run())
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error
        finally:
            self._started.clear()
            self._feeds = ()

    async def attached(self, timeout_s: float) -> None:
        """Wait until every stream is followed. Raises BusUnavailableError after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._started.wait()
                for feed in self._feeds:
                    await feed.attached.wait()
        except TimeoutError as error:
            raise BusUnavailableError(f"no stream to follow in {timeout_s:g} s") from error

    @property
    def recreated(self) -> int:
        """How often a server-side consumer had to be made anew since ``run`` began."""
        return sum(feed.recreated for feed in self._feeds)
