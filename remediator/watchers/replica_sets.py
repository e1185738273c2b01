"""Which nodes hold the replicas of one volume: for a guard (storage-replicas) and for placement.

Of storage that says so in objects of the cluster: Longhorn's Replicas, and LINSTOR's own tables,
which its controller keeps as custom resources.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from remediator.clock import Clock
from remediator.engine.model import FactKind, ReplicaSetFacts
from remediator.kube.metadata import KubeObject
from remediator.kube.storage_objects import LinstorResource, LonghornReplica
from remediator.watchers.linked import QuietSink
from remediator.watchers.outlet import Outlet

T = TypeVar("T", bound=KubeObject)


class Copy(NamedTuple):
    """One replica: of which volume, on which node, and whether its data is good."""

    volume: str
    node: str
    good: bool


class ReplicaSetSink(QuietSink[T], Generic[T]):
    """Publishes a volume's nodes when they change, not each replica.

    ``copy_of`` reads an object; None is one that holds no data (yet).
    """

    def __init__(
        self, storage: str, outlet: Outlet, clock: Clock, copy_of: Callable[[T], Copy | None]
    ) -> None:
        self._storage = storage
        self._outlet = outlet
        self._clock = clock
        self._copy_of = copy_of
        self._copies: dict[str, dict[str, Copy]] = defaultdict(dict)  # volume -> object -> copy
        self._volume_of: dict[str, str] = {}
        self._published: dict[str, ReplicaSetFacts] = {}
        self._numbers = itertools.count()

    def seen(self, obj: T, old: T | None, *, initial: bool) -> None:
        """Note where a replica is."""
        del initial, old
        copy = self._copy_of(obj)
        before = self._volume_of.get(obj.name, "")
        if before and (copy is None or copy.volume != before):
            self.leave(obj)
        if copy is None or self._copies.get(copy.volume, {}).get(obj.name) == copy:
            return
        self._volume_of[obj.name] = copy.volume
        self._copies[copy.volume][obj.name] = copy
        self._publish(copy.volume)

    def leave(self, obj: T) -> None:
        """Forget a replica."""
        volume = self._volume_of.pop(obj.name, "")
        if volume:
            self._copies[volume].pop(obj.name, None)
            self._publish(volume)

    def again(self, obj: T) -> None:
        """Offer its volume's nodes once more, with the volume's first replica."""
        volume = self._volume_of.get(obj.name, "")
        if volume in self._published and next(iter(self._copies[volume])) == obj.name:
            self._outlet.facts(self._published[volume], f"replica-set:{next(self._numbers)}")

    def _publish(self, volume: str) -> None:
        copies = self._copies[volume].values()
        nodes = tuple(sorted({copy.node for copy in copies}))
        good = {copy.node for copy in copies if copy.good}
        bad = tuple(node for node in nodes if node not in good)
        before = self._published.get(volume)
        if not nodes:
            del self._copies[volume]
            if before is not None:
                del self._published[volume]
                self._outlet.gone(FactKind.REPLICA_SET, before, f":{next(self._numbers)}")
            return
        if before is not None and (before.nodes, before.bad) == (nodes, bad):
            return
        name = f"{self._storage}:{volume}"
        facts = ReplicaSetFacts(
            name=name, uid=name, nodes=nodes, bad=bad, as_of=round(self._clock.now(), 3)
        )
        self._published[volume] = facts
        self._outlet.facts(facts, f"replica-set:{next(self._numbers)}")


class LonghornReplicaSetSink(ReplicaSetSink[LonghornReplica]):
    """Longhorn's: a replica that failed, or was never whole, is bad."""

    def __init__(self, outlet: Outlet, clock: Clock) -> None:
        super().__init__("longhorn", outlet, clock, _of_longhorn)


class LinstorReplicaSetSink(ReplicaSetSink[LinstorResource]):
    """LINSTOR's: a resource that is diskless, or on its way out, holds no data."""

    def __init__(self, outlet: Outlet, clock: Clock) -> None:
        super().__init__("linstor", outlet, clock, _of_linstor)


def _of_longhorn(replica: LonghornReplica) -> Copy | None:
    if not replica.node or not replica.volume:
        return None
    return Copy(replica.volume, replica.node, replica.good)


def _of_linstor(resource: LinstorResource) -> Copy | None:
    if not resource.node or not resource.volume or not resource.holds_data:
        return None
    return Copy(resource.volume, resource.node, good=True)
