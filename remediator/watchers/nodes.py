"""The node watch: facts about nodes, their conditions, virt-handler's heartbeat.

The Ready condition is the kubelet plane's own word. The others that the settings name (by whoever
they are written: kubelet, node-problem-detector, …) are aspects of the same plane.

What proves its progress: any event and any bookmark. Nodes are written at least every 5 minutes by
their kubelets and every 60 to 132 s by virt-handler, and the API server sends a bookmark about once
a minute, so even an idle cluster's node watch shows a sign of life well within the 150 s that a
heartbeat may be late. No canary is written here: an object that other controllers act on is no
place for one, and the handler plane is a slow witness anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from remediator.clock import Clock
from remediator.engine.model import FactKind, NodeFacts, Plane, Reading, Signal, node_subject
from remediator.kube.metadata import condition_of
from remediator.kube.objects import Node, NodeCondition, parse_time
from remediator.watchers.facts import FactsSink
from remediator.watchers.narrow import node_facts
from remediator.watchers.outlet import Outlet, ProgressMark

HEARTBEAT: Final = "kubevirt.io/heartbeat"  # RFC 3339, written by the node's own clock
SOURCE: Final = "node watch"
WATCH: Final = "nodes"

_DETAIL_LIMIT: Final = 200


class NodeSink:
    """Publishes a Node's facts, and what it says on the planes ``kubelet`` and ``handler``.

    ``conditions``: which conditions besides Ready are told, and the status of each that is bad.
    """

    def __init__(
        self,
        outlet: Outlet,
        clock: Clock,
        label_keys: frozenset[str] = frozenset(),
        conditions: Mapping[str, str] | None = None,
    ) -> None:
        self._outlet = outlet
        self._clock = clock
        self._conditions = dict(conditions or {})
        self._label_keys = label_keys
        self._named: frozenset[str] = frozenset()  # by rules of pods and volumes
        self._facts = FactsSink(FactKind.NODE, self._narrow, outlet)
        self._mark = ProgressMark(WATCH, outlet, clock)

    def select_labels(self, keys: frozenset[str]) -> bool:
        """Tell these labels from now on; return whether they are others than before."""
        changed, self._label_keys = keys != self._label_keys, keys
        return changed

    def name_labels(self, keys: frozenset[str], nodes: Iterable[Node]) -> None:
        """Tell these labels, too, from now on, and of these nodes once more, if they have any."""
        more = keys - self._named - self._label_keys
        self._named = keys
        if not more or not self._outlet.is_open:
            return
        for node in nodes:
            if not more.isdisjoint(node.labels):
                self._outlet.facts(self._narrow(node), f"{node.resource_version}:{len(keys)}")

    def _narrow(self, node: Node) -> NodeFacts:
        return node_facts(node, label_keys=self._label_keys | self._named)

    def seen(self, obj: Node, old: Node | None, *, initial: bool) -> None:
        """Publish what changed."""
        if not self._outlet.is_open:
            return
        self._facts.seen(obj, old, initial=initial)
        if old is None or _ready(old) != _ready(obj):
            self._kubelet(obj, first=old is None)
        for kind in self._conditions:
            self._condition(kind, obj, old, first=old is None)
        if old is None or old.annotations.get(HEARTBEAT) != obj.annotations.get(HEARTBEAT):
            self._handler(obj, first=old is None)

    def gone(self, obj: Node) -> None:
        """Publish that the node's object is gone."""
        self._facts.gone(obj)

    def synced(self) -> None:
        """Publish that the first list is complete."""
        self._facts.synced()

    def progressed(self, at: float) -> None:
        """Publish the watch's progress, about once a second."""
        self._mark.note(at)

    def again(self, obj: Node) -> None:
        """Offer a known node once more; its heartbeat as found, of unknown age."""
        self._facts.again(obj)
        self._kubelet(obj, first=True)
        for kind in self._conditions:
            self._condition(kind, obj, None, first=True)
        self._handler(obj, first=True)

    def close(self) -> None:
        """Publish nothing more."""
        self._mark.close()

    def _kubelet(self, obj: Node, *, first: bool) -> None:
        status, detail = _ready(obj)
        reading = {"True": Reading.UP, "False": Reading.DOWN}.get(status, Reading.UNKNOWN)
        signal = self._signal(obj, Plane.KUBELET, reading, detail, first=first)
        self._outlet.signal(signal)

    def _condition(self, kind: str, obj: Node, old: Node | None, *, first: bool) -> None:
        """Tell a condition that came, changed its status, or went."""
        now = condition_of(obj.conditions, kind)
        before = condition_of(old.conditions, kind) if old is not None else None
        if (now.status if now else None) == (before.status if before else None):
            return
        reading, detail = self._read(kind, now)
        signal = self._signal(obj, Plane.KUBELET, reading, detail, first=first, aspect=kind)
        self._outlet.signal(signal)

    def _read(self, kind: str, condition: NodeCondition | None) -> tuple[Reading, str]:
        if condition is None:
            return Reading.UNKNOWN, f"no {kind} condition any more"
        said = " ".join(filter(None, (condition.reason, condition.message)))
        detail = f"{kind}={condition.status} {said}".strip()[:_DETAIL_LIMIT]
        if condition.status == self._conditions[kind]:
            return Reading.DOWN, detail
        # Of a node that is silent, Kubernetes calls what its kubelet reported Unknown.
        return Reading.UNKNOWN if condition.status == "Unknown" else Reading.UP, detail

    def _handler(self, obj: Node, *, first: bool) -> None:
        beat = obj.annotations.get(HEARTBEAT)
        if beat is None:
            return  # virt-handler never ran here, or its annotation was removed: that is no beat
        # The value is the node's clock: a change of it is the beat, what it says is not compared.
        if parse_time(beat) is not None:
            reading, detail = Reading.UP, ""
        else:
            reading, detail = Reading.UNKNOWN, f"the heartbeat is no time: {beat[:64]!r}"
        signal = self._signal(obj, Plane.HANDLER, reading, detail, first=first)
        self._outlet.beat(signal)

    def _signal(
        self,
        obj: Node,
        plane: Plane,
        reading: Reading,
        detail: str,
        *,
        first: bool,
        aspect: str = "",
    ) -> Signal:
        return Signal(
            plane=plane,
            source=SOURCE,
            subject=node_subject(obj.name),
            reading=reading,
            at=self._clock.now(),
            aspect=aspect,
            detail=detail,
            first=first,
        )


def _ready(node: Node) -> tuple[str, str]:
    """Return the Ready condition's status and its reason, in words."""
    for condition in node.conditions:
        if condition.type == "Ready":
            detail = f"Ready={condition.status} {condition.reason or ''}".strip()
            return condition.status, detail[:_DETAIL_LIMIT]
    return "", "no Ready condition"
