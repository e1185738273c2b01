"""The verb of a story about where the data of a VM is, before the first fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remediator.sim.cluster import SimCluster
from remediator.sim.resources import (
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    ResourceType,
)

DRIVERS = {
    "longhorn": "driver.longhorn.io",
    "linstor": "linstor.csi.linbit.com",
    "ceph": "rook-ceph.rbd.csi.ceph.com",
    "nfs": "nfs.csi.k8s.io",
    "local": "topolvm.io",
    "zonal": "zonal.csi.example.com",
    "other": "other.csi.example.com",
}
TOPOLOGY = {"local": "kubernetes.io/hostname", "zonal": "topology.kubernetes.io/zone"}


class StorageVerbs:
    """The verb ``do_disk``."""

    cluster: SimCluster
    note: Callable[[str], None]

    def do_disk(self, vm: str, storage: str, at: list[str] | None = None) -> None:
        """Say what storage a VM's disk is of, and where its data is: nodes, or a zone."""
        places = at or []
        self.note(f"the disk of vm/{vm} is {storage}{_at(places)}")
        namespace, name = vm.split("/")
        claim, volume = f"{name}-disk", f"pv-{namespace}-{name}"

        def change(obj: dict[str, Any]) -> None:
            # Drivers and affinity are fixed when a volume is made; the stage makes it otherwise.
            obj["spec"]["csi"] = {"driver": DRIVERS[storage], "volumeHandle": volume}
            if storage in TOPOLOGY:
                expression = {"key": TOPOLOGY[storage], "operator": "In", "values": places}
                terms = [{"matchExpressions": [expression]}]
                obj["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}

        self._change(PERSISTENT_VOLUMES, "", volume, change)
        if storage == "longhorn":
            for node in places:
                spec = {"nodeID": node, "volumeName": volume, "healthyAt": "2026-11-20T08:00:00Z"}
                self._make("Replica", f"{volume}-r-{node}", "longhorn-system", spec)
        elif storage == "linstor":
            for number, node in enumerate(places):
                spec = {
                    "node_name": node.upper(),
                    "resource_name": volume.upper(),
                    "resource_flags": 0,
                }
                self._make("Resources", f"{volume}-{number}", "", spec)
        elif storage == "other" and places:
            marks = {"remediator.io/replica-nodes": ",".join(places)}
            self._change(
                PERSISTENT_VOLUME_CLAIMS,
                namespace,
                claim,
                lambda obj: obj["metadata"].setdefault("annotations", {}).update(marks),
            )

    def _make(self, kind: str, name: str, namespace: str, spec: dict[str, Any]) -> None:
        store = self.cluster.store
        if namespace and store.find(NAMESPACES, "", namespace) is None:
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            store.create(NAMESPACES, made)
        res = next(each for each in self.cluster.registry if each.kind == kind)
        meta = {"name": name, **({"namespace": namespace} if namespace else {})}
        store.create(
            res,
            {"apiVersion": res.api_version, "kind": res.kind, "metadata": meta, "spec": spec},
        )

    def _change(
        self,
        res: ResourceType,
        namespace: str,
        name: str,
        change: Callable[[dict[str, Any]], object],
    ) -> None:
        self.cluster.store.mutate(res, namespace, name, change)


def _at(places: list[str]) -> str:
    return f", at {', '.join(places)}" if places else ""
