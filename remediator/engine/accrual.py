"""Suspicion that grows with silence, against the rhythm in which a node was heard so far.

The accrual failure detector of Hayashibara et al. ("The φ accrual failure detector", SRDS 2004):
the level φ says how unlikely it is that a beat so late is still to come. φ = 1: one regular beat
in ten is later than this; φ = 8: one in a hundred million. What the level means is decided
elsewhere, by thresholds in the settings.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque

PHI_MAX = 300.0  # as far as a double can tell one chance in 10 to the φ from none

_WINDOW = 12  # intervals: two minutes of the kubelet's
# A slower rhythm is believed soon, since it only makes us patient. A faster one makes us quick.
_ENOUGH_TO_BE_SLOWER = 3
_ENOUGH_TO_BE_FASTER = 8
# Intervals from here on say nothing about a rhythm; shorter ones are one beat heard twice.
_LONGEST_S, _SHORTEST_S = 300.0, 0.2
# So many intervals in a row, alike and all longer than the rhythm, are a new rhythm: one beat in a
# hundred lost makes one interval twice as long, but three in a row once in a million.
_TURN, _ALIKE, _LONGER = 3, 1.25, 1.5
# Once a rhythm is known, so many new intervals make it worth working out again.
_NEWS = 4
# The median absolute deviation of a normal distribution is this part of its standard deviation.
_MAD = 0.6745
# Spread as a share of the rhythm: at least (the kubelet's own jitter of 4 % and a little), at most
# (past it the silence of a restless node would be noticed too late).
_SPREAD_MIN, _SPREAD_MAX = 0.03, 0.15


def phi(silence_s: float, mean_s: float, spread_s: float) -> float:
    """Return the suspicion after ``silence_s`` without a beat, for beats of this mean and spread.

    Both in seconds, ``spread_s`` above 0 (a standard deviation). From 0 to ``PHI_MAX``.
    """
    later = 0.5 * math.erfc((silence_s - mean_s) / (spread_s * math.sqrt(2.0)))
    return PHI_MAX if later <= 10.0**-PHI_MAX else max(0.0, -math.log10(later))


def deviations(level: float) -> float:
    """Return how many standard deviations past the mean φ reaches ``level`` (0 < level < 300)."""
    low, high = -5.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if phi(middle, 0.0, 1.0) < level:
            low = middle
        else:
            high = middle
    return high


class Tempo:
    """The rhythm that is taken for granted on a plane, and from which φ on a beat is late.

    ``overdue_s`` and ``silent_s`` say when, before a node's own rhythm is known. From them and the
    two thresholds follow the mean and spread that a beat is assumed to have; a node's own spread
    is never taken to be smaller than that, so that raising the seconds makes every node's limit
    more patient. ``least_s`` bounds what a fast rhythm may bring the silence down to.
    """

    __slots__ = (
        "_overdue_z",
        "_silent_z",
        "least_s",
        "mean_s",
        "overdue_s",
        "silent_s",
        "spread_s",
    )

    def __init__(
        self,
        overdue_s: float,
        silent_s: float,
        *,
        overdue_phi: float = 1.0,
        silent_phi: float = 8.0,
        least_s: float = 0.0,
    ) -> None:
        self._overdue_z = deviations(overdue_phi)
        self._silent_z = deviations(max(overdue_phi, silent_phi))
        self.overdue_s = overdue_s
        self.silent_s = silent_s
        apart = max(0.1, self._silent_z - self._overdue_z)
        self.spread_s = max(0.01, (silent_s - overdue_s) / apart)
        self.mean_s = silent_s - self._silent_z * self.spread_s
        self.least_s = min(least_s, silent_s)

    def limits(self, mean_s: float, spread_s: float) -> tuple[float, float]:
        """Return after how long such a rhythm is overdue, and after how long silent, in seconds."""
        silent_s = max(self.least_s, mean_s + self._silent_z * spread_s)
        return min(silent_s, mean_s + self._overdue_z * spread_s), silent_s


class Rhythm:
    """The intervals at which one node beat lately, and what they say about the next.

    Median and median deviation, so that a few lost beats change nothing.
    """

    __slots__ = ("_intervals", "_turn", "_unread", "mean_s", "spread_s")

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_WINDOW)
        self._turn: list[float] = []  # the newest intervals, all too long for the rhythm and alike
        self._unread = 0  # intervals since mean and spread were worked out
        self.mean_s = 0.0  # 0: not known yet
        self.spread_s = 0.0

    def note(self, interval_s: float) -> None:
        """Take in the proven time between two beats that both were seen to happen."""
        if not _SHORTEST_S <= interval_s <= _LONGEST_S:
            return
        self._intervals.append(interval_s)
        self._unread += 1
        if not self.mean_s or interval_s < _LONGER * self.mean_s:
            self._turn.clear()
            return
        if self._turn and not 1 / _ALIKE <= interval_s / self._turn[0] <= _ALIKE:
            self._turn.clear()
        self._turn.append(interval_s)
        if len(self._turn) == _TURN:
            self._intervals.clear()
            self._intervals.extend(self._turn)
            self._turn.clear()
            self._unread = _NEWS

    def settle(self, tempo: Tempo) -> bool:
        """Work out mean and spread again, if there is news; True when they have changed."""
        if not self._unread or (self.mean_s and self._unread < _NEWS):
            return False
        self._unread = 0
        ordered = sorted(self._intervals)
        middle = _median(ordered)
        low, high = middle / _ALIKE, middle * _ALIKE
        agreeing = bisect_right(ordered, high) - bisect_left(ordered, low)
        assumed = self.mean_s or tempo.mean_s
        if agreeing < (_ENOUGH_TO_BE_SLOWER if middle >= assumed else _ENOUGH_TO_BE_FASTER):
            return False
        deviation_s = _median(sorted([abs(each - middle) for each in ordered])) / _MAD
        self.mean_s = middle
        self.spread_s = max(
            tempo.spread_s, _SPREAD_MIN * middle, min(_SPREAD_MAX * middle, deviation_s)
        )
        return True


def _median(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0
