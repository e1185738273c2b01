"""The network plane: what the vantage points see, and how many of them, where, must agree.

A vantage point is a process that probes nodes from where it stands. One that is lost, cut off or
wrong must convict nobody, so "down" takes more than half of the zones that have a vantage point;
one answer from anywhere is enough for "up".
"""

from __future__ import annotations

from collections import Counter, defaultdict

from remediator.engine.model import Reading, Record, Signal
from remediator.engine.settings import DetectionSettings
from remediator.engine.silence import overtaken

# Vantage points, of which a cluster has a handful; more than this is garbage on the bus.
VANTAGES_MAX = 64
# One that was not heard for this long is forgotten with all it saw (it publishes every 5 s).
FORGET_AFTER_S = 60.0


class Sight:
    """What one vantage point said last of one node. Times are arrivals, on our clock."""

    __slots__ = ("arrived_at", "at", "detail", "reading", "since")

    def __init__(self) -> None:
        self.reading = Reading.UNKNOWN
        self.at = 0.0  # the vantage point's own clock
        self.arrived_at = float("-inf")
        self.since = 0.0  # when the reading last changed
        self.detail = ""


class Vantage:
    """One vantage point: its life, and its sights."""

    __slots__ = (
        "alive_at",
        "detail",
        "down",
        "heard_at",
        "life_at",
        "name",
        "reading",
        "sights",
        "zone",
    )

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.zone = ""
        self.reading = Reading.UNKNOWN  # UNKNOWN: it cannot reach its own references
        self.detail = ""
        self.life_at = 0.0  # its own clock
        self.alive_at = float("-inf")  # when its last sign of life arrived
        self.heard_at = now  # when anything of it last arrived
        self.sights: dict[str, Sight] = {}
        self.down: set[str] = set()  # the nodes of whose sights the reading is down


class ZoneVote(Record, frozen=True, kw_only=True):
    """What the fresh vantage points of one zone say of a node."""

    zone: str
    value: str  # "up": one at least; "down": more than half; "unknown"
    up: int
    down: int
    no_vote: int  # fresh vantage points without a fresh reading of this node, or that doubt
    since_s: float  # how long the newest of the deciding readings has stood
    detail: str  # the vantage points and what each says


class SightView(Record, frozen=True, kw_only=True):
    """What one vantage point said last of a node, as health views show it."""

    vantage: str
    zone: str
    reading: Reading
    votes: bool  # it counts: the vantage point is heard, and said so lately
    age_s: float  # since it arrived
    since_s: float  # for how long it has been so
    detail: str


class VantageView(Record, frozen=True, kw_only=True):
    """A vantage point as health views show it."""

    name: str
    zone: str
    fresh: bool  # its life was heard lately: its votes count
    reading: Reading  # of itself: UNKNOWN when it cannot reach its own references
    age_s: float | None  # since its last sign of life; None when it never gave one
    detail: str


