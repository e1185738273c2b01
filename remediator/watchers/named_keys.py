"""Labels that somebody's rules ask for, and no others: nodes have hundreds, placement reads a few.

Pods name them in selectors, affinities and spread, volumes in their node affinity. A key that is
named for the first time is told of all that carry it; none is ever taken back, until the process
ends. Known on followers, too: whoever becomes leader knows them by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from remediator.engine.model import FactKind, PodFacts, VolumeFacts
from remediator.engine.pod_rules import HOSTNAME, REGION, ZONE, NodeTerm, PodRules
from remediator.kube.objects import PersistentVolume, Pod
from remediator.watchers.facts import FactsSink, same_pod
from remediator.watchers.narrow import pod_facts, volume_facts
from remediator.watchers.outlet import Outlet

log = structlog.get_logger(__name__)

# Named by every launcher, or by people soon: told from the start.
ALWAYS: Final = frozenset({HOSTNAME, ZONE, REGION, "kubernetes.io/arch", "kubevirt.io/schedulable"})
# Rules of all VMs together name a few dozen; each told costs its place in every node's facts.
KEYS_MAX: Final = 2048

Grown = Callable[[frozenset[str]], None]


class NamedKeys:
    """The keys named so far; ``on_node_keys`` and ``on_pod_keys`` hear of new ones."""

    def __init__(self, on_node_keys: Grown, on_pod_keys: Grown) -> None:
        self.of_nodes: frozenset[str] = ALWAYS
        self.of_pods: frozenset[str] = frozenset()
        self._on_node_keys = on_node_keys
        self._on_pod_keys = on_pod_keys
        self._met: set[PodRules] = set()
        self._full = False

    def rules(self, rules: PodRules) -> None:
        """Note the keys of a pod's rules."""
        if rules in self._met:
            return
        if len(self._met) >= KEYS_MAX:
            self._met.clear()
        self._met.add(rules)
        self._nodes(rules.node_keys)
        more = self._room_for(rules.pod_keys - self.of_pods, len(self.of_pods))
        if more:
            self.of_pods |= more
            self._on_pod_keys(more)

    def terms(self, terms: Iterable[NodeTerm]) -> None:
        """Note the keys of a volume's node affinity."""
        self._nodes(frozenset(each.key for term in terms for each in term.labels))

    def _nodes(self, keys: frozenset[str]) -> None:
        more = self._room_for(keys - self.of_nodes, len(self.of_nodes))
        if more:
            self.of_nodes |= more
            self._on_node_keys(more)

    def _room_for(self, more: frozenset[str], known: int) -> frozenset[str]:
        if known + len(more) <= KEYS_MAX:
            return more
        if not self._full:
            self._full = True
            log.warning("named_labels_full", max=KEYS_MAX, left_out=sorted(more)[:5])
        return frozenset()


class PodSink(FactsSink[Pod, PodFacts]):
    """Launcher pods, and the labels that their rules name."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(FactKind.POD, self._pod_facts, outlet, same=same_pod)
        self._out = outlet
        self._label_keys: tuple[str, ...] = ()
        self.keys: NamedKeys | None = None

    def seen(self, obj: Pod, old: Pod | None, *, initial: bool) -> None:
        """Publish the pod if a fact changed; note what it names."""
        if self.keys is not None and obj.needs is not None:
            self.keys.rules(obj.needs.rules)
        super().seen(obj, old, initial=initial)

    def select_labels(self, keys: frozenset[str], pods: Iterable[Pod]) -> None:
        """Tell these labels from now on, and of these pods once more, those that have them."""
        more = keys.difference(self._label_keys)
        self._label_keys = tuple(sorted(keys))
        if not self._out.is_open:
            return
        for pod in pods:
            if any(pod.label(key) is not None for key in more):
                version = f"{pod.resource_version}:{len(self._label_keys)}"
                self._out.facts(self._pod_facts(pod), version)

    def _pod_facts(self, pod: Pod) -> PodFacts:
        return pod_facts(pod, self._label_keys)


class VolumeSink(FactsSink[PersistentVolume, VolumeFacts]):
    """Volumes, and the labels that their node affinity names."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(FactKind.VOLUME, volume_facts, outlet)
        self.keys: NamedKeys | None = None

    def seen(self, obj: PersistentVolume, old: PersistentVolume | None, *, initial: bool) -> None:
        """Publish the volume if a fact changed; note what it names."""
        if self.keys is not None:
            self.keys.terms(obj.node_terms or ())
        super().seen(obj, old, initial=initial)
