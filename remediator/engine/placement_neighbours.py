"""Which pods are where, as far as affinities, spread and copies of one application ask.

Counted by node, for terms that somebody asked about, and kept up as the plan grows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from remediator.engine.inventory import Inventory
from remediator.engine.placement_filters import Place, selected, selects
from remediator.engine.pod_rules import PodRules, PodTerm, Spread, handle

_Pod = tuple[str, Mapping[str, str], Place]  # namespace, labels, where it is
_Home = tuple[PodTerm, str]  # a term, and the namespace of the pod that has it


class _Terms:
    """Terms, found by the pods that they may mean: by namespace and by one label."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[_Home]] = defaultdict(list)

    def put(self, home: _Home) -> None:
        term, namespace = home
        for meant in ("*",) if term.everywhere else (term.namespaces or (namespace,)):
            self._found[(meant, *handle(term.selector))].append(home)

    def may_mean(self, namespace: str, labels: Mapping[str, str]) -> Iterator[_Home]:
        """Yield the terms that might mean a pod; whether they do is still to be asked."""
        if not self._found:
            return
        for where in (namespace, "*"):
            yield from self._found.get((where, "", ""), ())
            for key, value in labels.items():
                yield from self._found.get((where, key, value), ())


class Neighbours:
    """Answers for one plan. Pods on ``lost`` nodes are over: they keep nobody away."""

    def __init__(
        self, inventory: Inventory, places: Mapping[str, Place], lost: frozenset[str]
    ) -> None:
        self._rooms = inventory.rooms
        self._places = places
        self._lost = lost
        # term -> topology value -> pods that it means
        self._met: dict[_Home, Counter[str]] = {}
        # the terms of an affinity together -> node -> pods that all of them mean
        self._wanted: dict[tuple[tuple[PodTerm, ...], str], Counter[str]] = {}
        self._repelled: dict[_Home, Counter[str]] = {}  # of pods that are there: their own terms
        self._repelling = _Terms()
        self._asked = _Terms()  # the keys of ``_met``
        self._copies: dict[str, Counter[str]] = {}
        self._copies_in: dict[str, Counter[str]] = {}
        # What was promised so far, under each of its labels and under none: terms that are asked
        # about for the first time late in a plan count them, too.
        self._promised: dict[tuple[str, str], list[_Pod]] = defaultdict(list)
        self._promised_of: dict[str, list[Place]] = defaultdict(list)  # by group
        self._repel_at_start()

    def forbids(
        self, namespace: str, labels: Mapping[str, str], rules: PodRules, place: Place
    ) -> str:
        """Return which rule about other pods forbids this node, or ""."""
        for term in rules.anti_affinity:
            value = place.labels.get(term.topology_key)
            if value is not None and self._meets((term, namespace))[value] > 0:
                return "anti-affinity"
        if self._is_repelled(namespace, labels, place):
            return "anti-affinity of others"
        if rules.affinity and not self._affine(namespace, rules, place):
            return "pod affinity"
        for spread in rules.spread:
            if not self._spreads(namespace, labels, rules, spread, place):
                return "topology spread"
        return ""

    def add(
        self,
        namespace: str,
        labels: Mapping[str, str],
        group: str,
        rules: PodRules,
        place: Place,
    ) -> None:
        """Count a pod that goes to this node."""
        pod = (namespace, labels, place)
        self._promised[("", "")].append(pod)
        for label in labels.items():
            self._promised[label].append(pod)
        if group:
            self._promised_of[group].append(place)
        for home in self._asked.may_mean(namespace, labels):
            value = place.labels.get(home[0].topology_key)
            if value is not None and selects(home[0], home[1], namespace, labels):
                self._met[home][value] += 1
        for (terms, own), wanted in self._wanted.items():
            if all(selects(term, own, namespace, labels) for term in terms):
                wanted[place.name] += 1
        for term in rules.anti_affinity:
            self._repel((term, namespace), place, 1)
        if group in self._copies:
            self._copies[group][place.name] += 1
            self._copies_in[group][place.zone] += 1

    def copies(self, group: str, place: Place) -> tuple[int, int]:
        """Return how many copies of an application are on a node, and in its zone elsewhere."""
        if not group:
            return 0, 0
        self._load_copies(group)
        here = self._copies[group][place.name]
        in_zone = self._copies_in[group][place.zone] if place.zone else 0
        return here, in_zone

    def _load_copies(self, group: str) -> None:
        if group in self._copies:
            return
        counted = self._copies[group] = Counter()
        zones = self._copies_in[group] = Counter()
        for node, number in self._rooms.groups.get(group, {}).items():
            place = self._places.get(node)
            if place is not None and node not in self._lost:
                counted[node] += number
                zones[place.zone] += number
        for place in self._promised_of.get(group, ()):
            counted[place.name] += 1
            zones[place.zone] += 1

    def _repel_at_start(self) -> None:
        for home, nodes in self._rooms.repelling.items():
            for node, number in nodes.items():
                place = self._places.get(node)
                if place is not None and node not in self._lost:
                    self._repel(home, place, number)

    def _repel(self, home: _Home, place: Place, number: int) -> None:
        term = home[0]
        value = place.labels.get(term.topology_key)
        if value is None or term.none:
            return
        counted = self._repelled.get(home)
        if counted is None:
            counted = self._repelled[home] = Counter()
            self._repelling.put(home)
        counted[value] += number

    def _is_repelled(self, namespace: str, labels: Mapping[str, str], place: Place) -> bool:
        for home in self._repelling.may_mean(namespace, labels):
            value = place.labels.get(home[0].topology_key)
            if value is None or not self._repelled[home].get(value):
                continue
            if selects(home[0], home[1], namespace, labels):
                return True
        return False

    def _pods(self, term: PodTerm, home: str) -> Iterator[_Pod]:
        """Return namespace, labels and node of the pods in the namespaces that a term means."""
        rooms, label = self._rooms, handle(term.selector)
        names = list(rooms.pods_in) if term.everywhere else (term.namespaces or (home,))
        for name in names:
            pods = rooms.labelled.get((name, *label)) if label[0] else rooms.pods_in.get(name)
            for pod in (pods or {}).values():
                place = self._places.get(pod.node)
                if place is not None and pod.node not in self._lost:
                    yield name, pod.labels, place
        yield from self._promised.get(label, ())

    def _meets(self, home: _Home) -> Counter[str]:
        found = self._met.get(home)
        if found is None:
            found = self._met[home] = Counter()
            self._asked.put(home)
            term, namespace = home
            for where, labels, place in self._pods(term, namespace):
                value = place.labels.get(term.topology_key)
                if value is not None and selects(term, namespace, where, labels):
                    found[value] += 1
        return found

    def _on_nodes(self, terms: tuple[PodTerm, ...], home: str) -> Counter[str]:
        found = self._wanted.get((terms, home))
        if found is None:
            found = self._wanted[(terms, home)] = Counter()
            for where, labels, place in self._pods(terms[0], home):
                if all(selects(term, home, where, labels) for term in terms):
                    found[place.name] += 1
        return found

    def _affine(self, namespace: str, rules: PodRules, place: Place) -> bool:
        """Whether the pods that it wants beside it are there, or there are none anywhere."""
        terms = rules.affinity
        if any(term.topology_key not in place.labels for term in terms):
            return False
        nodes = self._on_nodes(terms, namespace)
        met = [self._places[node].labels for node, number in nodes.items() if number]
        if not any(term.topology_key in other for other in met for term in terms):
            # It is the first of a series that wants its own kind; or it wants pods that are no VMs,
            # and these are not looked at: then the scheduler judges.
            return True
        return all(
            any(other.get(term.topology_key) == place.labels[term.topology_key] for other in met)
            for term in terms
        )

    def _spreads(
        self,
        namespace: str,
        labels: Mapping[str, str],
        rules: PodRules,
        spread: Spread,
        place: Place,
    ) -> bool:
        value = place.labels.get(spread.topology_key)
        if value is None:
            return False
        term = PodTerm(topology_key=spread.topology_key, selector=spread.selector, none=spread.none)
        on_nodes = self._on_nodes((term,), namespace)
        counted: Counter[str] = Counter()
        keys = [each.topology_key for each in rules.spread]
        for each in self._places.values():
            if selected(rules, each) and all(key in each.labels for key in keys):
                counted[each.labels[spread.topology_key]] += on_nodes[each.name]
        least = min(counted.values(), default=0)
        if len(counted) < spread.min_domains:
            least = 0
        itself = 1 if selects(term, namespace, namespace, labels) else 0
        return counted[value] + itself - least <= spread.max_skew
