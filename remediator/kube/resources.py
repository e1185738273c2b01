"""Where each kind of object lives in the API, and which of them we look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from urllib.parse import quote

import msgspec

from remediator.kube.events import ClusterEvent, is_of_guest, is_of_launcher
from remediator.kube.machines import VirtualMachine, VirtualMachineInstance
from remediator.kube.metadata import KubeObject
from remediator.kube.migrations import VirtualMachineInstanceMigration
from remediator.kube.nodes import Lease, Node
from remediator.kube.pods import HandlerPod, OtherPod, Pod
from remediator.kube.transport import Query
from remediator.kube.volumes import PersistentVolume, PersistentVolumeClaim, VolumeAttachment

T = TypeVar("T", bound=KubeObject)


class Resource(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One collection of the API, perhaps narrowed to a namespace or by a selector.

    ``api`` is "/api/v1" or "/apis/GROUP/VERSION"; ``item`` the type that its objects decode into.
    """

    api: str
    plural: str
    item: type[T]
    namespaced: bool
    namespace: str = ""  # "" looks at all namespaces
    label_selector: str = ""
    field_selector: str = ""
    # What no selector of the API can tell apart: an object that this refuses is treated as gone.
    keep: Callable[[T], bool] | None = None

    @property
    def path(self) -> str:
        """The path to list and watch."""
        return self.collection(self.namespace)

    @property
    def query(self) -> Query:
        """The selectors, as query parameters."""
        selectors = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return [(name, value) for name, value in selectors.items() if value]

    def collection(self, namespace: str = "") -> str:
        """Return the path of the collection in one namespace, or of all of it."""
        if namespace and self.namespaced:
            return f"{self.api}/namespaces/{quote(namespace, safe='')}/{self.plural}"
        return f"{self.api}/{self.plural}"

    def object_path(self, name: str, namespace: str = "", *, subresource: str = "") -> str:
        """Return the path of one object (or of its subresource).

        Raises ValueError when a namespaced object is asked for without a namespace: the path would
        mean something else.
        """
        namespace = namespace or self.namespace
        if self.namespaced and not namespace:
            raise ValueError(f"{self.plural} {name!r}: a namespace is needed")
        if not name:
            raise ValueError(f"{self.plural}: a name is needed")
        tail = f"/{subresource}" if subresource else ""
        return f"{self.collection(namespace)}/{quote(name, safe='')}{tail}"


NODES = Resource(api="/api/v1", plural="nodes", item=Node, namespaced=False)

LEASES = Resource(api="/apis/coordination.k8s.io/v1", plural="leases", item=Lease, namespaced=True)
# kubelet renews its lease here every 10 s (a quarter of nodeLeaseDurationSeconds, 40 s by default).
NODE_LEASES = msgspec.structs.replace(LEASES, namespace="kube-node-lease")
# Claims on nodes under maintenance or remediation (medik8s/common; LEASE_NAMESPACE may move it).
MEDIK8S_LEASES = msgspec.structs.replace(LEASES, namespace="medik8s-leases")

PODS = Resource(api="/api/v1", plural="pods", item=Pod, namespaced=True)
LAUNCHER_PODS = msgspec.structs.replace(PODS, label_selector="kubevirt.io=virt-launcher")
# All others that take room of a node; listed now and then, never watched.
OTHER_PODS = Resource(
    api="/api/v1",
    plural="pods",
    item=OtherPod,
    namespaced=True,
    label_selector="kubevirt.io!=virt-launcher",
)
# In whatever namespace KubeVirt is installed: kubevirt, openshift-cnv, harvester-system.
HANDLER_PODS = Resource(
    api="/api/v1",
    plural="pods",
    item=HandlerPod,
    namespaced=True,
    label_selector="kubevirt.io=virt-handler",
)

EVENTS = Resource(api="/api/v1", plural="events", item=ClusterEvent, namespaced=True)
# Never all of them: a field selector cannot say "or", so one watch for each thing of interest.
PROBE_FAILURES = msgspec.structs.replace(
    EVENTS, field_selector="involvedObject.kind=Pod,reason=Unhealthy", keep=is_of_launcher
)
ATTACH_FAILURES = msgspec.structs.replace(
    EVENTS, field_selector="involvedObject.kind=Pod,reason=FailedAttachVolume", keep=is_of_launcher
)
MOUNT_FAILURES = msgspec.structs.replace(
    EVENTS, field_selector="involvedObject.kind=Pod,reason=FailedMount", keep=is_of_launcher
)
GUEST_WARNINGS = msgspec.structs.replace(
    EVENTS,
    field_selector="involvedObject.kind=VirtualMachineInstance,type=Warning",
    keep=is_of_guest,
)

VIRTUAL_MACHINES = Resource(
    api="/apis/kubevirt.io/v1", plural="virtualmachines", item=VirtualMachine, namespaced=True
)
VIRTUAL_MACHINE_INSTANCES = Resource(
    api="/apis/kubevirt.io/v1",
    plural="virtualmachineinstances",
    item=VirtualMachineInstance,
    namespaced=True,
)
# Those in flight. KubeVirt keeps five ended ones of each VM, and has no label that tells them.
MIGRATIONS = Resource(
    api="/apis/kubevirt.io/v1",
    plural="virtualmachineinstancemigrations",
    item=VirtualMachineInstanceMigration,
    namespaced=True,
    keep=lambda migration: not migration.ended,
)

PERSISTENT_VOLUME_CLAIMS = Resource(
    api="/api/v1", plural="persistentvolumeclaims", item=PersistentVolumeClaim, namespaced=True
)
PERSISTENT_VOLUMES = Resource(
    api="/api/v1", plural="persistentvolumes", item=PersistentVolume, namespaced=False
)
VOLUME_ATTACHMENTS = Resource(
    api="/apis/storage.k8s.io/v1",
    plural="volumeattachments",
    item=VolumeAttachment,
    namespaced=False,
)


def virtual_machine_action(namespace: str, name: str, action: str) -> str:
    """Return the path of a VM subresource (``start``, ``stop``, ``restart``), to be PUT."""
    return (
        f"/apis/subresources.kubevirt.io/v1/namespaces/{quote(namespace, safe='')}"
        f"/virtualmachines/{quote(name, safe='')}/{action}"
    )


def virtual_machine_instance_action(namespace: str, name: str, action: str) -> str:
    """Return the path of a VMI subresource (``evacuate/cancel``), to be PUT."""
    return (
        f"/apis/subresources.kubevirt.io/v1/namespaces/{quote(namespace, safe='')}"
        f"/virtualmachineinstances/{quote(name, safe='')}/{action}"
    )
