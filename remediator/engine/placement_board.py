"""One plan of placements: what each node still has, as one VM after the other is promised a place.

A promise only ever takes: room falls, boots and copies grow, anti-affinity forbids more. So what is
best for a kind of VM is kept in a heap, and an entry that has become worse is corrected when it
comes to the top; a node that does not fit any more never does again. Only pod affinity and spread
may allow what they forbade before: VMs that have them look at every node.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from remediator.engine.inventory import Inventory
from remediator.engine.locality import Kind, Locality
from remediator.engine.model import Subject
from remediator.engine.placement_filters import (
    Place,
    any_term_holds,
)
from remediator.engine.placement_neighbours import Neighbours
from remediator.engine.placement_scores import (
    FAR,
    near_all,
    points,
    replicated,
)
from remediator.engine.placement_table import NodeRoom, PlaceTable
from remediator.engine.pod_rules import (
    NO_NEEDS,
    NodeTerm,
    PodNeeds,
    node_rules,
)

NO_NODE = ""


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A VM that needs a place, and all that bears on where it may be."""

    vm: Subject
    needs: PodNeeds = NO_NEEDS
    labels: Mapping[str, str] = {}
    group: str = ""
    zone: str = ""  # where it was
    disks: tuple[Locality, ...] = ()
    away: frozenset[str] = frozenset()  # nodes that it must not go to


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the board found: a node (or none), by which step and points, and who was refused why."""

    node: str
    step: int = FAR
    points: float = 0.0
    room_left: float = 0.0
    copies: int = 0
    boots: int = 0
    local: tuple[str, ...] = ()  # nodes with a replica of every disk that would do, too
    refused: Mapping[str, int] = {}  # by filter, how many nodes; complete where no node was found


_Sifted = tuple[dict[str, Place], Mapping[str, int]]
_Heap = list[tuple[float, str]]


class _Shape:
    """What VMs have in common that may share one ranking of the nodes."""

    __slots__ = ("heaps", "places", "refused", "want")

    def __init__(self, want: Want, sifted: _Sifted) -> None:
        self.want = want
        self.places, self.refused = sifted
        self.heaps: dict[frozenset[str] | None, _Heap] = {}


class Board:
    """``unable``: nodes that take nobody now, and why. ``lost``: nodes whose pods are over."""

    def __init__(
        self,
        inventory: Inventory,
        table: PlaceTable,
        *,
        unable: Mapping[str, str],
        lost: frozenset[str] = frozenset(),
    ) -> None:
        self._inventory = inventory
        self._table = table
        self._unable = unable
        self._lost = lost
        self._rooms: dict[str, NodeRoom] = {}
        self._shapes: dict[tuple[object, ...], _Shape] = {}
        self._sifted: dict[tuple[object, ...], _Sifted] = {}
        # size and zone -> points of the nodes, and how many promises they know of
        self._ratings: dict[tuple[int, int, str], tuple[dict[str, float], int]] = {}
        self._promised: list[str] = []  # nodes, in the order of the promises
        self._near = Neighbours(inventory, table.by_name, lost)

    def place(self, want: Want) -> Choice:
        """Return the best node for a VM, and promise it; no node where none will do."""
        shape = self._shape(want)
        disks = self._disks(want)
        alive = [(disk, zones) for disk, zones in disks if not self._only_on_lost(disk)]
        if len(alive) < len(disks):
            return Choice(node=NO_NODE, refused={"its data": len(self._table.places)})
        found: tuple[float, str] | None = None
        local: list[str] = []
        if disks:
            names = set.intersection(*({*disk.nodes} for disk, _ in disks))
            ranked = self._scan(shape, sorted(names))
            local = [name for _, name in ranked]
            found = ranked[0] if ranked else None
            zones = frozenset.intersection(*(zones for _, zones in disks))
            if found is None and zones:
                found = self._best(shape, zones)
        if found is None:
            found = self._best(shape, None)
        if found is None:
            return Choice(node=NO_NODE, refused=self._refusals(shape))
        return self._promise(shape, want, found, disks, local)

    def allows(self, want: Want, node: str) -> bool:
        """Whether a node would take a VM, as the board stands now."""
        shape = self._shape(want)
        place = shape.places.get(node)
        return place is not None and not self._refusal(want, place)

    def rate(self, want: Want, node: str) -> tuple[int, float]:
        """Return a node's step of the disks and its points for a VM, as the board stands now."""
        place = self._table.by_name[node]
        return near_all(tuple(self._disks(want)), place), self._points(want, place)

    def _disks(self, want: Want) -> list[tuple[Locality, frozenset[str]]]:
        """Return the disks whose place matters, each with the zones of its replicas."""
        return [
            (disk, frozenset(self._zone(node) for node in disk.nodes) - {""})
            for disk in replicated(want.disks)
        ]

    def _shape(self, want: Want) -> _Shape:
        terms = tuple(disk.terms for disk in want.disks if disk.terms is not None)
        key = (
            want.needs,
            want.vm.namespace,
            tuple(sorted(want.labels.items())),
            want.group,
            want.zone,
            want.away,
            terms,
        )
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = _Shape(want, self._sift(want, terms))
        return found

    def _sift(self, want: Want, terms: tuple[tuple[NodeTerm, ...], ...]) -> _Sifted:
        """Return the nodes that nothing forbids by itself, and how many each filter refuses."""
        key = (node_rules(want.needs.rules), want.away, terms)
        found = self._sifted.get(key)
        if found is not None:
            return found
        places, refused_before = self._table.allowed(want.needs.rules)
        refused = Counter(refused_before)
        kept: dict[str, Place] = {}
        for place in places:
            if place.name in self._unable:
                refused[self._unable[place.name]] += 1
            elif place.name in want.away:
                refused["ruled out"] += 1
            elif not all(any_term_holds(each, place) for each in terms):
                refused["volume's node affinity"] += 1
            else:
                kept[place.name] = place
        self._sifted[key] = kept, refused
        return kept, refused

    def _only_on_lost(self, disk: Locality) -> bool:
        """Whether every replica is on a node that is lost. Who is no node here, is not judged."""
        return disk.kind is Kind.REPLICATED and all(node in self._lost for node in disk.nodes)

    def _zone(self, node: str) -> str:
        place = self._table.by_name.get(node)
        return place.zone if place is not None else ""

    def _room(self, place: Place) -> NodeRoom:
        room = self._rooms.get(place.name)
        if room is None:
            room = self._rooms[place.name] = NodeRoom(self._inventory, place)
        return room

    def _refusal(self, want: Want, place: Place) -> str:
        """Return what forbids this node now, beyond what the shape has sifted out, or ""."""
        lacking = self._room(place).lacks(want.needs)
        if lacking:
            return lacking
        return self._near.forbids(want.vm.namespace, want.labels, want.needs.rules, place)

    def _points(self, want: Want, place: Place) -> float:
        room = self._room(place)
        copies, in_zone = self._near.copies(want.group, place)
        return points(
            same_zone=bool(want.zone) and place.zone == want.zone,
            room_left=room.left(want.needs),
            copies_on_node=copies,
            copies_in_zone=in_zone,
            boots=room.boots,
        )

    def _scan(self, shape: _Shape, names: Iterable[str]) -> _Heap:
        """Rank those of these nodes that would do now, the best first."""
        places = (shape.places.get(name) for name in names)
        return sorted(
            (-self._points(shape.want, place), place.name)
            for place in places
            if place is not None and not self._refusal(shape.want, place)
        )

    def _best(self, shape: _Shape, zones: frozenset[str] | None) -> tuple[float, str] | None:
        """Return the best node of a shape now, of some zones or of all."""
        want, places = shape.want, shape.places
        if want.needs.rules.affinity or want.needs.rules.spread:
            names = [p.name for p in places.values() if zones is None or p.zone in zones]
            ranked = self._scan(shape, names)
            return ranked[0] if ranked else None
        heap = shape.heaps.get(zones)
        if heap is None:
            rated = self._rated(want)
            heap = shape.heaps[zones] = [
                (rated[name], name)
                for name, place in places.items()
                if zones is None or place.zone in zones
            ]
            heapq.heapify(heap)
        while heap:
            known, name = heap[0]
            now = -self._points(want, places[name])
            if now != known:
                heapq.heapreplace(heap, (now, name))
            elif self._refusal(want, places[name]):
                heapq.heappop(heap)
            else:
                return known, name
        return None

    def _rated(self, want: Want) -> dict[str, float]:
        """Return the points of all nodes, negative, by what is the same for VMs of one size.

        Copies of the application are left out: they only take, so that these are bounds, as a heap
        of ours may hold them. Kept, and corrected where something was promised since.
        """
        key = (want.needs.cpu_m, want.needs.memory, want.zone)
        alone = msgspec.structs.replace(want, group="")
        found = self._ratings.get(key)
        if found is None:
            rated = {p.name: -self._points(alone, p) for p in self._table.places}
        else:
            rated, known = found
            for name in dict.fromkeys(self._promised[known:]):
                rated[name] = -self._points(alone, self._table.by_name[name])
        self._ratings[key] = rated, len(self._promised)
        return rated

    def _promise(
        self,
        shape: _Shape,
        want: Want,
        found: tuple[float, str],
        disks: list[tuple[Locality, frozenset[str]]],
        local: list[str],
    ) -> Choice:
        place = self._table.by_name[found[1]]
        room = self._room(place)
        copies, _ = self._near.copies(want.group, place)
        choice = Choice(
            node=place.name,
            step=near_all(tuple(disks), place) if disks else FAR,
            points=round(-found[0], 3),
            room_left=round(room.left(want.needs), 4),
            copies=copies,
            boots=room.boots,
            local=tuple(name for name in local if name != place.name)[:2],
            refused=dict(shape.refused),
        )
        room.take(want.needs)
        self._promised.append(place.name)
        rules = want.needs.rules
        self._near.add(want.vm.namespace, want.labels, want.group, rules, place)
        return choice

    def _refusals(self, shape: _Shape) -> dict[str, int]:
        refused = Counter(shape.refused)
        for place in shape.places.values():
            word = self._refusal(shape.want, place)
            if word:
                refused[word] += 1
        return dict(refused)
