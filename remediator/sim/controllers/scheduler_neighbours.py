"""Rules about other pods: affinity, anti-affinity (also theirs against ours), topology spread.

As k8s plugins InterPodAffinity and PodTopologySpread filter: for one pod the domains are counted
once, then each node is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from remediator.sim.controllers.metadata import Obj, key_of, labels_of
from remediator.sim.controllers.node_affinity import (
    node_selected,
    required_affinity,
    required_anti_affinity,
    selector_matches,
)

_Domain = tuple[str, str]  # topology key, value

NamespaceLabels = Callable[[str], dict[str, str]]


def term_means(term: Obj, home: str, pod: Obj, namespace_labels: NamespaceLabels) -> bool:
    """Return True when a PodAffinityTerm of a pod in namespace ``home`` means ``pod``."""
    namespace = key_of(pod)[0]
    named = term.get("namespaces") or []
    chosen = term.get("namespaceSelector")
    if chosen is None:
        inside = namespace in (named or [home])
    else:
        inside = namespace in named or selector_matches(chosen, namespace_labels(namespace))
    return inside and selector_matches(term.get("labelSelector"), labels_of(pod))


class Neighbours:
    """All that bears on one pod from where others are."""

    def __init__(
        self,
        pod: Obj,
        placed: Iterable[tuple[Obj, Collection[Obj]]],
        averse: Iterable[tuple[Obj, Obj]],
        namespace_labels: NamespaceLabels,
    ) -> None:
        """``placed``: each node with its pods. ``averse``: pods with anti-affinity, their nodes."""
        self._pod = pod
        self._means = namespace_labels
        self._home = key_of(pod)[0]
        self._anti = required_anti_affinity(pod)
        self._affine = required_affinity(pod)
        spec = pod["spec"]
        self._spread = [
            each
            for each in spec.get("topologySpreadConstraints") or ()
            if each.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
        ]
        self._hated: set[_Domain] = set()  # domains where somebody wants no pod like this one
        self._disliked: set[_Domain] = set()  # where this one wants not to be
        self._friends: Counter[_Domain] = Counter()
        self._spread_counts: list[Counter[str]] = [Counter() for _ in self._spread]
        for other, node in averse:
            self._count_averse(other, node)
        if self._anti or self._affine or self._spread:
            for node, pods in placed:
                self._count(node, pods)

    def _count_averse(self, other: Obj, node: Obj) -> None:
        for term in required_anti_affinity(other):
            value = labels_of(node).get(term["topologyKey"])
            if value is not None and term_means(term, key_of(other)[0], self._pod, self._means):
                self._hated.add((term["topologyKey"], value))

    def _count(self, node: Obj, pods: Collection[Obj]) -> None:
        labels = labels_of(node)
        for pod in pods:
            for term in self._anti:
                value = labels.get(term["topologyKey"])
                if value is not None and term_means(term, self._home, pod, self._means):
                    self._disliked.add((term["topologyKey"], value))
            if self._affine and all(
                term_means(term, self._home, pod, self._means) for term in self._affine
            ):
                for term in self._affine:
                    value = labels.get(term["topologyKey"])
                    if value is not None:
                        self._friends[(term["topologyKey"], value)] += 1
        if not self._spread or not node_selected(self._pod, node):
            return
        if any(each["topologyKey"] not in labels for each in self._spread):
            return
        for each, counted in zip(self._spread, self._spread_counts, strict=True):
            counted[labels[each["topologyKey"]]] += sum(
                1
                for pod in pods
                if key_of(pod)[0] == self._home
                and selector_matches(each.get("labelSelector"), labels_of(pod))
            )

    def why_not(self, node: Obj) -> str | None:
        """Return the reason why the pod cannot go to this node, None when it can."""
        labels = labels_of(node)
        domains = set(labels.items())
        if domains & self._hated:
            return "node(s) didn't satisfy existing pods anti-affinity rules"
        if domains & self._disliked:
            return "node(s) didn't match pod anti-affinity rules"
        if self._affine and not self._with_friends(labels):
            return "node(s) didn't match pod affinity rules"
        for each, counted in zip(self._spread, self._spread_counts, strict=True):
            value = labels.get(each["topologyKey"])
            if value is None or value not in counted:
                return "node(s) didn't match pod topology spread constraints (missing label)"
            itself = selector_matches(each.get("labelSelector"), labels_of(self._pod))
            least = min(counted.values(), default=0)
            if len(counted) < (each.get("minDomains") or 1):
                least = 0
            if counted[value] + int(itself) - least > each["maxSkew"]:
                return "node(s) didn't match pod topology spread constraints"
        return None

    def _with_friends(self, labels: dict[str, str]) -> bool:
        keys = [term["topologyKey"] for term in self._affine]
        if any(key not in labels for key in keys):
            return False
        if all(self._friends[(key, labels[key])] for key in keys):
            return True
        # The first of a series of pods that want to be together.
        return not self._friends and all(
            term_means(term, self._home, self._pod, self._means) for term in self._affine
        )
