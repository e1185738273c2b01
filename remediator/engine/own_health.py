"""How far this daemon may trust its own eyes: the local health multiplier.

Lifeguard's idea (Dadgar, Phillips, Currey, arXiv 1707.00788): who is slow himself sees everybody
else late. So trouble of our own stretches the silence after which others are suspected, 1 to 8
times, and past a point nothing is convicted. The multiplier is the worst of the last ``calm_s``
seconds: it rises at once and relaxes when nothing was wrong for that long.
"""

from __future__ import annotations

from collections import deque

from remediator.engine.events import OwnHealthSeen
from remediator.engine.settings import OwnHealthSettings

_WATCHES_NAMED = 5  # in a reason
_MEASURED_FOR_S = 5.0  # a measurement is of about a second; one that is so old says nothing


class OwnHealth:
    """What is wrong with us, and what follows from it. All times are the engine's ``now``."""

    def __init__(self, settings: OwnHealthSettings) -> None:
        self._settings = settings
        self._seen = OwnHealthSeen()
        self._seen_at = 0.0
        self._progress: dict[str, tuple[float, float]] = {}  # watch -> last progress, its gap
        self._overdue = (0, 0, 0.0)  # nodes overdue in the same interval, of how many, budget share
        # Multipliers that were called for: falling, each with the last time it was, and why.
        self._wanted: deque[tuple[int, float, tuple[str, ...]]] = deque()

    @property
    def multiplier(self) -> int:
        """By how much every silence limit is stretched now: 1 when nothing is wrong."""
        return self._wanted[0][0] if self._wanted else 1

    @property
    def suspended(self) -> bool:
        """Whether nothing may be convicted now."""
        return self.multiplier >= self._settings.suspend_at

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in words; empty when nothing is wrong."""
        return self._wanted[0][2] if self._wanted else ()

    @property
    def relaxes_at(self) -> float | None:
        """When the multiplier falls next, if nothing more goes wrong; None when it is 1."""
        return self._wanted[0][1] + self._settings.calm_s if self._wanted else None

    def seen(self, event: OwnHealthSeen, now: float) -> None:
        """Take in what the daemon measured of itself."""
        self._seen, self._seen_at = event, now
        self.look(now)

    def progressed(self, watch: str, gap_s: float, now: float) -> None:
        """Note that a watch proved that it hears; ``gap_s`` is the longest that may take."""
        before = self._progress.get(watch)
        if before is not None and now - before[0] > gap_s:
            self.look(now)  # it was deaf until now: that counts, though nobody looked meanwhile
        self._progress[watch] = (now, gap_s)

    def many_overdue(self, overdue: int, nodes: int, share: float) -> None:
        """Note how many nodes became overdue in the same interval; ``share`` is the budget."""
        self._overdue = (overdue, nodes, share)

    def look(self, now: float) -> bool:
        """Bring the multiplier up to date; True when it has changed."""
        before = self.multiplier
        while self._wanted and now - self._wanted[0][1] > self._settings.calm_s:
            self._wanted.popleft()
        level, reasons = self._wanted_now(now)
        if level > 1:
            while self._wanted and self._wanted[-1][0] <= level:
                self._wanted.pop()
            self._wanted.append((level, now, reasons))
        return self.multiplier != before

    def _wanted_now(self, now: float) -> tuple[int, tuple[str, ...]]:
        """Return the multiplier that this moment calls for, and why."""
        settings = self._settings
        seen = self._seen if now - self._seen_at <= _MEASURED_FOR_S else OwnHealthSeen()
        steps: list[tuple[int, str]] = []
        for measured_s, limit_s, what in (
            (seen.loop_lag_s, settings.loop_lag_s, "the event loop is late by"),
            (seen.api_latency_s, settings.api_latency_s, "the API server answers after"),
            (seen.nats_latency_s, settings.nats_latency_s, "NATS answers after"),
        ):
            if measured_s is not None and limit_s > 0 and measured_s >= limit_s:
                steps.append((_times(measured_s, limit_s), f"{what} {measured_s:.1f} s"))
        if seen.stale_watches:
            named = ", ".join(sorted(seen.stale_watches)[:_WATCHES_NAMED])
            steps.append((len(seen.stale_watches), f"watches without progress: {named}"))
        for watch, (at, gap_s) in sorted(self._progress.items()):
            deaf_s = now - at
            if deaf_s > gap_s:
                steps.append((_times(deaf_s, gap_s), f"{watch} silent for {deaf_s:.0f} s"))
        steps.extend(self._overdue_step())
        level = 1 + sum(step for step, _ in steps)
        return min(settings.multiplier_max, level), tuple(why for _, why in steps)

    def _overdue_step(self) -> list[tuple[int, str]]:
        overdue, nodes, share = self._overdue
        if overdue < self._settings.many_overdue or overdue <= max(1, int(share * nodes)):
            return []
        # One step at the budget's edge, and all there are when every node is overdue.
        beyond = (overdue / nodes - share) / max(0.01, 1.0 - share)
        steps = 1 + round(beyond * (self._settings.multiplier_max - 2))
        return [(steps, f"{overdue} of {nodes} nodes overdue in the same interval")]


def _times(measured_s: float, limit_s: float) -> int:
    """Return how many full times the limit fits; bounded, whatever was measured."""
    return int(min(100.0, measured_s / limit_s))
