"""The daemon's clock: seconds since the epoch that never step backward.

The wall clock is read once; after that only the event loop's monotonic clock moves it. An NTP jump
on the daemon's host therefore never lengthens or shortens a silence. On a virtual-time event loop
(``sim.virtual_time``) the same class runs on virtual time.
"""

from __future__ import annotations

import asyncio
import time


class Clock:
    """Epoch seconds on the running event loop's clock; create it inside a running loop."""

    def __init__(self, *, epoch_at_start: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        wall = time.time() if epoch_at_start is None else epoch_at_start
        self._offset_s = wall - self._loop.time()

    def now(self) -> float:
        """Return the present time in epoch seconds."""
        return self._loop.time() + self._offset_s
