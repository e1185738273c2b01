"""Sinks of the watches that only report what is there: VMs, pods, volumes, claims on nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from remediator.clock import Clock
from remediator.engine.model import FactKind, Facts, NodeLeaseFacts
from remediator.kube.metadata import KubeObject
from remediator.kube.objects import Lease
from remediator.watchers.outlet import Outlet

T = TypeVar("T", bound=KubeObject)


class FactsSink(Generic[T]):
    """Publishes objects whose facts changed. Keeps nothing: the reflector's store has it all."""

    def __init__(self, kind: FactKind, narrow: Callable[[T], Facts], outlet: Outlet) -> None:
        self._kind = kind
        self._narrow = narrow
        self._outlet = outlet

    def seen(self, obj: T, old: T | None, *, initial: bool) -> None:
        """Publish the object if a fact changed."""
        del initial  # facts are facts, however they were found
        if not self._outlet.is_open:
            return
        facts = self._narrow(obj)
        if old is not None and self._narrow(old) == facts:
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
