"""What a component writes of the Events it records: client-go's correlator (tools/record).

The first of a kind is a new Event; repeats raise its count; a source that has much to say about one
object is cut short: 25 at once, then one every five minutes. So an Event that is not repeated does
not mean that its cause is gone.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

# client-go: maxLruCacheEntries, defaultSpamBurst, defaultSpamQPS.
_MEMORY_MAX = 4096
_BURST = 25
_REFILL_S = 300.0


@dataclass(slots=True)
class Series:
    """One Event and its repeats. ``count`` is 1 for a new one."""

    name: str
    first_at: float
    count: int = 1


class EventCorrelator:
    """The memory of one recorder."""

    def __init__(self) -> None:
        self._series: dict[Hashable, Series] = {}
        self._budgets: dict[str, tuple[float, float]] = {}  # object -> tokens left, as of when

    def take(self, about: str, key: Hashable, name: str, now: float) -> Series | None:
        """Return what to write of an Event, None when nothing is to be written.

        ``about`` identifies the object, ``key`` the Event with all its words; ``name`` is the
        object's, should this be a new one.
        """
        if not self._granted(about, now):
            return None
        series = self._series.pop(key, None)
        if series is None:
            series = Series(f"{name}.{int(now * 1e9):x}{len(self._series):x}", now)
        else:
            series.count += 1
        self._series[key] = series
        if len(self._series) > _MEMORY_MAX:
            del self._series[next(iter(self._series))]
        return series

    def _granted(self, about: str, now: float) -> bool:
        tokens, as_of = self._budgets.pop(about, (float(_BURST), now))
        tokens = min(float(_BURST), tokens + (now - as_of) / _REFILL_S)
        granted = tokens >= 1.0 - 1e-9  # sums of fractions
        self._budgets[about] = (tokens - 1.0 if granted else tokens, now)
        if len(self._budgets) > _MEMORY_MAX:
            del self._budgets[next(iter(self._budgets))]
        return granted
