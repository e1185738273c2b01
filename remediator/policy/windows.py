"""Active windows of policies: cron, how long, and in which time zone.

A window opens at each time that the cron expression names on a wall clock of its zone, and stays
open for as long as it says, whatever the clocks are turned to meanwhile. A wall-clock time that a
change to summer time skips is taken an hour later; one that comes twice opens the window once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from croniter import croniter  # type: ignore[import-untyped]  # it has no stubs
from croniter.croniter import CroniterError  # type: ignore[import-untyped]  # the same

from remediator.durations import format_duration
from remediator.typed_tree import did_you_mean

LONGEST_S: Final = 366 * 86400.0
_FIELDS = re.compile(r"[0-9A-Za-z*/,\-]+(?: +[0-9A-Za-z*/,\-]+){4}")
_CLOCK_CHANGE = timedelta(hours=3)  # before it another offset may have held
_YEARS = 8  # a leap day comes at least once in so many


class WindowFaultError(Exception):
    """A part of a window that cannot be used; ``field`` names it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class CronWindow:
    """One window. Raises WindowFaultError."""

    def __init__(self, schedule: str, duration_s: float, zone: str = "UTC") -> None:
        self._schedule, self._duration_s, self._zone_name = schedule, duration_s, zone
        self._zone = _zone(zone)
        _check_schedule(schedule)
        if not 60.0 <= duration_s <= LONGEST_S:
            raise WindowFaultError("duration", "must be at least 1m and at most 366d")
        self._last: tuple[float, float, float] | None = None
        # Any time will do: what matters is whether there is one at all.
        if self._next(0.0) is None:
            raise WindowFaultError("schedule", f"{schedule!r} names no day that ever comes")

    @property
    def text(self) -> str:
        """The window in words."""
        return f"{self._schedule!r} for {format_duration(self._duration_s)} ({self._zone_name})"

    def __eq__(self, other: object) -> bool:
        """Whether it is the same window."""
        return isinstance(other, CronWindow) and self.text == other.text

    def __hash__(self) -> int:
        """Return a hash of its words."""
        return hash(self.text)

    def __repr__(self) -> str:
        """Return its words."""
        return f"CronWindow({self.text})"

    def active(self, at: float) -> bool:
        """Whether ``at``, in seconds since the epoch, lies in the window."""
        opened_at, _ = self._around(at)
        return opened_at is not None and at < opened_at + self._duration_s

    def opens_at(self, after: float) -> float | None:
        """Return when it opens next; None where it never does again."""
        _, next_at = self._around(after)
        return next_at

    def never_closes(self) -> bool:
        """Whether it opens again before it has closed, as far as the next days show."""
        at = self._next(0.0)
        for _ in range(64):
            following = None if at is None else self._next(at)
            if at is None or following is None or following - at > self._duration_s:
                return False
            at = following
        return True

    def _around(self, at: float) -> tuple[float | None, float | None]:
        """Return when it opened last, and when it opens next."""
        if self._last is not None and self._last[0] <= at < self._last[1]:
            return self._last[0], self._last[1]
        opened_at, next_at = self._before(at), self._next(at)
        if opened_at is not None and next_at is not None:
            self._last = (opened_at, next_at, at)
        return opened_at, next_at

    def _before(self, at: float) -> float | None:
        found = [
            moment
            for clock in self._clocks(at)
            for step in (self._iterate(clock + timedelta(seconds=1), "get_prev"),)
            if step is not None and (moment := self._moment(step)) <= at
        ]
        return max(found, default=None)

    def _next(self, at: float) -> float | None:
        found = [
            moment
            for clock in self._clocks(at)
            for step in (self._iterate(clock, "get_next"),)
            if step is not None and (moment := self._moment(step)) > at
        ]
        return min(found, default=None)

    def _clocks(self, at: float) -> tuple[datetime, ...]:
        """Return the wall clock at ``at``, by the offset of now and of some hours ago and ahead."""
        utc = datetime.fromtimestamp(at, UTC)
        offsets = {
            (utc + shift).astimezone(self._zone).utcoffset() or timedelta()
            for shift in (-_CLOCK_CHANGE, timedelta(), _CLOCK_CHANGE)
        }
        return tuple(utc.replace(tzinfo=None) + offset for offset in sorted(offsets))

    def _iterate(self, clock: datetime, which: str) -> datetime | None:
        steps = croniter(self._schedule, clock, max_years_between_matches=_YEARS)
        step: Callable[[type[datetime]], datetime] = getattr(steps, which)
        try:
            return step(datetime)
        except CroniterError:
            return None

    def _moment(self, clock: datetime) -> float:
        return clock.replace(tzinfo=self._zone).timestamp()


def _check_schedule(schedule: str) -> None:
    if not _FIELDS.fullmatch(schedule):
        text = (
            f"{schedule!r} is no cron expression; write five fields: minute hour day month weekday"
        )
        raise WindowFaultError("schedule", text)
    try:
        croniter.expand(schedule)
    except (CroniterError, ValueError, KeyError, IndexError) as error:
        said = f"{schedule!r} is no cron expression{_said(schedule, error)}"
        raise WindowFaultError("schedule", said) from error


def _said(schedule: str, error: Exception) -> str:
    """Return what croniter says beyond that it does not accept it."""
    text = " ".join(str(error).split()).replace(f"[{schedule}]", "")
    text = text.replace("is not acceptable", "").strip(" ,")
    return f": {text}" if text else ""


@cache
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(name, available_timezones())
        if "did you mean" not in hint or "/" not in name:
            hint = "; write UTC, or a name such as Europe/Berlin"
        raise WindowFaultError("timeZone", f"{name!r} is no time zone{hint}") from None
