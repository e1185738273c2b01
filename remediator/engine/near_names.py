"""Names that somebody may have meant, cheap enough to ask of tens of thousands."""

from __future__ import annotations

import difflib
import heapq
from collections import Counter
from collections.abc import Iterable

_COMPARED = 50  # names that are compared letter by letter, which is slow
_SHOWN = 3
_ALIKE = 0.6  # as difflib.get_close_matches has it


def near(name: str, names: Iterable[str]) -> list[str]:
    """Return the names most like ``name``, the nearest first; none that is not like it.

    Names in Kubernetes have no capitals.
    """
    name = name.lower()
    likely = heapq.nlargest(_COMPARED, names, key=lambda other: (_shared(name, other), other))
    found = [(_alike(name, other), other) for other in likely]
    found = [each for each in found if each[0][0] >= _ALIKE]
    found.sort(key=lambda each: (-each[0][0], -each[0][1], each[1]))
    return [other for _, other in found[:_SHOWN]]


def suggestion(found: list[str]) -> str:
    """Return the end of a sentence that offers these names, or ""."""
    return f"; did you mean {', '.join(found)}?" if found else ""


def _alike(name: str, other: str) -> tuple[float, int]:
    """Return how alike two names are, and how many letters they share in whatever order."""
    ratio = difflib.SequenceMatcher(None, name, other).ratio()
    return ratio, (Counter(name) & Counter(other)).total()


def _shared(name: str, other: str) -> int:
    """Return how much two names share at their ends, less what they differ in length."""
    shortest = min(len(name), len(other))
    head = 0
    while head < shortest and name[head] == other[head]:
        head += 1
    tail = 0
    while tail < shortest - head and name[-1 - tail] == other[-1 - tail]:
        tail += 1
    return head + tail - abs(len(name) - len(other))
