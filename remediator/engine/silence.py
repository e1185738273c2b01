"""Silence, measured in proven watching, not in time.

A plane's silence grows only while its watch proves that it hears the API server. After a stretch in
which it did not, every node of that plane gets a fresh full period: we were deaf, they were not
silent. Clocks of nodes are never compared with ours: a beat is a change, whatever it says.
"""

from __future__ import annotations

import heapq


class ProvenTime:
    """A stopwatch that runs only while a watch proves progress."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._last_at: float | None = None
        self.proven_s = 0.0
        self.floor_s = 0.0  # the reading when the watch last came back from deafness

    def reading(self, at: float) -> float:
        """Return what the stopwatch would show if the watch were proven up to ``at``.

        Marks of beats are set so: a beat that arrived is no proof that everything before it has.
        """
        if self._last_at is None:
            return self.proven_s
        return self.proven_s + min(max(0.0, at - self._last_at), self._gap_s)

    def progress(self, at: float) -> None:
        """Note a sign of life of the watch at ``at``."""
        if self._last_at is None:
            self._last_at = at
            return
        passed_s = at - self._last_at
        if passed_s <= 0:
            return
        self._last_at = at
        if passed_s <= self._gap_s:
            self.proven_s += passed_s
        else:
            self.floor_s = self.proven_s


class Beat:
    """The last beat of one node on one plane."""

    __slots__ = ("at", "back_at", "live", "mark_s")

    def __init__(self) -> None:
        self.at = 0.0  # our clock
        self.back_at = 0.0  # when it last woke from silence, or was first seen to beat
        self.mark_s = 0.0  # the plane's proven time then
        self.live = False  # seen to happen, not merely found when the watch began


class BeatPlane:
    """All nodes' beats on one plane, and which of them fell silent."""

    def __init__(self, gap_s: float, silent_after_s: float) -> None:
        self.time = ProvenTime(gap_s)
        self.silent_after_s = silent_after_s
        self.beats: dict[str, Beat] = {}
        self._due: list[tuple[float, str]] = []  # (proven time at which silence would be reached)

    def beat(self, node: str, at: float, *, first: bool) -> bool:
        """Note a beat; True when the node was silent or unknown before it."""
        beat = self.beats.get(node)
        if beat is None:
            beat = self.beats[node] = Beat()
            heapq.heappush(self._due, (self.time.proven_s + self.silent_after_s, node))
        woke = not beat.live or self.silence_s(node) >= self.silent_after_s
        if woke and not first:
            beat.back_at = at
        beat.at = at
        beat.mark_s = self.time.reading(at)
        beat.live = not first
        return woke

    def restart(self, node: str) -> None:
        """Give a node a fresh period: it shows a new boot, and must be heard anew."""
        beat = self.beats.get(node)
        if beat is not None:
            beat.mark_s, beat.live = self.time.proven_s, False

    def forget(self, node: str) -> None:
        """Forget a deleted node."""
        self.beats.pop(node, None)

    def silence_s(self, node: str) -> float:
        """Return how long, in proven seconds, this node has not beaten; 0 when never seen."""
        beat = self.beats.get(node)
        if beat is None:
            return 0.0
        return max(0.0, self.time.proven_s - max(beat.mark_s, self.time.floor_s))

    def newly_due(self) -> list[str]:
        """Return the nodes whose silence may have reached its limit since the last call."""
        due: list[str] = []
        while self._due and self._due[0][0] <= self.time.proven_s:
            _, node = heapq.heappop(self._due)
            beat = self.beats.get(node)
            if beat is None:
                continue
            at_s = max(beat.mark_s, self.time.floor_s) + self.silent_after_s
            if at_s <= self.time.proven_s:
                due.append(node)
                # Looked at again one period later, should it stay silent.
                at_s = self.time.proven_s + self.silent_after_s
            heapq.heappush(self._due, (at_s, node))
        return due
