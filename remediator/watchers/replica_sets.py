"""Which nodes hold the replicas of one volume: the facts behind the guard ``storage-replicas``."""

from __future__ import annotations

import itertools
from collections import defaultdict

from remediator.engine.model import FactKind, ReplicaSetFacts
from remediator.kube.storage_objects import LonghornReplica
from remediator.watchers.linked import QuietSink
from remediator.watchers.outlet import Outlet


class LonghornReplicaSetSink(QuietSink[LonghornReplica]):
    """Publishes a volume's nodes when they change, not each replica."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._places: dict[str, dict[str, str]] = defaultdict(dict)  # volume -> replica -> node
        self._volume_of: dict[str, str] = {}
        self._published: dict[str, ReplicaSetFacts] = {}
        self._numbers = itertools.count()

    def seen(self, obj: LonghornReplica, old: LonghornReplica | None, *, initial: bool) -> None:
        """Note where a replica is."""
        del initial
        if old is not None and (old.node, old.volume) == (obj.node, obj.volume):
            return
        if obj.node and obj.volume:
            self._volume_of[obj.name] = obj.volume
            self._places[obj.volume][obj.name] = obj.node
            self._publish(obj.volume)

    def leave(self, obj: LonghornReplica) -> None:
        """Forget a replica."""
        volume = self._volume_of.pop(obj.name, "")
        if volume:
            self._places[volume].pop(obj.name, None)
            self._publish(volume)

    def again(self, obj: LonghornReplica) -> None:
        """Offer its volume's nodes once more, with the volume's first replica."""
        volume = self._volume_of.get(obj.name, "")
        if volume in self._published and next(iter(self._places[volume])) == obj.name:
            self._outlet.facts(self._published[volume], f"replica-set:{next(self._numbers)}")

    def _publish(self, volume: str) -> None:
        nodes = tuple(sorted(set(self._places[volume].values())))
        before = self._published.get(volume)
        if not nodes:
            del self._places[volume]
            if before is not None:
                del self._published[volume]
                self._outlet.gone(FactKind.REPLICA_SET, before, f":{next(self._numbers)}")
            return
        name = f"longhorn:{volume}"
        facts = ReplicaSetFacts(name=name, uid=name, nodes=nodes)
        if facts != before:
            self._published[volume] = facts
            self._outlet.facts(facts, f"replica-set:{next(self._numbers)}")
