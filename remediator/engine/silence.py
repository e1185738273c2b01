"""Silence, measured in proven watching, not in time.

A plane's silence grows only while its watch proves that it hears the API server. After a stretch in
which it did not, every node of that plane gets a fresh full period: we were deaf, they were not
silent. Clocks of nodes are never compared with ours: a beat is a change, whatever it says.
"""

from __future__ import annotations

import heapq

from remediator.engine import accrual
from remediator.engine.accrual import Rhythm, Tempo

# A message that another of the same source has overtaken comes this soon after it, and is not
# older than this. Any other that says an earlier time comes of another clock, or one set back.
OVERTAKEN_WITHIN_S = 5.0
CLOCK_JUMP_S = 60.0
_SOURCES_MAX = 8  # who may speak of one node on one plane; the oldest makes place


def overtaken(at: float, now: float, newest_at: float, newest_arrived_at: float) -> bool:
    """Whether a message of a source came out of order: older than its newest, and right behind it.

    ``at`` and ``newest_at`` are by the source's clock, the others by ours. A source whose clock is
    set back, or was ahead once, is so heard again within seconds.
    """
    behind = newest_at - CLOCK_JUMP_S < at < newest_at
    return behind and now - newest_arrived_at < OVERTAKEN_WITHIN_S


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
        """Note a sign of life of the watch at ``at``, by the watcher's clock."""
        if self._last_at is None:
            self._last_at = at
            return
        passed_s = at - self._last_at
        if passed_s <= 0:
            if passed_s < -self._gap_s:  # another clock from now on: what it missed is unknown
                self._last_at, self.floor_s = at, self.proven_s
            return
        self._last_at = at
        if passed_s <= self._gap_s:
            self.proven_s += passed_s
        else:
            self.floor_s = self.proven_s


class Beat:
    """The last beat of one node on one plane, its rhythm, and the limits that follow from it."""

    __slots__ = (
        "at",
        "back_at",
        "due_s",
        "latch_s",
        "live",
        "mark_s",
        "overdue_s",
        "rhythm",
        "rhythm_mark_s",
        "rhythm_of",
        "said",
        "silent_s",
    )

    def __init__(self, tempo: Tempo) -> None:
        self.at = 0.0  # our clock
        self.back_at = 0.0  # when it last woke from silence, or was first seen to beat
        self.mark_s = 0.0  # the plane's proven time then
        self.live = False  # seen to happen, not merely found when the watch began
        # source -> of its newest beat: its own time, when it arrived, whether it was only found
        self.said: dict[str, tuple[float, float, bool]] = {}
        self.rhythm = Rhythm()
        self.rhythm_of = ""  # the source whose beats make the rhythm
        self.rhythm_mark_s: float | None = None  # proven time of its newest live beat
        self.overdue_s, self.silent_s = tempo.overdue_s, tempo.silent_s  # unstretched
        self.latch_s = -1.0  # the mark whose silence reached its limit; -1: none did
        self.due_s = 0.0  # proven time at which this node is looked at again


