"""Off is what is read back as off, for long enough: one reading may be a slip or a lie."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.power import PowerReading

OFF_FOR_S: Final = 1.0  # after on and an accepted order
POLL_S: Final = 0.5  # between readings; one costs a BMC 0.1 s or more


class NotVerifiedError(Exception):
    """Whether it is off is unknown; the text says what was last read."""


async def verify_off(
    read: Callable[[], Awaitable[PowerReading]],
    clock: Clock,
    *,
    off_for_s: float,
    deadline_at: float,
) -> float:
    """Read until off was read for ``off_for_s`` without anything else between; return when.

    No answer in between starts the count anew. Raises NotVerifiedError at the deadline, and
    whatever ``read`` raises: what no repeat cures.
    """
    off_since: float | None = None
    while True:
        reading = await read()
        now = clock.now()
        if reading.reading is Reading.DOWN:
            off_since = now if off_since is None else off_since
            if now - off_since >= off_for_s:
                return now
        else:
            off_since = None
        if clock.now() + POLL_S >= deadline_at:
            raise NotVerifiedError(reading.detail)
        await asyncio.sleep(POLL_S)
