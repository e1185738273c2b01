"""The Kubernetes and KubeVirt objects that decisions are made from, narrowed to what they need.

Decoded straight from the API's JSON. Optional wire fields are ``None`` when absent or null; read
them through the properties, which answer with plain empty values. Never PUT one of these: the
fields that are not kept here would be erased. Use a patch, or ``dict`` as the type.
"""

from __future__ import annotations

from remediator.kube.events import ClusterEvent
from remediator.kube.machines import (
    MigrationState,
    VirtualMachine,
    VirtualMachineInstance,
    VirtualMachineSpec,
    VirtualMachineStatus,
    VmiSpec,
    VmiStatus,
    Volume,
)
from remediator.kube.metadata import (
    Condition,
    KubeObject,
    ObjectMeta,
    OwnerReference,
    format_micro_time,
    format_time,
    parse_time,
)
from remediator.kube.migrations import VirtualMachineInstanceMigration
from remediator.kube.nodes import (
    AttachedVolume,
    Lease,
    LeaseSpec,
    Node,
    NodeAddress,
    NodeCondition,
    NodeSpec,
    NodeStatus,
    NodeSystemInfo,
    Taint,
)
from remediator.kube.pods import COMPUTE, HandlerPod, Pod, PodSpec, PodStatus
from remediator.kube.resources import (
    ATTACH_FAILURES,
    EVENTS,
    GUEST_WARNINGS,
    HANDLER_PODS,
    LAUNCHER_PODS,
    LEASES,
    MEDIK8S_LEASES,
    MIGRATIONS,
    MOUNT_FAILURES,
    NODE_LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    PROBE_FAILURES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VOLUME_ATTACHMENTS,
    Resource,
    virtual_machine_action,
)
from remediator.kube.volumes import PersistentVolume, PersistentVolumeClaim, VolumeAttachment

__all__ = [
    "ATTACH_FAILURES",
    "COMPUTE",
    "EVENTS",
    "GUEST_WARNINGS",
    "HANDLER_PODS",
    "LAUNCHER_PODS",
    "LEASES",
    "MEDIK8S_LEASES",
    "MIGRATIONS",
    "MOUNT_FAILURES",
    "NODES",
    "NODE_LEASES",
    "PERSISTENT_VOLUMES",
    "PERSISTENT_VOLUME_CLAIMS",
    "PODS",
    "PROBE_FAILURES",
    "VIRTUAL_MACHINES",
    "VIRTUAL_MACHINE_INSTANCES",
    "VOLUME_ATTACHMENTS",
    "AttachedVolume",
    "ClusterEvent",
    "Condition",
    "HandlerPod",
    "KubeObject",
    "Lease",
    "LeaseSpec",
    "MigrationState",
    "Node",
    "NodeAddress",
    "NodeCondition",
    "NodeSpec",
    "NodeStatus",
    "NodeSystemInfo",
    "ObjectMeta",
    "OwnerReference",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodSpec",
    "PodStatus",
    "Resource",
    "Taint",
    "VirtualMachine",
    "VirtualMachineInstance",
    "VirtualMachineInstanceMigration",
    "VirtualMachineSpec",
    "VirtualMachineStatus",
    "VmiSpec",
    "VmiStatus",
    "Volume",
    "VolumeAttachment",
    "format_micro_time",
    "format_time",
    "parse_time",
    "virtual_machine_action",
]
