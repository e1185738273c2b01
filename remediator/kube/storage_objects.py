"""What storage systems say of their nodes: Longhorn, Portworx, csi-addons."""

from __future__ import annotations

import msgspec

from remediator.kube.metadata import KubeObject, KubeStruct, share_fields, shared


class LonghornDisk(KubeStruct, frozen=True):
    """One disk as the node's own longhorn-manager measured it."""

    storage_available: int | None = None
    health_data_last_collected_at: str | None = None


class SnapshotCheck(KubeStruct, frozen=True):
    """``status.snapshotCheckStatus``."""

    last_periodic_checked_at: str | None = None


class LonghornNodeStatus(KubeStruct, frozen=True):
    """``status``, narrowed to what only the node's own longhorn-manager writes.

    Not Ready and not Schedulable: any manager writes these, from the Kubernetes Node and the
    manager's pod, so they only repeat what the kubelet's lease says.
    """

    disk_status: dict[str, LonghornDisk | None] | None = None
    snapshot_check_status: SnapshotCheck | None = None


class LonghornNode(KubeObject, frozen=True):
    """A node of Longhorn; its name is the Kubernetes node's."""

    status: LonghornNodeStatus | None = None

    @property
    def measured(self) -> LonghornNodeStatus | None:
        """What its own manager measured: a change of it is a sign of life."""
        return self.status


class LonghornInstanceSpec(KubeStruct, frozen=True):
    """``spec`` of an engine or a replica, narrowed."""

    node_id: str = msgspec.field(default="", name="nodeID")
    volume_name: str = ""
    failed_at: str | None = None
    healthy_at: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "node_id", "volume_name")


class LonghornReplica(KubeObject, frozen=True):
    """One copy of a volume on one node."""

    spec: LonghornInstanceSpec | None = None

    @property
    def node(self) -> str:
        """The node it is on, "" before it was placed."""
        return self.spec.node_id if self.spec else ""

    @property
    def volume(self) -> str:
        """The volume that it is a copy of."""
        return self.spec.volume_name if self.spec else ""

    @property
    def good(self) -> bool:
        """Its data was whole, and it has not failed since.

        Longhorn also calls a replica failed whose node Kubernetes calls NotReady. So this says
        where data can be had, and is no evidence of a node's state.
        """
        return not self.spec or (not self.spec.failed_at and self.spec.healthy_at != "")


class LonghornEngineStatus(KubeStruct, frozen=True):
    """``status`` of an engine, narrowed.

    ``owner_id`` is the node whose longhorn-manager wrote it: only the owner writes a status.
    """

    owner_id: str = msgspec.field(default="", name="ownerID")
    current_state: str | None = None
    replica_mode_map: dict[str, str] | None = None

    def __post_init__(self) -> None:
        share_fields(self, "owner_id", "current_state")
        if self.replica_mode_map:
            modes = {key: shared(value) for key, value in self.replica_mode_map.items()}
            msgspec.structs.force_setattr(self, "replica_mode_map", modes)


class LonghornEngine(KubeObject, frozen=True):
    """The process that a volume's reads and writes go through, to all of its replicas."""

    spec: LonghornInstanceSpec | None = None
    status: LonghornEngineStatus | None = None

    @property
    def node(self) -> str:
        """The node it runs on."""
        return self.spec.node_id if self.spec else ""

    @property
    def writer(self) -> str:
        """The node whose longhorn-manager wrote the status."""
        return self.status.owner_id if self.status else ""

    @property
    def running(self) -> bool:
        """It serves its volume."""
        return bool(self.status and self.status.current_state == "running")

    @property
    def modes(self) -> dict[str, str]:
        """What it has of each replica: RW, WO (being rebuilt), ERR (it does not answer)."""
        return (self.status.replica_mode_map if self.status else None) or {}