class Network:
    """All vantage points and what they see."""

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings
        self._vantages: dict[str, Vantage] = {}
        self._refuted: set[str] = set()
        self.refused = 0  # signals of vantage points beyond VANTAGES_MAX, or of no name

    def life(self, signal: Signal, now: float) -> None:
        """Take in a vantage point's sign of life: a signal whose subject is itself."""
        if signal.source != signal.subject.name:
            self.refused += 1  # nobody speaks for another
            return
        vantage = self._vantage(signal, now)
        if vantage is None or overtaken(signal.at, now, vantage.life_at, vantage.alive_at):
            return
        if signal.at == vantage.life_at and vantage.alive_at >= 0:
            return  # the same message again
        vantage.life_at, vantage.alive_at = signal.at, now
        vantage.reading, vantage.detail = signal.reading, signal.detail

    def sight(self, node: str, signal: Signal, now: float) -> bool:
        """Take in a reading of a node; True when it speaks against the node, and is news.

        Or takes such a word back. "Up" of a node that nobody doubts is no reason to look at it.
        """
        vantage = self._vantage(signal, now)
        if vantage is None:
            return False
        sight = vantage.sights.get(node)
        if sight is None:
            sight = vantage.sights[node] = Sight()
        elif signal.at == sight.at and signal.reading is sight.reading:
            return False  # the same message again
        elif overtaken(signal.at, now, sight.at, sight.arrived_at):
            return False
        was_down = sight.reading is Reading.DOWN
        is_down = signal.reading is Reading.DOWN
        news = was_down is not is_down or (is_down and not self._is_fresh(sight, now))
        if signal.reading is not sight.reading or not sight.since:
            sight.since = now
        sight.at, sight.arrived_at = signal.at, now
        sight.reading, sight.detail = signal.reading, signal.detail
        if signal.reading is Reading.DOWN:
            vantage.down.add(node)
        else:
            vantage.down.discard(node)
        if signal.reading is Reading.UP:
            self._refuted.discard(node)
        return news

    def value(self, node: str, now: float) -> str:
        """Return what the vantage points together say of a node: up, down or unknown.

        Up if any says so. Down if more than half of the zones with a fresh vantage point say so,
        and at least ``network_quorum`` vantage points.
        """
        votes = self._votes(node, now)
        if any(up for up, _, _ in votes.values()):
            return "up"
        agreed = sum(2 * down > up + down + none for up, down, none in votes.values())
        voices = sum(down for _, down, _ in votes.values())
        if 2 * agreed > len(votes) and voices >= self._settings.network_quorum:
            return "down"
        return "unknown"

    def doubted(self, node: str, now: float) -> bool:
        """Whether any fresh vantage point says down, be it not yet enough of them."""
        return any(down for _, down, _ in self._votes(node, now).values())

    def up_since(self, node: str, now: float) -> float | None:
        """Return since when some vantage point has reached a node without a break, if one does."""
        since = [
            vantage.sights[node].since
            for vantage in self._vantages.values()
            if self._is_alive(vantage, now) and self._vote(vantage, node, now) is Reading.UP
        ]
        return min(since, default=None)

    def renewed(self, node: str, at: float, heard_since: float, now: float) -> None:
        """Take in that a node renewed its lease at ``at``: who called it down before is refuted.

        Something is wrong with the probes of it, a firewall for one. Nobody who probes it is a
        witness against it from then on, until somebody has reached it again. A node that was silent
        in between (heard without a break only ``heard_since``) was down, as they said.
        """
        if not any(node in vantage.down for vantage in self._vantages.values()):
            return
        late_s = self._settings.contradiction_after_s  # for a renewal that was under way
        since = [
            vantage.sights[node].since
            for vantage in self._vantages.values()
            if self._is_alive(vantage, now) and self._vote(vantage, node, now) is Reading.DOWN
        ]
        if self.value(node, now) == "down" and heard_since < max(since) < at - late_s:
            self._refuted.add(node)

    def is_refuted(self, node: str) -> bool:
        """Whether a node renewed its lease while it was called down, and was not reached since."""
        return node in self._refuted

    def reached_after(self, node: str, at: float) -> bool:
        """Whether a vantage point told, later than ``at``, that a node answers."""
        return any(
            sight.reading is Reading.UP and sight.arrived_at > at
            for vantage in self._vantages.values()
            if (sight := vantage.sights.get(node)) is not None
        )

    def unreached(self, now: float) -> set[str]:
        """Return the nodes that the vantage points together say are down."""
        doubted = {
            node
            for vantage in self._vantages.values()
            if self._is_alive(vantage, now)
            for node in vantage.down
        }
        return {node for node in doubted if self.value(node, now) == "down"}

    def zones(self, node: str, now: float) -> tuple[ZoneVote, ...]:
        """Return what each zone with a fresh vantage point says of a node, by zone."""
        by_zone: dict[str, list[Vantage]] = defaultdict(list)
        for vantage in self._vantages.values():
            if self._is_alive(vantage, now):
                by_zone[vantage.zone].append(vantage)
        return tuple(self._zone_vote(zone, by_zone[zone], node, now) for zone in sorted(by_zone))

    def sights(self, node: str, now: float) -> tuple[SightView, ...]:
        """Return what every vantage point said last of a node, by name."""
        return tuple(
            SightView(
                vantage=vantage.name,
                zone=vantage.zone,
                reading=sight.reading,
                votes=self._is_alive(vantage, now)
                and self._vote(vantage, node, now) is not Reading.UNKNOWN,
                age_s=round(max(0.0, now - sight.arrived_at), 3),
                since_s=round(max(0.0, now - sight.since), 3),
                detail=sight.detail,
            )
            for _, vantage in sorted(self._vantages.items())
            if (sight := vantage.sights.get(node)) is not None
        )

    def vantages(self, now: float) -> tuple[VantageView, ...]:
        """Return every vantage point that is known, by name."""
        return tuple(
            VantageView(
                name=vantage.name,
                zone=vantage.zone,
                fresh=self._is_alive(vantage, now),
                reading=vantage.reading,
                age_s=round(now - vantage.alive_at, 3) if vantage.alive_at >= 0 else None,
                detail=vantage.detail,
            )
            for _, vantage in sorted(self._vantages.items())
        )

    def forget(self, node: str) -> None:
        """Forget a deleted node."""
        self._refuted.discard(node)
        for vantage in self._vantages.values():
            vantage.sights.pop(node, None)
            vantage.down.discard(node)

    def forget_gone(self, now: float) -> None:
        """Forget the vantage points that have not been heard for a minute."""
        for name, vantage in list(self._vantages.items()):
            if now - vantage.heard_at > FORGET_AFTER_S:
                del self._vantages[name]

    def _vantage(self, signal: Signal, now: float) -> Vantage | None:
        vantage = self._vantages.get(signal.source)
        if vantage is None:
            if not signal.source or len(self._vantages) >= VANTAGES_MAX:
                self.refused += 1
                return None
            vantage = self._vantages[signal.source] = Vantage(signal.source, now)
        vantage.heard_at = now
        vantage.zone = signal.zone
        return vantage

    def _is_alive(self, vantage: Vantage, now: float) -> bool:
        return now - vantage.alive_at <= self._settings.vantage_fresh_s

    def _is_fresh(self, sight: Sight, now: float) -> bool:
        return now - sight.arrived_at <= self._settings.network_fresh_s

    def _vote(self, vantage: Vantage, node: str, now: float) -> Reading:
        """Return what a fresh vantage point says now; UNKNOWN is no vote."""
        sight = vantage.sights.get(node)
        if sight is None or not self._is_fresh(sight, now):
            return Reading.UNKNOWN
        if sight.reading is Reading.DOWN and vantage.reading is not Reading.UP:
            return Reading.UNKNOWN  # it cannot reach its own references either
        return sight.reading

    def _votes(self, node: str, now: float) -> dict[str, tuple[int, int, int]]:
        """Return per zone with a fresh vantage point how many say up, down, and nothing."""
        votes: dict[str, tuple[int, int, int]] = {}
        for vantage in self._vantages.values():
            if not self._is_alive(vantage, now):
                continue
            up, down, none = votes.get(vantage.zone, (0, 0, 0))
            match self._vote(vantage, node, now):
                case Reading.UP:
                    votes[vantage.zone] = (up + 1, down, none)
                case Reading.DOWN:
                    votes[vantage.zone] = (up, down + 1, none)
                case _:
                    votes[vantage.zone] = (up, down, none + 1)
        return votes

    def _zone_vote(self, zone: str, here: list[Vantage], node: str, now: float) -> ZoneVote:
        said = {vantage: self._vote(vantage, node, now) for vantage in here}
        count = Counter(said.values())
        up, down = count[Reading.UP], count[Reading.DOWN]
        value = "up" if up else "down" if 2 * down > len(here) else "unknown"
        deciding = [
            v.sights[node].since for v in here if said[v].value == value and node in v.sights
        ]
        return ZoneVote(
            zone=zone,
            value=value,
            up=up,
            down=down,
            no_vote=count[Reading.UNKNOWN],
            since_s=round(now - max(deciding), 3) if deciding else 0.0,
            detail="; ".join(
                _says(vantage, said[vantage], node)
                for vantage in sorted(here, key=lambda each: each.name)
            ),
        )


def _says(vantage: Vantage, vote: Reading, node: str) -> str:
    sight = vantage.sights.get(node)
    if vote is Reading.UNKNOWN:
        if vantage.reading is not Reading.UP:
            return f"{vantage.name} cannot reach its own references"
        if sight is None or sight.reading is not Reading.UNKNOWN:
            return f"{vantage.name} has said nothing lately"
    detail = f" ({sight.detail})" if sight is not None and sight.detail else ""
    return f"{vantage.name} says {vote}{detail}"
