"""Watches live migrations in a story: how many were in flight at once, and what is left of ours."""

from __future__ import annotations

from collections import Counter
from typing import Any

from remediator.sim.cluster import SimCluster
from remediator.sim.resources import (
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)

CLUSTER_MAX, NODE_MAX = 5, 2
_FINAL = ("Succeeded", "Failed")


class MigrationWatch:
    """Counts what KubeVirt has in flight, those that wait in its queue as well."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self.peak = 0
        self.peak_off_node = 0
        self.ended: Counter[str] = Counter()
        self._in_flight: dict[str, str] = {}  # UID -> the node it leaves
        cluster.store.subscribe(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, self._changed)

    def _changed(self, kind: str, migration: dict[str, Any], _old: Any) -> None:
        uid = migration["metadata"]["uid"]
        phase = (migration.get("status") or {}).get("phase", "")
        if kind == "DELETED" or phase in _FINAL:
            if self._in_flight.pop(uid, None) is not None:
                self.ended[phase or "deleted"] += 1
            return
        if uid not in self._in_flight:
            meta, spec = migration["metadata"], migration["spec"]
            vmi = self._cluster.store.find(
                VIRTUAL_MACHINE_INSTANCES, meta["namespace"], spec["vmiName"]
            )
            node = (vmi or {}).get("status", {}).get("nodeName", "")
            self._in_flight[uid] = node
            self.peak = max(self.peak, len(self._in_flight))
            self.peak_off_node = max(
                self.peak_off_node, *Counter(self._in_flight.values()).values()
            )

    def left(self) -> list[str]:
        """Return what is in flight, and the VMIs that KubeVirt was told to move off a node."""
        store = self._cluster.store
        found = [
            f"migration {each['metadata']['name']}"
            for each in store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS)
            if (each.get("status") or {}).get("phase", "") not in _FINAL
        ]
        found += [
            f"evacuation of {each['metadata']['name']}"
            for each in store.list(VIRTUAL_MACHINE_INSTANCES)
            if (each.get("status") or {}).get("evacuationNodeName")
            == each["status"].get("nodeName", "")
            and each["status"].get("nodeName")
        ]
        return sorted(found)


def over_limits(seen: MigrationWatch) -> list[str]:
    """Return which of KubeVirt's limits was exceeded."""
    found = []
    if seen.peak > CLUSTER_MAX:
        found.append(f"{seen.peak} in the cluster at once")
    if seen.peak_off_node > NODE_MAX:
        found.append(f"{seen.peak_off_node} off one node at once")
    return found
