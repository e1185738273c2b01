"""VMs that look bad: since when each row of the VM table fits them, and when they are looked at.

All times are proven time (see ``silence.py``).
"""

from __future__ import annotations

import heapq
from collections.abc import KeysView

from remediator.engine.inventory import Key

# A case whose objects do not change is looked at so often, half as often or half as rarely: looks
# are spread, lest all VMs that fell ill together are looked at together for ever.
_LOOK_EVERY_S = 5.0
_TURNS = 16


class Case:
    """A VM that looks bad, or whose incident is open."""

    __slots__ = ("clear_s", "due_s", "marks")

    def __init__(self) -> None:
        self.marks: dict[str, tuple[str, float]] = {}  # row -> what it is about, since when it fits
        self.clear_s: float | None = None  # since when no row fits
        self.due_s = -1.0  # when it is looked at next

    def mark(self, about: dict[str, str], proven_s: float) -> None:
        """Note the rows that fit now; one that is about something new begins anew."""
        marks: dict[str, tuple[str, float]] = {}
        for row, what in about.items():
            known = self.marks.get(row)
            marks[row] = known if known is not None and known[0] == what else (what, proven_s)
        self.marks = marks
        if marks:
            self.clear_s = None
        elif self.clear_s is None:
            self.clear_s = proven_s

    def forget_times(self) -> None:
        """Begin anew with every row: what was seen meanwhile has another reason."""
        self.marks, self.clear_s = {}, None


class Cases:
    """All cases, and the order in which they are looked at."""

    def __init__(self) -> None:
        self._cases: dict[Key, Case] = {}
        self._due: list[tuple[float, Key]] = []
        self._looks = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._cases

    def keys(self) -> KeysView[Key]:
        """Return the VMs."""
        return self._cases.keys()

    def get(self, key: Key) -> Case | None:
        """Return the case of a VM, if it has one."""
        return self._cases.get(key)

    def of(self, key: Key) -> Case:
        """Return the case of a VM; open it where there is none."""
        return self._cases.setdefault(key, Case())

    def close(self, key: Key) -> None:
        """Forget the case of a VM."""
        self._cases.pop(key, None)

    def look_in(self, key: Key, proven_s: float, wait_s: float | None) -> None:
        """Have a case looked at in ``wait_s``, or within a few seconds if that is sooner."""
        self._looks += 1
        every_s = _LOOK_EVERY_S * (0.5 + self._looks % _TURNS / _TURNS)
        case = self._cases[key]
        case.due_s = proven_s + (every_s if wait_s is None else min(every_s, wait_s))
        heapq.heappush(self._due, (case.due_s, key))

    def take_due(self, proven_s: float) -> list[Key]:
        """Return the VMs that are to be looked at by now; each is returned once."""
        found: list[Key] = []
        while self._due and self._due[0][0] <= proven_s:
            due_s, key = heapq.heappop(self._due)
            case = self._cases.get(key)
            if case is not None and case.due_s == due_s:
                case.due_s = -1.0
                found.append(key)
        return found
