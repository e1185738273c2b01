"""Where the data of a VM's disks is: which nodes may use them, and which have them at hand.

| storage | told by |
|---|---|
| Longhorn, LINSTOR | their own objects (ReplicaSetFacts) |
| Portworx, Mayastor | their own API, where an address is set (ReplicaSetFacts) |
| anything | annotation ``remediator.io/replica-nodes`` of the claim |
| local, zonal | the PersistentVolume's node affinity |
| Ceph, NFS, iSCSI, FC | anywhere: the network has them |
"""

from __future__ import annotations

import enum

from remediator.engine.inventory import Inventory
from remediator.engine.model import ClaimFacts, Record, VolumeFacts
from remediator.engine.pod_rules import HOSTNAME, NodeTerm, Requirement

# CSI driver -> the storage under whose name ReplicaSetFacts tell of its volumes.
REPLICATED: dict[str, str] = {
    "driver.longhorn.io": "longhorn",
    "linstor.csi.linbit.com": "linstor",
    "pxd.portworx.com": "portworx",
    "portworx_volume": "portworx",  # built into Kubernetes, before CSI
    "io.openebs.csi-mayastor": "mayastor",
}
ASKED = frozenset({"portworx", "mayastor"})  # not watched, but asked now and then
# Rook names them "rook-ceph.rbd.csi.ceph.com", Ceph's own chart "rbd.csi.ceph.com".
_EVERYWHERE_DRIVERS = ("rbd.csi.ceph.com", "cephfs.csi.ceph.com", "nfs.csi.k8s.io")
_EVERYWHERE_SOURCES = frozenset({"nfs", "cephfs", "rbd", "iscsi", "fc"})


class Kind(enum.StrEnum):
    """Where a disk can be used, and where best."""

    ANYWHERE = "anywhere"  # over the network from each node alike
    REPLICATED = "replicated"  # from each node, best where a replica is
    PINNED = "pinned"  # only from nodes that its volume names
    UNKNOWN = "unknown"  # nobody tells


class Locality(Record, frozen=True, kw_only=True):
    """One disk. ``nodes`` have a good copy at hand; ``as_of`` is when that was last sure."""

    volume: str
    kind: Kind
    nodes: tuple[str, ...] = ()
    source: str = ""  # who says so
    as_of: float = 0.0  # 0.0: it is written in an object that stands
    terms: tuple[NodeTerm, ...] | None = None  # where it may be used at all


def of_vm(inventory: Inventory, namespace: str, claims: tuple[str, ...]) -> tuple[Locality, ...]:
    """Return the locality of each disk that is known, in the order of the claims."""
    found = []
    for name in claims:
        claim = inventory.claims.get((namespace, name))
        if claim is not None:
            found.append(_of_claim(inventory, claim))
    return tuple(found)


def only_copy(inventory: Inventory, namespace: str, claims: tuple[str, ...], node: str) -> str:
    """Return the volume of these claims whose only good copy is on this node, or ""."""
    for each in of_vm(inventory, namespace, claims):
        if each.kind in (Kind.PINNED, Kind.REPLICATED) and each.nodes == (node,):
            return each.volume
    return ""


def _of_claim(inventory: Inventory, claim: ClaimFacts) -> Locality:
    volume = inventory.volumes.get(claim.volume)
    terms = _terms(volume) if volume is not None else None
    name = claim.volume or claim.name
    if claim.replica_nodes:
        return Locality(
            volume=name,
            kind=Kind.REPLICATED,
            nodes=claim.replica_nodes,
            source=f"annotation of claim {claim.name}",
            terms=terms,
        )
    if volume is None:
        return Locality(volume=name, kind=Kind.UNKNOWN)
    storage = REPLICATED.get(volume.driver or volume.source, "")
    replicas = inventory.replica_sets.get(f"{storage}:{volume.handle}")
    if replicas is not None:
        good = tuple(node for node in replicas.nodes if node not in replicas.bad)
        return Locality(
            volume=name,
            kind=Kind.REPLICATED,
            nodes=good or replicas.nodes,
            source=storage,
            as_of=replicas.as_of,
            terms=terms,
        )
    if terms is not None:
        return Locality(
            volume=name,
            kind=Kind.PINNED,
            nodes=volume.pinned_to,
            source=f"node affinity of volume {volume.name}",
            terms=terms,
        )
    if _is_everywhere(volume):
        who = volume.driver or volume.source
        return Locality(volume=name, kind=Kind.ANYWHERE, source=who)
    return Locality(volume=name, kind=Kind.UNKNOWN, source=volume.driver or volume.source)


def _terms(volume: VolumeFacts) -> tuple[NodeTerm, ...] | None:
    """Return where a volume may be used; None: wherever its storage reaches."""
    if volume.node_terms is None and volume.pinned_to:
        return (NodeTerm(labels=(Requirement(key=HOSTNAME, values=volume.pinned_to),)),)
    return volume.node_terms


def _is_everywhere(volume: VolumeFacts) -> bool:
    return volume.source in _EVERYWHERE_SOURCES or volume.driver.endswith(_EVERYWHERE_DRIVERS)
