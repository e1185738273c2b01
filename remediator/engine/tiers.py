"""Tiers: how important it is that a VM is back soon. Higher numbers start first."""

from __future__ import annotations

import math

# Names of tiers, and the number that each stands for; whole numbers between them may be used, too.
TIERS: dict[str, int] = {"highest": 200, "high": 100, "medium": 0, "low": -100, "lowest": -200}
TIER_STEP = 100  # from one named tier to the next


def parse_tier(text: str) -> int | None:
    """Read a tier: one of the names of TIERS, or a whole number from -1000 to 1000; else None."""
    word = text.strip().lower()
    if word in TIERS:
        return TIERS[word]
    try:
        number = int(word)
    except ValueError:
        return None
    return number if -1000 <= number <= 1000 else None


def tier_of_priority(value: int) -> int:
    """Return the tier of a PriorityClass's value: between low and high, in the same order.

    Values reach 2e9 and more; 11 steps for each power of ten keep all that clusters tell apart.
    """
    steps = round(11 * math.log10(1 + abs(value)))
    return int(math.copysign(min(TIER_STEP, steps), value)) if value else 0


def tier_name(tier: int) -> str:
    """Return a tier as people write it."""
    return next((name for name, value in TIERS.items() if value == tier), str(tier))