class BeatPlane:
    """All nodes' beats on one plane, and which of them are overdue or fell silent.

    ``stretch`` is the local health multiplier: while we are in trouble ourselves, every limit is so
    many times as long. A silence that has reached its limit stays one until the next beat.
    """

    def __init__(self, gap_s: float, tempo: Tempo, *, learns: bool = False) -> None:
        self.time = ProvenTime(gap_s)
        self.tempo = tempo
        self.stretch = 1
        self.beats: dict[str, Beat] = {}
        self._learns = learns
        self._due: list[tuple[float, str]] = []  # (proven time to look again, node)
        self._floor_s = 0.0  # the stopwatch's floor that the queue was made by

    def beat(
        self, node: str, at: float, now: float, *, source: str = "", first: bool = False
    ) -> bool | None:
        """Note a beat of ``source``, at ``at`` by the source's clock, that arrived at ``now``.

        Returns True when the node was silent or unknown before it, None when the beat says nothing
        new: a repeat, or one that a newer beat of the same source has overtaken.
        """
        beat = self.beats.get(node)
        if beat is None:
            beat = self.beats[node] = Beat(self.tempo)
            self._look_at(beat, node, self.time.proven_s + beat.overdue_s)
        elif self._is_old(beat, source, at, now, first=first):
            return None
        if source not in beat.said and len(beat.said) >= _SOURCES_MAX:
            del beat.said[next(iter(beat.said))]
        beat.said[source] = (at, now, first)
        woke = not beat.live or self._is_silent(beat)
        # A beat that was long under way is no younger than it says; a clock may say anything.
        happened_at = at if now - CLOCK_JUMP_S <= at <= now else now
        if woke and not first:
            beat.back_at = happened_at
        mark_s = self.time.reading(at)
        if self._learns:
            self._learn(beat, source, mark_s, first=first)
        beat.at, beat.mark_s, beat.live = happened_at, mark_s, not first
        self._look_in_time(beat, node)
        return woke

    def sign_of_life(self, node: str, now: float) -> bool:
        """Note that a node lives, by something other than its beat; True when it was silent."""
        beat = self.beats.get(node)
        if beat is None:
            beat = self.beats[node] = Beat(self.tempo)
            self._look_at(beat, node, self.time.proven_s + beat.overdue_s)
        woke = not beat.live or self._is_silent(beat)
        if woke:
            beat.back_at = now
        beat.at, beat.mark_s, beat.live = now, self.time.reading(now), True
        self._look_in_time(beat, node)
        return woke

    def restart(self, node: str) -> None:
        """Give a node a fresh period: it shows a new boot, and must be heard anew."""
        beat = self.beats.get(node)
        if beat is not None:
            beat.mark_s, beat.live, beat.rhythm_mark_s = self.time.proven_s, False, None

    def forget(self, node: str) -> None:
        """Forget a deleted node."""
        self.beats.pop(node, None)

    def silence_s(self, node: str) -> float:
        """Return how long, in proven seconds, this node has not beaten; 0 when never seen."""
        beat = self.beats.get(node)
        return 0.0 if beat is None else self._silence_s(beat)

    def silent(self, node: str) -> bool:
        """Whether the node's silence has reached its limit, as stretched when it did."""
        beat = self.beats.get(node)
        return beat is not None and self._is_silent(beat)

    def missed(self, node: str) -> float:
        """Return how many beats fit into the node's silence, stretched by our own trouble."""
        beat = self.beats.get(node)
        if beat is None:
            return 0.0
        return self._silence_s(beat) / (self.stretch * (beat.rhythm.mean_s or self.tempo.mean_s))

    def overdue(self, node: str) -> bool:
        """Whether the node's beat is late, by its own rhythm; never stretched."""
        beat = self.beats.get(node)
        return beat is not None and self._reached(beat, beat.overdue_s)

    def late(self, node: str) -> bool:
        """Whether the beat is late even when allowance is made for our own trouble."""
        beat = self.beats.get(node)
        return beat is not None and self._reached(beat, beat.overdue_s * self.stretch)

    def limits_s(self, node: str) -> tuple[float, float]:
        """Return after how many seconds this node is overdue, and after how many silent.

        The second is stretched by our own trouble; both follow the node's rhythm, once known.
        """
        beat = self.beats.get(node)
        if beat is None:
            return self.tempo.overdue_s, self.tempo.silent_s * self.stretch
        return beat.overdue_s, beat.silent_s * self.stretch

    def rhythm_s(self, node: str) -> float | None:
        """Return the median interval of the node's beats, in seconds; None while not known."""
        beat = self.beats.get(node)
        return None if beat is None else beat.rhythm.mean_s or None

    def suspicion(self, node: str) -> float:
        """Return the suspicion level φ of the node's present silence; 0 when never seen."""
        beat = self.beats.get(node)
        if beat is None:
            return 0.0
        mean_s, spread_s = beat.rhythm.mean_s, beat.rhythm.spread_s
        if not mean_s:
            mean_s, spread_s = self.tempo.mean_s, self.tempo.spread_s
        return accrual.phi(self._silence_s(beat), mean_s, spread_s)

    def newly_due(self) -> list[str]:
        """Return the nodes that may have become overdue or silent since the last call.

        A node that stays silent is returned again about once a period.
        """
        if self._floor_s != self.time.floor_s:  # every silence began anew
            self._floor_s = self.time.floor_s
            for each, again in self.beats.items():
                self._look_in_time(again, each)
        due: list[str] = []
        while self._due and self._due[0][0] <= self.time.proven_s:
            due_s, node = heapq.heappop(self._due)
            beat = self.beats.get(node)
            if beat is None or beat.due_s != due_s:
                continue  # of a node that was forgotten, and perhaps seen again since
            if self._learns and beat.rhythm.settle(self.tempo):
                beat.overdue_s, beat.silent_s = self.tempo.limits(
                    beat.rhythm.mean_s, beat.rhythm.spread_s
                )
            if self._reached(beat, beat.overdue_s):
                due.append(node)
            self._look_at(beat, node, self._next_look_s(beat))
        return due

    def _next_look_s(self, beat: Beat) -> float:
        """Return the proven time at which the node's next threshold may be reached: not yet now."""
        for limit_s in (beat.overdue_s, beat.silent_s):
            if not self._reached(beat, limit_s):
                return self._base_s(beat) + limit_s
        # Stretched limits may shrink again at any time, so their nodes are looked at often.
        return self.time.proven_s + (beat.silent_s if self._is_silent(beat) else 1.0)

    def _look_in_time(self, beat: Beat, node: str) -> None:
        """Look sooner at a node that beats again: a silent one is looked at once a period only."""
        overdue_at_s = self._base_s(beat) + beat.overdue_s
        if overdue_at_s < beat.due_s:
            self._look_at(beat, node, overdue_at_s)

    def _look_at(self, beat: Beat, node: str, due_s: float) -> None:
        beat.due_s = due_s
        heapq.heappush(self._due, (due_s, node))

    def _base_s(self, beat: Beat) -> float:
        return max(beat.mark_s, self.time.floor_s)

    def _silence_s(self, beat: Beat) -> float:
        return max(0.0, self.time.proven_s - self._base_s(beat))

    def _reached(self, beat: Beat, limit_s: float) -> bool:
        """Whether the silence has lasted so long.

        By the sum that the queue is ordered by: a difference may round to another side, and a node
        would be due for ever without being overdue.
        """
        return self._base_s(beat) + limit_s <= self.time.proven_s

    def _is_silent(self, beat: Beat) -> bool:
        base_s = self._base_s(beat)
        if not self._reached(beat, beat.silent_s):
            return False
        if self._reached(beat, beat.silent_s * self.stretch):
            beat.latch_s = base_s
        return beat.latch_s == base_s

    def _is_old(self, beat: Beat, source: str, at: float, now: float, *, first: bool) -> bool:
        said = beat.said.get(source)
        if said is None:
            return False
        newest_at, arrived_at, found = said
        if at == newest_at:
            return first or not found
        return overtaken(at, now, newest_at, arrived_at)

    def _learn(self, beat: Beat, source: str, mark_s: float, *, first: bool) -> None:
        if first:
            beat.rhythm_mark_s = None
            return
        if beat.rhythm_of != source:
            # Two sources' beats mixed would be no rhythm. The newcomer's counts once the other has
            # stopped for as long as three of its beats take.
            since_s = mark_s - (beat.rhythm_mark_s or 0.0)
            if beat.rhythm_of and since_s < 3.0 * (beat.rhythm.mean_s or self.tempo.mean_s):
                return
            beat.rhythm_of, beat.rhythm_mark_s = source, mark_s
            return
        before_s = beat.rhythm_mark_s
        beat.rhythm_mark_s = mark_s
        if before_s is not None and before_s >= self.time.floor_s:
            beat.rhythm.note(mark_s - before_s)
