"""Sinks of the watches that only report what is there: VMs, pods, volumes, claims on nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from remediator.clock import Clock
from remediator.engine.model import FactKind, Facts, NodeLeaseFacts, PodFacts, VmiFacts
from remediator.kube.metadata import KubeObject
from remediator.kube.objects import Lease, VirtualMachineInstance
from remediator.watchers.narrow import vmi_facts
from remediator.watchers.outlet import Outlet

T = TypeVar("T", bound=KubeObject)
F = TypeVar("F", bound=Facts)


class FactsSink(Generic[T, F]):
    """Publishes objects whose facts changed. Keeps nothing: the reflector's store has it all.

    ``same`` tells whether two states of an object come to the same, where equality is too strict.
    """

    def __init__(
        self,
        kind: FactKind,
        narrow: Callable[[T], F],
        outlet: Outlet,
        *,
        same: Callable[[F, F], bool] = operator.eq,
    ) -> None:
        self._kind = kind
        self._narrow = narrow
        self._outlet = outlet
        self._same = same

    def seen(self, obj: T, old: T | None, *, initial: bool) -> None:
        """Publish the object if a fact changed."""
        del initial  # facts are facts, however they were found
        if not self._outlet.is_open:
            return
        facts = self._narrow(obj)
        if old is not None and self._same(self._narrow(old), facts):
            return
        self._outlet.facts(facts, obj.resource_version)

    def gone(self, obj: T) -> None:
        """Publish that the object is gone."""
        if self._outlet.is_open:
            self._outlet.gone(self._kind, self._narrow(obj))

    def synced(self) -> None:
        """Publish that the first list is complete."""
        self._outlet.synced(self._kind)

    def progressed(self, at: float) -> None:
        """Ignore it: silence of these watches means nothing."""

    def again(self, obj: T) -> None:
        """Offer a known object once more."""
        self._outlet.facts(self._narrow(obj), obj.resource_version)


class InstanceSink(FactsSink[VirtualMachineInstance, VmiFacts]):
    """VMIs, and whose guest agent was ever heard: KubeVirt's own status forgets it.

    On a follower too, so that a new leader knows of an agent that was lost before its time.
    """

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(FactKind.VMI, self._instance_facts, outlet)
        self._agents: set[str] = set()  # UIDs of VMIs

    def seen(
        self, obj: VirtualMachineInstance, old: VirtualMachineInstance | None, *, initial: bool
    ) -> None:
        """Publish the VMI if a fact changed; remember an agent."""
        super().seen(obj, old, initial=initial)
        if obj.agent_known:
            self._agents.add(obj.uid)

    def gone(self, obj: VirtualMachineInstance) -> None:
        """Publish that the VMI is gone; forget its agent."""
        super().gone(obj)
        self._agents.discard(obj.uid)

    def _instance_facts(self, vmi: VirtualMachineInstance) -> VmiFacts:
        return vmi_facts(vmi, agent_seen=vmi.uid in self._agents)


def same_pod(one: PodFacts, other: PodFacts) -> bool:
    """Tell whether two states of a pod come to the same.

    Why no node will do is told anew whenever some node changes: that changes no decision.
    """
    if one.unschedulable and other.unschedulable:
        one = msgspec.structs.replace(one, unschedulable=other.unschedulable)
    return one == other


class NodeClaimSink:
    """medik8s' leases on nodes: who claims a node, and when we saw the claim renewed.

    The namespace may be absent; the list is then empty, which is as good as no claims.
    """

    def __init__(self, outlet: Outlet, clock: Clock) -> None:
        self._outlet = outlet
        self._clock = clock
        self._seen_at: dict[str, float] = {}

    def seen(self, obj: Lease, old: Lease | None, *, initial: bool) -> None:
        """Publish a claim whose holder, duration or renewal changed."""
        del initial
        if not _is_node_claim(obj):
            return
        if old is not None and old.spec == obj.spec:
            return
        self._seen_at[obj.name] = self._clock.now()
        self._outlet.facts(self._facts(obj), obj.resource_version)

    def gone(self, obj: Lease) -> None:
        """Publish that a claim is gone."""
        if _is_node_claim(obj):
            self._outlet.gone(FactKind.NODE_LEASE, self._facts(obj))
            self._seen_at.pop(obj.name, None)

    def synced(self) -> None:
        """Publish that the first list is complete."""
        self._outlet.synced(FactKind.NODE_LEASE)

    def progressed(self, at: float) -> None:
        """Ignore it: silence of this watch means nothing."""

    def again(self, obj: Lease) -> None:
        """Offer a known claim once more."""
        if _is_node_claim(obj):
            self._outlet.facts(self._facts(obj), obj.resource_version)

    def _facts(self, obj: Lease) -> NodeLeaseFacts:
        return NodeLeaseFacts(
            name=obj.name,
            uid=obj.uid,
            node=obj.name.removeprefix("node-"),
            holder=obj.holder,
            renewed_at=obj.renewed_at or 0.0,
            duration_s=obj.duration_s,
            seen_at=self._seen_at.get(obj.name, 0.0),
        )


def _is_node_claim(obj: Lease) -> bool:
    return obj.name.startswith("node-")  # medik8s/common: lease.Manager names them so
