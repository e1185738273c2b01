"""What is taken of each node, kept up as pods come and go, so that nothing is summed up anew."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TypeVar

import msgspec

from remediator.engine.model import NodeUseFacts, PodFacts
from remediator.engine.pod_rules import NO_NEEDS, PodNeeds, PodRules, PodTerm

K = TypeVar("K")

Key = tuple[str, str]  # (namespace, name)

_ENDED = frozenset({"Succeeded", "Failed"})
_KEPT_MAX = 20_000  # distinct needs that are kept once; sizes of VMs repeat, odd ones may pile up


class Use(msgspec.Struct):
    """What is taken of one node."""

    cpu_m: int = 0
    memory: int = 0
    pods: int = 0
    extra: dict[str, int] | None = None

    def take(self, needs: PodNeeds, sign: int = 1) -> None:
        """Take (or, with -1, give back) what one pod needs."""
        self.cpu_m += sign * needs.cpu_m
        self.memory += sign * needs.memory
        self.pods += sign
        if needs.extra:
            extra = self.extra if self.extra is not None else {}
            for name, amount in needs.extra:
                extra[name] = extra.get(name, 0) + sign * amount
            self.extra = extra


class Rooms:
    """Sums per node, pods without a node, and the affinities by which pods bear on each other.

    A pod that has ended takes nothing. Equal needs are kept once. ``edition`` changes whenever
    something that is the same for all VMs may have changed: a node.
    """

    def __init__(self) -> None:
        self.edition = 0
        self.table: object = None  # what placement made of the nodes at some edition
        self.launchers: dict[str, Use] = defaultdict(Use)  # by node
        self.others: dict[str, NodeUseFacts] = {}  # by node
        self.booting: Counter[str] = Counter()  # node -> launchers that are bound and do not run
        self.unbound: dict[Key, PodFacts] = {}  # launchers without a node
        self.pods_in: dict[str, dict[Key, PodFacts]] = defaultdict(dict)  # by namespace
        # bound launchers by namespace and one of the labels that are told of them
        self.labelled: dict[tuple[str, str, str], dict[Key, PodFacts]] = defaultdict(dict)
        self.groups: dict[str, Counter[str]] = defaultdict(Counter)  # group -> node -> pods
        # required anti-affinity of bound pods: (term, its namespace) -> node -> pods
        self.repelling: dict[tuple[PodTerm, str], Counter[str]] = defaultdict(Counter)
        self.last: dict[Key, PodFacts] = {}  # the newest launcher of each VM, also one that is gone
        self._kept: dict[PodNeeds, PodNeeds] = {}
        self._rules: dict[PodRules, PodRules] = {}

    def shared(self, needs: PodNeeds) -> PodNeeds:
        """Return the one copy of these needs, whose rules are the one copy of theirs."""
        found = self._kept.get(needs)
        if found is None:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
                self._rules.clear()
            rules = self._rules.setdefault(needs.rules, needs.rules)
            found = msgspec.structs.replace(needs, rules=rules)
            self._kept[found] = found
        return found

    def sharing(self, pod: PodFacts) -> PodFacts:
        """Return the pod with the one copy of its needs: each came with a copy of its own."""
        if pod.needs is None:
            return pod
        needs = self.shared(pod.needs)
        return pod if needs is pod.needs else msgspec.structs.replace(pod, needs=needs)

    def needs_of(self, pod: PodFacts) -> PodNeeds:
        """Return what a pod needs; nothing where that is not known."""
        return self.shared(pod.needs) if pod.needs is not None else NO_NEEDS

    def put_pod(self, pod: PodFacts) -> None:
        """Count a pod."""
        if pod.vmi:
            self.last[(pod.namespace, pod.vmi)] = pod
        if pod.phase in _ENDED:
            return
        key = (pod.namespace, pod.name)
        if not pod.node:
            self.unbound[key] = pod
            return
        self.pods_in[pod.namespace][key] = pod
        for label in pod.labels.items():
            self.labelled[(pod.namespace, *label)][key] = pod
        self._count(pod, 1)

    def drop_pod(self, pod: PodFacts) -> None:
        """Count a pod no more; ``pod`` is what was put."""
        if pod.phase in _ENDED:
            return
        key = (pod.namespace, pod.name)
        if not pod.node:
            self.unbound.pop(key, None)
            return
        _unlist(self.pods_in, pod.namespace, key)
        for label in pod.labels.items():
            _unlist(self.labelled, (pod.namespace, *label), key)
        self._count(pod, -1)

    def put_use(self, use: NodeUseFacts) -> NodeUseFacts | None:
        """Take in what other pods take of a node; return what was known of it before."""
        old = self.others.get(use.name)
        self.others[use.name] = use
        return old

    def drop_use(self, node: str) -> NodeUseFacts | None:
        """Forget what other pods take of a node; return it."""
        return self.others.pop(node, None)

    def forget(self, vm: Key) -> None:
        """Forget the last launcher of a VM that is gone."""
        self.last.pop(vm, None)

    def _count(self, pod: PodFacts, sign: int) -> None:
        needs = self.needs_of(pod)
        self.launchers[pod.node].take(needs, sign)
        if pod.phase == "Pending":
            self.booting[pod.node] += sign
        if pod.group:
            self.groups[pod.group][pod.node] += sign
        for term in needs.rules.anti_affinity:
            counted = self.repelling[(term, pod.namespace)]
            counted[pod.node] += sign
            if not counted[pod.node]:
                del counted[pod.node]
            if not counted:
                del self.repelling[(term, pod.namespace)]


def _unlist(table: dict[K, dict[Key, PodFacts]], where: K, key: Key) -> None:
    found = table[where]
    found.pop(key, None)
    if not found:
        del table[where]
