"""Names that somebody may have meant, cheap enough to ask of tens of thousands."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable

_COMPARED = 50  # names that are compared letter by letter, which is slow
_SHOWN = 3


def near(name: str, names: Iterable[str]) -> list[str]:
    """Return the names most like ``name``, the nearest first; none that is not like it.

    Names in Kubernetes have no capitals.
    """
    name = name.lower()
    likely = heapq.nlargest(_COMPARED, names, key=lambda other: (_shared(name, other), other))
    return difflib.get_close_matches(name, likely, n=_SHOWN, cutoff=0.6)


def suggestion(found: list[str]) -> str:
    """Return the end of a sentence that offers these names, or ""."""
    return f"; did you mean {', '.join(found)}?" if found else ""


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
