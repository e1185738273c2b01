"""The nodes of one picture, which of them each set of rules allows, and what each has left."""

from __future__ import annotations

from collections import Counter

from remediator.engine.inventory import Inventory
from remediator.engine.placement_filters import Place, static_refusal
from remediator.engine.pod_rules import NodeRules, PodNeeds, PodRules, node_rules

_KEPT_SHAPES = 4096


class PlaceTable:
    """The nodes of one picture, and which of them each set of rules allows."""

    def __init__(self, inventory: Inventory) -> None:
        self.edition = inventory.rooms.edition
        nodes = inventory.nodes
        self.places = [Place(nodes[name]) for name in sorted(nodes)]
        self.by_name = {place.name: place for place in self.places}
        self._allowed: dict[NodeRules, tuple[list[Place], Counter[str]]] = {}

    def allowed(self, rules: PodRules) -> tuple[list[Place], Counter[str]]:
        """Return the nodes that these rules allow by themselves, and how many each one refuses."""
        key = node_rules(rules)
        found = self._allowed.get(key)
        if found is None:
            if len(self._allowed) >= _KEPT_SHAPES:
                self._allowed.clear()
            places: list[Place] = []
            refused: Counter[str] = Counter()
            for place in self.places:
                word = static_refusal(rules, place)
                if word:
                    refused[word] += 1
                else:
                    places.append(place)
            found = self._allowed[key] = places, refused
        return found


def table_of(inventory: Inventory) -> PlaceTable:
    """Return the table of the nodes as they are now; the last one serves while no node changes."""
    rooms = inventory.rooms
    table = rooms.table
    if not isinstance(table, PlaceTable) or table.edition != rooms.edition:
        table = rooms.table = PlaceTable(inventory)
    return table


class NodeRoom:
    """What one node still has in a plan. A total of 0 is one not told by its kubelet: no limit."""

    __slots__ = ("boots", "cpu", "cpu_total", "extra", "memory", "memory_total", "pods")

    def __init__(self, inventory: Inventory, place: Place) -> None:
        facts, rooms = place.facts, inventory.rooms
        use = rooms.launchers.get(place.name)
        others = rooms.others.get(place.name)
        self.cpu_total, self.memory_total = facts.cpu_m, facts.memory
        self.cpu = facts.cpu_m
        self.memory = facts.memory
        self.pods: float = facts.pods or float("inf")
        self.extra = dict(facts.extra)
        self.boots = rooms.booting[place.name]
        for each in (use, others):
            if each is not None:
                self.cpu -= each.cpu_m
                self.memory -= each.memory
                self.pods -= each.pods
                for name, amount in (each.extra or {}).items():
                    self.extra[name] = self.extra.get(name, 0) - amount

    def lacks(self, needs: PodNeeds) -> str:
        """Return what there is too little of, or ""."""
        if self.pods < 1:
            return "pods"
        if self.memory_total and needs.memory and needs.memory > self.memory:
            return "memory"
        if self.cpu_total and needs.cpu_m and needs.cpu_m > self.cpu:
            return "cpu"
        for name, amount in needs.extra:
            if self.cpu_total and amount and amount > self.extra.get(name, 0):
                return name
        return ""

    def left(self, needs: PodNeeds) -> float:
        """Return the smaller share of CPU and memory that is left with this VM there."""
        share = 1.0
        if self.cpu_total:
            share = (self.cpu - needs.cpu_m) / self.cpu_total
        if self.memory_total:
            share = min(share, (self.memory - needs.memory) / self.memory_total)
        return max(0.0, share)

    def take(self, needs: PodNeeds) -> None:
        """Promise room to a VM that boots here."""
        self.cpu -= needs.cpu_m
        self.memory -= needs.memory
        self.pods -= 1
        for name, amount in needs.extra:
            self.extra[name] = self.extra.get(name, 0) - amount
        self.boots += 1
