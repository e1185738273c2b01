"""Hosts, and leases: the heartbeats of kubelets and the claims of leaders and of medik8s."""

from __future__ import annotations

import msgspec

from remediator.kube.metadata import (
    Condition,
    KubeObject,
    KubeStruct,
    parse_time,
    share_fields,
    status_of,
)
from remediator.kube.scheduling import amounts


class NodeCondition(Condition, frozen=True):
    """A node's condition; kubelet writes the heartbeat at least every five minutes."""

    message: str | None = None
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None

    @property
    def last_transition_at(self) -> float | None:
        """When the status last changed, epoch seconds of the writer's clock."""
        return parse_time(self.last_transition_time)


class Taint(KubeStruct, frozen=True):
    """A node's taint."""

    key: str = ""
    effect: str = ""
    value: str | None = None
    time_added: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "key", "effect", "value")

    def __str__(self) -> str:
        """``key=value:Effect``, or ``key:Effect`` where the value is empty."""
        return (
            f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"
        )


class NodeAddress(KubeStruct, frozen=True):
    """One address: ``type`` is InternalIP, ExternalIP, Hostname, …."""

    type: str = ""
    address: str = ""


class NodeSystemInfo(KubeStruct, frozen=True):
    """``status.nodeInfo``, narrowed."""

    boot_id: str = msgspec.field(default="", name="bootID")
    system_uuid: str = msgspec.field(default="", name="systemUUID")


# Where a kubelet listens that does not say so (k8s.io/kubernetes/pkg/cluster/ports: KubeletPort).
KUBELET_PORT = 10250


class DaemonEndpoint(KubeStruct, frozen=True):
    """Where a daemon of a node listens."""

    port: int = msgspec.field(default=0, name="Port")  # this one really begins with a capital


class NodeDaemonEndpoints(KubeStruct, frozen=True):
    """``status.daemonEndpoints``."""

    kubelet_endpoint: DaemonEndpoint | None = None


class AttachedVolume(KubeStruct, frozen=True):
    """A volume that the attach-detach controller holds attached to a node."""

    name: str = ""  # "kubernetes.io/csi/DRIVER^HANDLE"


class NodeSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    unschedulable: bool | None = None
    provider_id: str | None = msgspec.field(default=None, name="providerID")
    taints: tuple[Taint, ...] | None = None


class NodeStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    conditions: tuple[NodeCondition, ...] | None = None
    node_info: NodeSystemInfo | None = None
    addresses: tuple[NodeAddress, ...] | None = None
    daemon_endpoints: NodeDaemonEndpoints | None = None
    volumes_in_use: tuple[str, ...] | None = None
    volumes_attached: tuple[AttachedVolume, ...] | None = None
    allocatable: dict[str, str | int | float] | None = None


_NO_SYSTEM_INFO = NodeSystemInfo()


class Node(KubeObject, frozen=True):
    """A host."""

    spec: NodeSpec | None = None
    status: NodeStatus | None = None

    @property
    def unschedulable(self) -> bool:
        """Cordoned."""
        return bool(self.spec and self.spec.unschedulable)

    @property
    def taints(self) -> tuple[Taint, ...]:
        """All taints."""
        return (self.spec.taints if self.spec else None) or ()

    @property
    def conditions(self) -> tuple[NodeCondition, ...]:
        """All conditions."""
        return (self.status.conditions if self.status else None) or ()

    @property
    def ready(self) -> bool | None:
        """The Ready condition: None when it is Unknown or absent."""
        return {"True": True, "False": False}.get(status_of(self.conditions, "Ready"))

    @property
    def boot_id(self) -> str:
        """The kernel's boot id: another one means that the host was restarted."""
        return ((self.status.node_info if self.status else None) or _NO_SYSTEM_INFO).boot_id

    @property
    def system_uuid(self) -> str:
        """The machine's SMBIOS UUID, which a BMC also knows."""
        return ((self.status.node_info if self.status else None) or _NO_SYSTEM_INFO).system_uuid

    @property
    def addresses(self) -> tuple[NodeAddress, ...]:
        """All addresses."""
        return (self.status.addresses if self.status else None) or ()

    @property
    def internal_ip(self) -> str:
        """The first InternalIP, "" where there is none."""
        return next((one.address for one in self.addresses if one.type == "InternalIP"), "")

    @property
    def kubelet_port(self) -> int:
        """Where the kubelet listens."""
        endpoints = self.status.daemon_endpoints if self.status else None
        kubelet = endpoints.kubelet_endpoint if endpoints else None
        return (kubelet.port if kubelet else 0) or KUBELET_PORT

    @property
    def allocatable(self) -> dict[str, int]:
        """What it can give to pods: CPU in millicores, all else in its own unit."""
        return amounts(self.status.allocatable if self.status else None)

    @property
    def volumes_in_use(self) -> tuple[str, ...]:
        """Volumes that kubelet has mounted; goes stale when the host dies."""
        return (self.status.volumes_in_use if self.status else None) or ()

    @property
    def volumes_attached(self) -> tuple[AttachedVolume, ...]:
        """Volumes that the attach-detach controller holds attached."""
        return (self.status.volumes_attached if self.status else None) or ()


class LeaseSpec(KubeStruct, frozen=True):
    """``coordination.k8s.io/v1`` LeaseSpec."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


_NO_LEASE = LeaseSpec()


class Lease(KubeObject, frozen=True):
    """A lease: a kubelet's heartbeat, a leader's claim, or medik8s' claim on a node."""

    spec: LeaseSpec | None = None

    @property
    def holder(self) -> str:
        """Who holds it; "" when released."""
        return (self.spec or _NO_LEASE).holder_identity or ""

    @property
    def duration_s(self) -> float:
        """How long it holds after a renewal."""
        return float((self.spec or _NO_LEASE).lease_duration_seconds or 0)

    @property
    def renewed_at(self) -> float | None:
        """The last renewal, epoch seconds of the HOLDER's clock: never compare it with ours."""
        return parse_time((self.spec or _NO_LEASE).renew_time)

    @property
    def acquired_at(self) -> float | None:
        """When the holder took it, epoch seconds of the holder's clock."""
        return parse_time((self.spec or _NO_LEASE).acquire_time)

    @property
    def transitions(self) -> int:
        """How often it changed hands."""
        return (self.spec or _NO_LEASE).lease_transitions or 0
