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

A *window* is the boots that ran with about as many others as the limit says; how long half of them
take is estimated with those that still boot (Kaplan and Meier's estimator), so that the quick ones,
which end first, do not mislead. Where too many starts fail (volumes that do not attach, boots that
time out), the limit goes down at once.

What is limited are boots that read from the storage. A start takes a while until then (a node is
found, volumes are attached); where it is told when a VM begins to boot (``reads``), so many more
are let through as are on their way at any time.

Pure and without an engine: VMs are any strings, times are seconds of any clock that never steps
backward.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

import msgspec

from remediator.engine.knee import Knee, Level, fit, median_s, merged, noise_of
from remediator.engine.model import Record
from remediator.engine.settings import RateSettings

# Boots that take so many times as long as they need are too many at once, besides what the spread
# of their times explains.
CONGESTED = 1.25
# Holding aims a little past the knee, where a storage that loses half per doubling still gives
# 95 % and more: below it places stand empty. The less alike boots are, the more of them do.
_PAST_KNEE, _PAST_KNEE_MAX = 1.03, 1.1
_SHRINK = 0.7  # a step down after failures
# Steps down in seeking: a short one first, which shows whether it was worth it.
_FIRST_STEP, _NEXT_STEP = 0.8, 0.6
# Between two limits so far apart, equal times show that both are below the knee.
_APART = 0.85
# Share of the ends in a window that may be failures; a VM of its own trouble fails at any pace.
_FAILURES = 0.2
_COHORT_MIN = 4  # fewer boots say nothing about the rest
_LAUNCH_MAX = 1.0  # at most as many are on their way as read
_BUCKET = 1.12  # limits that differ by less are one
# Weight of what was seen, once as many as the limit have booted since: the storage may be another
# by now, or the VMs are.
_FADING, _FORGOTTEN = 0.99, 0.2
# A window is over when so many have ended, as a share of the limit.
_ENDED_GROWING, _ENDED_HOLDING = 0.5, 1 / 3
# What is waiting, in multiples of the limit, from which the limit is multiplied by that much. With
# half of the capacity lost per doubling, an overload by f costs f * (f - 1) / 2 boot times.
_GROWTH = ((120.0, 3.0), (60.0, 2.0), (3.0, 1.5), (0.0, 1.0))


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


class _Flight(msgspec.Struct):
    """A start under way."""

    since_at: float  # since when it reads, or was started where that was not told
    area: float  # integral of the boots at once until then
    reads: bool = False


class _Window(msgspec.Struct):
    """What became of boots under one limit."""

    took_s: list[float] = []
    boots: float = 0.0  # sum of how many read at once, on the average of each boot's time
    failed: set[str] = set()


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
        self._flying: dict[str, _Flight] = {}
        self._launches = False  # it is told when VMs begin to read
        self._area = 0.0  # integral of the boots at once over time
        self._area_at = 0.0
        self._launch_s = 0.0  # from the start to reading
        self._window = _Window()
        self._late = False  # so many are late that no more is started until it is known how late
        # What was seen at about so many at once, by the power of _BUCKET; the newest is last.
        self._levels: dict[int, Level] = {}
        self._last: Level | None = None
        self._calm = 0  # windows in a row in which nothing resisted

    @property
    def limit(self) -> int:
        """How many may be on their way or boot now."""
        if self._late:
            return max(self.settings.floor, self._whole // 2, min(self._whole, len(self._flying)))
        if self._launch_s <= 0 or self._base_s <= 0:
            return self._whole
        turning = min(_LAUNCH_MAX, self._launch_s / self.took_s)
        on_their_way = self._now_reading() * turning  # so many end while one is on its way
        return int(self._limit + on_their_way + 0.25)

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
        return self._last.took_s if self._last is not None else self._base_s

    @property
    def learned(self) -> Learned:
        """What is known by now."""
        return Learned(limit=self._limit, phase=self._phase, base_s=self._base_s, sure=self._sure)

    def tell(self, changed: Callable[[str], None]) -> None:
        """Call ``changed`` after each change of the limit, from now on."""
        self._changed = changed

    def waits(self, count: int) -> None:
        """Note how many more VMs wait: growing is bolder the more there are."""
        self._waiting = count

    def started(self, vm: str, at: float) -> None:
        """Note that a VM's start began."""
        self._pass(at)
        if vm not in self._flying:
            self._flying[vm] = _Flight(at, self._area)

    def reads(self, vm: str, at: float) -> None:
        """Note that its guest begins to boot. Optional: without it the start counts as that."""
        self._pass(at)
        flight = self._flying.get(vm)
        if flight is None or flight.reads:
            return
        launch_s = at - flight.since_at
        self._launch_s += (0.1 if self._launch_s else 1.0) * (launch_s - self._launch_s)
        self._launches = True
        flight.since_at, flight.area, flight.reads = at, self._area, True

    def up(self, vm: str, at: float) -> None:
        """Note that its guest is up: one more boot whose time is known."""
        self._pass(at)
        flight = self._flying.pop(vm, None)
        if flight is None or at <= flight.since_at:
            return
        boots = (self._area - flight.area) / (at - flight.since_at)
        # Seen up before anybody was seen to read: how many it shared the storage with is not known.
        if boots > 0 and self._belongs(boots):
            self._window.took_s.append(at - flight.since_at)
            self._window.boots += boots
        self._judge(at)

    def failed(self, vm: str, at: float) -> None:
        """Note that its start failed, or took longer than it may."""
        self._pass(at)
        flight = self._flying.pop(vm, None)
        if flight is None or at <= flight.since_at:
            return
        window = self._window
        if not self._belongs((self._area - flight.area) / (at - flight.since_at)):
            return  # so few at once cannot have been too many: it has a trouble of its own
        window.failed.add(vm)
        failures = len(window.failed)
        ends = failures + len(window.took_s)
        if failures >= 2 and failures > _FAILURES * ends:
            self._phase = Phase.HOLDING
            self._set(self._limit * _SHRINK, f"{failures} of {ends} starts failed")

    def left(self, vm: str, at: float) -> None:
        """Forget a start of which no more is learned: its owner stopped it, nobody sees it boot."""
        self._pass(at)
        self._flying.pop(vm, None)

    # --- judging a window ---------------------------------------------------------------------

    def _pass(self, at: float) -> None:
        self._area += self._now_reading() * max(0.0, at - self._area_at)
        self._area_at = max(self._area_at, at)

    def _now_reading(self) -> int:
        if not self._launches:
            return len(self._flying)
        return sum(flight.reads for flight in self._flying.values())

    def _belongs(self, boots: float) -> bool:
        """Whether a boot among so many others says something about this limit."""
        return _APART * self._limit - 1 <= boots <= 1.5 * self._limit + 1

    def _judge(self, at: float) -> None:
        """Close the window once it is known how long half of its boots took."""
        window = self._window
        share = _ENDED_HOLDING if self._phase is Phase.HOLDING else _ENDED_GROWING
        if len(window.took_s) < max(_COHORT_MIN, math.ceil(self._limit * share)):
            self._late = self._is_late(at)
            return
        took_s = median_s(window.took_s, self._still(at))
        if took_s is None:
            self._late = self._is_late(at)
            return
        level = Level(
            boots=window.boots / len(window.took_s), took_s=took_s, noise=noise_of(window.took_s)
        )
        self._last = level
        self._remember(level)
        knee = fit(list(self._levels.values()))
        self._base_s = knee.base_s
        self._sure = self._sure or self._flat(knee)
        if self._phase is Phase.GROWING:
            self._grow(level, knee)
        elif self._phase is Phase.SEEKING:
            self._seek(level, knee)
        else:
            self._hold(level, knee)

    def _remember(self, level: Level) -> None:
        """Add a window to what was seen with about as many at once, and let the others fade."""
        key = round(math.log(level.boots) / math.log(_BUCKET))
        before = self._levels.pop(key, None)
        fading = _FADING ** (len(self._window.took_s) / self._limit)
        for other, seen in list(self._levels.items()):
            faded = seen.weight * fading
            if faded < _FORGOTTEN:
                del self._levels[other]
            else:
                self._levels[other] = msgspec.structs.replace(seen, weight=faded)
        self._levels[key] = level if before is None else merged(before, level)

    def _flat(self, knee: Knee) -> bool:
        """Whether two limits that are apart took the same time, so that both are below the knee."""
        seen = self._levels.values()
        below = [each.boots for each in seen if each.boots <= (knee.boots or math.inf) + 0.5]
        return len(below) > 1 and min(below) <= _APART * max(below)

    def _still(self, at: float) -> list[float]:
        """Return how long those of the window that still boot have taken by now."""
        return [
            at - flight.since_at
            for flight in self._flying.values()
            if (flight.reads or not self._launches)
            and at > flight.since_at
            and self._belongs((self._area - flight.area) / (at - flight.since_at))
        ]

    def _is_late(self, at: float) -> bool:
        """Whether half of the boots take too long, however long that will turn out to be."""
        if self._base_s <= 0:
            return False
        noise = self._last.noise if self._last is not None else 0.0
        still, limit_s = self._still(at), (CONGESTED + noise) * self._base_s
        late = sum(1 for each in still if each > limit_s)
        return 2 * late > len(still) + len(self._window.took_s) and late >= 2

    def _grow(self, level: Level, knee: Knee) -> None:
        quick = level.took_s <= (CONGESTED + level.noise) * knee.base_s
        if knee.boots is None or quick:
            times = self._boldness() if self._used(level) else 1.0
            self._set(self._limit * times, f"{_shown(level)}: no slower than fewer at once")
        elif self._sure:
            self._phase = Phase.HOLDING
            self._set(knee.boots * _past_knee(level), self._slower(level))
        else:
            self._phase = Phase.SEEKING
            lowest = min(each.boots for each in self._levels.values())
            self._set(lowest * _FIRST_STEP, self._slower(level))

    def _seek(self, level: Level, knee: Knee) -> None:
        if self._sure or self._limit <= self.settings.floor:
            self._phase, self._sure = Phase.HOLDING, True
            self._set(
                (knee.boots or level.boots) * _past_knee(level), f"{_shown(level)}: no faster"
            )
        else:
            self._set(level.boots * _NEXT_STEP, f"{_shown(level)}: still faster with fewer")

    def _hold(self, level: Level, knee: Knee) -> None:
        if knee.boots is not None:
            self._calm = 0
            self._set(knee.boots * _past_knee(level), self._slower(level))
        elif not self._used(level):
            self._set(self._limit, "")
        else:
            self._calm += 1
            most = max(self._limit * self._boldness(), self._limit + 1)
            step = max(1.0, self._limit * 0.05 * 2 ** min(16, self._calm - 1))
            self._set(min(most, self._limit + step), f"{_shown(level)}: no slower than they need")

    def _boldness(self) -> float:
        """By how much the limit may be multiplied, for what is waiting."""
        return next(times for over, times in _GROWTH if self._waiting >= over * self._limit)

    def _used(self, level: Level) -> bool:
        """Whether the limit was what held boots back: unused, it proves nothing."""
        return level.boots >= 0.75 * self._whole

    def _slower(self, level: Level) -> str:
        return f"{_shown(level)}, {level.took_s / self._base_s:.2f} times what they need"

    def _set(self, limit: float, why: str) -> None:
        """Begin a window with this limit."""
        before = self._whole
        self._limit = self._bounded(limit)
        self._late = False
        self._window = _Window()
        if self._whole != before:
            self._changed(why)

    def _bounded(self, limit: float) -> float:
        return min(float(self.settings.ceiling), max(float(self.settings.floor), limit))


def _past_knee(level: Level) -> float:
    return min(_PAST_KNEE_MAX, _PAST_KNEE + level.noise)


def _shown(level: Level) -> str:
    return f"{level.boots:.0f} at once took {level.took_s:.1f} s"
