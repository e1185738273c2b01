"""Where a storage's knee is: what fits how long boots took, with so many at once.

Pure numbers; ``start_rate`` makes a limit of them.
"""

from __future__ import annotations

import math

from remediator.engine.model import Record

# Past the knee the time of a boot goes with this power of their number: 1 where a storage only
# shares its capacity, 1.5 to 1.8 where it loses half of it per doubling.
_POWER = 1.5
_NOISE_MIN = 0.03  # of a median: schedulers and watches are not more exact
# A knee is believed where it explains so many times the variance that the noise of medians has.
_BELIEVED = 2.0
_RECENT = 0.5  # weight of a window beside what was seen before with as many at once


class Level(Record, frozen=True, kw_only=True):
    """What windows of about so many boots at once showed: so long they took, half of them less."""

    boots: float
    took_s: float
    noise: float  # by how much the time may be off by chance, as a share of it
    weight: float = 1.0  # how much of it is recent


class Knee(Record, frozen=True, kw_only=True):
    """What fits the windows best: a time that all boots take, up to so many at once."""

    base_s: float
    boots: float | None  # None: no knee is seen


def merged(before: Level, now: Level) -> Level:
    """Return what two windows of about as many at once say together."""
    share = _RECENT if before.weight > _RECENT else 1.0
    return Level(
        boots=before.boots + share * (now.boots - before.boots),
        took_s=before.took_s + share * (now.took_s - before.took_s),
        noise=math.hypot(share * now.noise, (1 - share) * before.noise),
    )


def fit(levels: list[Level]) -> Knee:
    """Return the knee that explains what was seen best, by least squares over logarithms.

    Without one all times are the same but for noise; with one they rise from it on, as _POWER says.
    Where several knees explain it as well, the largest is taken.
    """
    weights = [each.weight for each in levels]
    points = [(math.log(each.boots), math.log(each.took_s), each.weight) for each in levels]
    total = sum(weights)
    flat_s, flat_error = _line(points, math.inf, total)
    variance = sum(
        weight * max(_NOISE_MIN, each.noise) ** 2
        for each, weight in zip(levels, weights, strict=True)
    ) / total  # fmt: skip
    low, high = min(point[0] for point in points), max(point[0] for point in points)
    steps = int((high - low) / 0.02) + 1
    tried = [
        (*_line(points, high - 0.02 * index, total), high - 0.02 * index) for index in range(steps)
    ]
    least = min(error for _, error, _ in tried)
    base_s, error, knee = next(each for each in tried if each[1] <= least + variance / 4)
    if flat_error - error < _BELIEVED * variance:
        return Knee(base_s=flat_s, boots=None)
    return Knee(base_s=base_s, boots=math.exp(knee))


def _line(
    points: list[tuple[float, float, float]], knee: float, total: float
) -> tuple[float, float]:
    """Return the time below this knee that fits best, and the error that remains."""
    rests = [(took - _POWER * max(0.0, boots - knee), weight) for boots, took, weight in points]
    mean = sum(rest * weight for rest, weight in rests) / total
    return math.exp(mean), sum(weight * (rest - mean) ** 2 for rest, weight in rests)


def median_s(ended: list[float], still: list[float]) -> float | None:
    """Return how long half of the boots take, None where too few have ended to know.

    Kaplan and Meier's estimator: those that still boot count as long as they are known to.
    """
    times = sorted([(each, 0) for each in ended] + [(each, 1) for each in still])
    remain, at_risk = 1.0, len(times)
    for time_s, censored in times:
        if not censored:
            remain *= 1 - 1 / at_risk
            if remain <= 0.5 + 1e-9:
                return time_s
        at_risk -= 1
    return None


def noise_of(times: list[float]) -> float:
    """Return how far off a median of so many times is by chance, as a share of it.

    From half the distance between the quartiles: 1.25 standard errors, and two medians compared.
    """
    ordered = sorted(times)
    count = len(ordered)
    spread = (ordered[3 * count // 4] - ordered[count // 4]) / 1.35
    return float(1.25 * spread / ordered[count // 2] * math.sqrt(2 / count))
