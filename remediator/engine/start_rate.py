"""How many VMs may boot at once: found by watching how long boots take.

Nobody tells a daemon how many boots a storage serves at full speed (its *knee*). Up to the knee a
boot takes its own time, however many others there are. Past it all share one capacity, and most
storages lose some of that, so that boots take longer in proportion at least. So the limit is raised
until boots take longer, and then kept where they only just do:

* *growing*: the limit is multiplied from window to window, by more the more is waiting: what an
  overload would cost is at most a twentieth of what is left to do
* *seeking*: boots took longer, but it was never seen that fewer at once take the same time. So the
  first windows may already have been past the knee: the limit goes down until boots get no faster
* *holding*: the limit follows the knee, up in small steps that grow while nothing resists

A *window* is the boots that were started since the limit was last changed. Where too many starts
fail (volumes that do not attach, boots that time out), the limit goes down at once.

Pure and without an engine: VMs are any strings, times are seconds of any clock that never steps
backward.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

import msgspec

from remediator.engine.model import Record
from remediator.engine.settings import RateSettings

# Boots that take so many times as long as they need are too many at once, besides what the spread
# of their times explains.
CONGESTED = 1.25
# What holding aims at. At 1.08 a storage that loses half of its capacity per doubling gives 97 %,
# one that loses none gives all; below it places stand empty.
_TARGET = 1.08
# From the time that boots take to how far past the knee they are: their number goes with the 0.5th
# to 1st power of the time, from a storage that loses half per doubling to one that only shares.
_KNEE_POWER = 0.6
_SHRINK = 0.7  # a step down after failures
# Steps down in seeking: a short one first, which shows whether it was worth it.
_FIRST_STEP, _NEXT_STEP = 0.8, 0.6
_STEADY = 0.07  # times that differ by less are the same
# Between two limits so far apart, equal times show that both are below the knee.
_APART = 0.85
# Share of the ends in a window that may be failures; a VM of its own trouble fails at any pace.
_FAILURES = 0.2
# Throughput that differs by more is no chance.
_WORSE = 0.85
_PATIENCE_MAX = 8  # windows between two tries of what was too much
_COHORT_MIN = 4  # fewer boots say nothing about the rest
_LEVELS = 8  # windows that are remembered: what was seen before may be another storage by now
# What is waiting, in multiples of the limit, from which the limit is multiplied by that much. With
# half of the capacity lost per doubling, an overload by f costs f * (f - 1) / 2 boot times.
_GROWTH = ((120.0, 4.0), (60.0, 3.0), (20.0, 2.0), (3.0, 1.5), (0.0, 1.0))


class Phase(enum.StrEnum):
    """What the limit is doing; see the module."""

    GROWING = "growing"
    SEEKING = "seeking"
    HOLDING = "holding"


class Learned(Record, frozen=True, kw_only=True):
    """What is known of the storage: all that is worth keeping from one leader to the next."""

    limit: float
    phase: Phase = Phase.GROWING
    base_s: float = 0.0  # how long a boot takes that nothing slows down; 0: not known
    sure: bool = False  # two different limits took that time: they were below the knee


class _Level(Record, frozen=True, kw_only=True):
    """What one window showed: so many boots at once took so long, half of them less."""

    boots: float
    took_s: float
    noise: float  # by how much the time may be off by chance, as a share of it

    @property
    def per_second(self) -> float:
        return self.boots / max(self.took_s, 1e-9)


class _Window(msgspec.Struct):
    """The first so many starts under one limit, and what became of them."""

    size: int
    starts: dict[str, float] = {}  # still booting
    took_s: list[float] = []
    boots: float = 0.0  # sum of how many booted at once, on the average of each boot's time
    failures: int = 0

    @property
    def full(self) -> bool:
        return len(self.starts) + len(self.took_s) + self.failures >= self.size


class StartRate:
    """The adaptive limit on boots at once. One per storage whose boots share a capacity."""

    def __init__(
        self,
        settings: RateSettings | None = None,
        learned: Learned | None = None,
        *,
        changed: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """Begin with what is known, or with ``settings.initial``.

        ``changed`` is called after each change of the limit, with one sentence that says why.
        """
        self.settings = settings or RateSettings()
        self._limit = self._bounded(learned.limit if learned else self.settings.initial)
        self._phase = learned.phase if learned else Phase.GROWING
        self._base_s = learned.base_s if learned else 0.0
        self._sure = learned.sure if learned else False
        self._changed = changed
        self._waiting = 0
        self._flying: dict[str, tuple[float, float]] = {}  # vm -> (start, area then)
        self._area = 0.0  # integral of the boots at once over time
        self._area_at = 0.0
        self._window = _Window(size=self._size())
        self._late = False  # so many are late that no more is started until it is known how late
        self._levels: list[_Level] = []  # the last few windows, newest last
        self._calm = 0  # windows in a row in which nothing resisted
        self._patience = 1  # so many of them before the next step up in holding

    @property
    def limit(self) -> int:
        """How many may boot at once now."""
        if self._late:
            return max(self.settings.floor, min(self._whole, len(self._flying)))
        return self._whole

    @property
    def _whole(self) -> int:
        return int(self._limit + 0.25)

    @property
    def booting(self) -> int:
        """How many boot now, as far as was told."""
        return len(self._flying)

    @property
    def at(self) -> float:
        """The time of what was told last."""
        return self._area_at

    @property
    def base_s(self) -> float:
        """How long a boot takes that nothing slows down, seconds; 0 where that is not known."""
        return self._base_s

    @property
    def took_s(self) -> float:
        """How long boots took in the last window, seconds; 0 before the first."""
        return self._levels[-1].took_s if self._levels else self._base_s

    @property
    def learned(self) -> Learned:
        """What is known by now."""
        return Learned(limit=self._limit, phase=self._phase, base_s=self._base_s, sure=self._sure)

    def waits(self, count: int) -> None:
        """Note how many more VMs wait: growing is bolder the more there are."""
        self._waiting = count

    def started(self, vm: str, at: float) -> None:
        """Note that a VM's start began."""
        self._pass(at)
        self._flying[vm] = (at, self._area)
        if not self._window.full:
            self._window.starts[vm] = at

    def up(self, vm: str, at: float) -> None:
        """Note that its guest is up: one more boot whose time is known."""
        self._pass(at)
        flight = self._flying.pop(vm, None)
        if flight is None:
            return
        began_at, area = flight
        window = self._window
        if window.starts.pop(vm, None) is not None and at > began_at:
            window.took_s.append(at - began_at)
            window.boots += (self._area - area) / (at - began_at)
        self._judge(at)

    def failed(self, vm: str, at: float) -> None:
        """Note that its start failed, or took longer than it may."""
        self._pass(at)
        self._flying.pop(vm, None)
        window = self._window
        if window.starts.pop(vm, None) is None:
            return
        window.failures += 1
        ends = window.failures + len(window.took_s)
        if window.failures >= 2 and window.failures > _FAILURES * ends:
            self._phase = Phase.HOLDING
            self._set(self._limit * _SHRINK, f"{window.failures} of {ends} starts failed")

    def left(self, vm: str, at: float) -> None:
        """Forget a start of which no more is learned: its owner stopped it, nobody sees it boot."""
        self._pass(at)
        self._flying.pop(vm, None)
        self._window.starts.pop(vm, None)

    # --- judging a window ---------------------------------------------------------------------

    def _pass(self, at: float) -> None:
        self._area += len(self._flying) * max(0.0, at - self._area_at)
        self._area_at = max(self._area_at, at)

    def _size(self) -> int:
        return max(_COHORT_MIN, math.ceil(self._limit))

    def _judge(self, at: float) -> None:
        """Close the window once it is known how long half of its boots took."""
        window = self._window
        if not window.took_s or not window.full:
            return
        half = (len(window.starts) + len(window.took_s)) // 2
        times = sorted([*window.took_s, *(at - start for start in window.starts.values())])
        took_s = times[half]
        ended = sum(1 for each in window.took_s if each <= took_s)
        if ended <= half and len(window.took_s) < len(times):
            # Some of those that still boot may yet be quicker: so long they take at least.
            noise = self._levels[-1].noise if self._levels else 0.0
            self._late = self._base_s > 0 and took_s > (CONGESTED + noise) * self._base_s
            return
        level = _Level(
            boots=window.boots / len(window.took_s), took_s=took_s, noise=_noise(times, took_s)
        )
        before = self._levels
        self._levels = [*before[1 - _LEVELS :], level]
        self._learn_base(level, before)
        if self._phase is Phase.GROWING:
            self._grow(level)
        elif self._phase is Phase.SEEKING:
            self._seek(level)
        else:
            self._hold(level)

    def _learn_base(self, level: _Level, before: list[_Level]) -> None:
        """Learn the undisturbed time: fewer at once took no less, or more at once no longer."""
        if self._base_s <= 0:
            self._base_s = level.took_s
            return
        if level.took_s < self._base_s:
            weight = 0.3 if self._sure else 1.0
            self._base_s += weight * (level.took_s - self._base_s)
        for other in before:
            low, high = sorted((level, other), key=lambda each: each.boots)
            apart = min(_APART, math.exp(-2.5 * max(low.noise, high.noise)))
            if low.boots <= apart * high.boots and high.took_s <= (1 + _STEADY) * low.took_s:
                self._sure = True
                self._base_s = (low.took_s + high.took_s) / 2

    def _grow(self, level: _Level) -> None:
        ratio = level.took_s / self._base_s
        if ratio <= CONGESTED + level.noise:
            times = self._boldness() if self._used(level) else 1.0
            self._set(self._limit * times, f"{_shown(level)}: no slower than fewer at once")
        elif self._sure:
            self._phase = Phase.HOLDING
            self._set(level.boots / ratio**_KNEE_POWER, self._slower(level))
        else:
            self._phase = Phase.SEEKING
            lowest = min(each.boots for each in self._levels)
            self._set(lowest * _FIRST_STEP, self._slower(level))

    def _seek(self, level: _Level) -> None:
        best = max(self._levels, key=lambda each: each.per_second)
        worse = level.per_second < 0.95 * best.per_second
        if self._sure or worse or self._limit <= self.settings.floor:
            self._phase, self._sure = Phase.HOLDING, True
            self._set(best.boots, f"{_shown(best)}, which is the most per second")
        else:
            self._set(level.boots * _NEXT_STEP, f"{_shown(level)}: still faster with fewer")

    def _hold(self, level: _Level) -> None:
        ratio = level.took_s / self._base_s
        best = max(self._levels, key=lambda each: each.per_second)
        if level.per_second < _WORSE * best.per_second and self._used(level):
            if best.boots > level.boots:
                self._base_s = max(self._base_s, min(level.took_s, best.took_s))
            self._back(best.boots, f"{_shown(level)}: fewer per second than {_shown(best)}")
        elif ratio > _TARGET:
            times = max(0.5, (_TARGET / ratio) ** _KNEE_POWER)
            self._back(min(self._limit, level.boots + 0.5) * times, self._slower(level))
        elif not self._used(level):
            self._set(self._limit, "")
        else:
            self._calm += 1
            if self._calm < self._patience:
                self._set(self._limit, "")
                return
            step = self._limit * 0.05 * 2 ** (self._calm - self._patience)
            most = max(self._limit * self._boldness(), self._limit + 1)
            limit = min(most, self._limit + max(1.0, step))
            self._set(limit, f"{_shown(level)}: no slower than they need")

    def _back(self, limit: float, why: str) -> None:
        """Go back from a limit that was too much, and wait longer before it is tried again."""
        if self._calm >= self._patience:
            self._patience = min(_PATIENCE_MAX, 2 * self._patience)
        self._calm = 0
        self._set(limit, why)

    def _boldness(self) -> float:
        """By how much the limit may be multiplied, for what is waiting."""
        return next(times for over, times in _GROWTH if self._waiting >= over * self._limit)

    def _used(self, level: _Level) -> bool:
        """Whether the limit was what held boots back: unused, it proves nothing."""
        return level.boots >= 0.75 * self._whole

    def _slower(self, level: _Level) -> str:
        return f"{_shown(level)}, {level.took_s / self._base_s:.2f} times what they need"

    def _set(self, limit: float, why: str) -> None:
        """Begin a window with this limit."""
        before = self._whole
        self._limit = self._bounded(limit)
        self._late = False
        self._window = _Window(size=self._size())
        if self._whole != before:
            self._changed(why)

    def _bounded(self, limit: float) -> float:
        return min(float(self.settings.ceiling), max(float(self.settings.floor), limit))


def _noise(times: list[float], median: float) -> float:
    """Return how far off a median of so many times is by chance, as a share of it.

    From half the distance between the quartiles: 1.25 standard errors, and two medians compared.
    """
    spread = (times[3 * len(times) // 4] - times[len(times) // 4]) / 1.35
    return float(1.25 * spread / median * math.sqrt(2 / len(times)))


def _shown(level: _Level) -> str:
    return f"{level.boots:.0f} at once took {level.took_s:.1f} s"