class LinstorResourceSpec(KubeStruct, frozen=True):
    """``spec``, narrowed: a row of LINSTOR's table RESOURCES, names in upper case."""

    node_name: str = msgspec.field(default="", name="node_name")
    resource_name: str = msgspec.field(default="", name="resource_name")
    snapshot_name: str = msgspec.field(default="", name="snapshot_name")
    resource_flags: int = msgspec.field(default=0, name="resource_flags")

    def __post_init__(self) -> None:
        share_fields(self, "node_name")


# Of LINSTOR's resource flags: it is being deleted, and it has no disk. A tie breaker, a diskless
# client and an NVMe initiator have that one, too.
_LINSTOR_DELETE = 1 << 1
_LINSTOR_DISKLESS = 1 << 2


class LinstorResource(KubeObject, frozen=True):
    """One replica of a LINSTOR resource on one node, in LINSTOR's own database of CRDs."""

    spec: LinstorResourceSpec | None = None

    @property
    def node(self) -> str:
        """The node; Kubernetes' names are in lower case."""
        return self.spec.node_name.lower() if self.spec else ""

    @property
    def volume(self) -> str:
        """The resource, as the handle of its volume names it; "" for a snapshot."""
        if self.spec is None or self.spec.snapshot_name:
            return ""
        return self.spec.resource_name.lower()

    @property
    def holds_data(self) -> bool:
        """It has a disk, and is not on its way out."""
        return self.spec is not None and not (
            self.spec.resource_flags & (_LINSTOR_DELETE | _LINSTOR_DISKLESS)
        )


class PortworxCondition(KubeStruct, frozen=True):
    """One condition: of type NodeState (Portworx' own word), NodeInit (of the pod), ….."""

    type: str = ""
    status: str = ""
    last_transition_time: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "type", "status")


class PortworxStorage(KubeStruct, frozen=True):
    """``status.storage``, narrowed; a Quantity is text or a number."""

    used_size: str | int | float | None = None


class StorageNodeStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None
    conditions: tuple[PortworxCondition, ...] | None = None
    storage: PortworxStorage | None = None

    def __post_init__(self) -> None:
        share_fields(self, "phase")


class StorageNode(KubeObject, frozen=True):
    """A node of Portworx; its name is the Kubernetes node's."""

    status: StorageNodeStatus | None = None

    @property
    def node_state(self) -> PortworxCondition:
        """What the Portworx cluster itself says of the node: Online, Offline, Degraded, ….

        Not the phase, which may be that of the pod. ``status`` is "Unknown" where Portworx does
        not list the node any more, and "" where there is no word at all.
        """
        if self.status is None:
            return PortworxCondition()
        if self.status.phase == "Unknown":
            return PortworxCondition(type="NodeState", status="Unknown")
        found = (each for each in self.status.conditions or () if each.type == "NodeState")
        return next(found, PortworxCondition())

    @property
    def used_size(self) -> str:
        """What its pools hold, as the node itself told its cluster."""
        storage = self.status.storage if self.status else None
        return "" if storage is None or storage.used_size is None else str(storage.used_size)


class CsiAddonsDriver(KubeStruct, frozen=True):
    """``spec.driver``, narrowed."""

    name: str = ""
    node_id: str = msgspec.field(default="", name="nodeID")

    def __post_init__(self) -> None:
        share_fields(self, "name", "node_id")


class CsiAddonsSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    driver: CsiAddonsDriver | None = None


class CsiAddonsStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    state: str | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "state")


class CsiAddonsNode(KubeObject, frozen=True):
    """A csi-addons sidecar on a node, and whether the controller could connect to it."""

    spec: CsiAddonsSpec | None = None
    status: CsiAddonsStatus | None = None

    @property
    def node(self) -> str:
        """The node that the sidecar runs on."""
        driver = self.spec.driver if self.spec else None
        return driver.node_id if driver else ""

    @property
    def driver(self) -> str:
        """The CSI driver."""
        driver = self.spec.driver if self.spec else None
        return driver.name if driver else ""

    @property
    def state(self) -> str:
        """Connected, Failed, or "" before the first attempt."""
        return (self.status.state if self.status else None) or ""

    @property
    def message(self) -> str:
        """What the last attempt came to."""
        return (self.status.message if self.status else None) or ""
