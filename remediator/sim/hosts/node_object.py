"""The Node and Lease objects that a kubelet writes."""

from __future__ import annotations

from collections.abc import Mapping

from remediator.sim.hosts.settings import HostSettings, HostSpec
from remediator.sim.hosts.wire import Obj
from remediator.sim.timestamps import rfc3339, rfc3339_micro

LEASE_NAMESPACE = "kube-node-lease"
LEASES_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"
NODES_PATH = "/api/v1/nodes"
ZONE_LABEL = "topology.kubernetes.io/zone"
HEARTBEAT_ANNOTATION = "kubevirt.io/heartbeat"
SCHEDULABLE_LABEL = "kubevirt.io/schedulable"
_ATTACH_ANNOTATION = "volumes.kubernetes.io/controller-managed-attach-detach"
_KUBELET_VERSION = "v1.36.2"

# type, status, reason, message: what a healthy kubelet reports.
_CONDITIONS = (
    (
        "MemoryPressure",
        "False",
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
    ),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def node_labels(spec: HostSpec) -> dict[str, str]:
    """Return the labels with which the kubelet registers."""
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        **spec.labels,
    }
    if spec.zone:
        labels[ZONE_LABEL] = spec.zone
    if spec.control_plane:
        labels["node-role.kubernetes.io/control-plane"] = ""
    else:
        labels["node-role.kubernetes.io/worker"] = ""
    return labels


def new_node(spec: HostSpec) -> Obj:
    """Return the Node without status, as the kubelet creates it."""
    node: Obj = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": spec.name,
            "labels": node_labels(spec),
            "annotations": {_ATTACH_ANNOTATION: "true"},
        },
        "spec": {"providerID": f"sim://{spec.name}"},
    }
    if spec.control_plane:
        node["spec"]["taints"] = [
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
        ]
    return node


def is_kubelets(type_: str) -> bool:
    """Tell whether the kubelet itself reports this condition."""
    return any(type_ == known for known, *_ in _CONDITIONS)


def node_conditions(
    now: float,
    ready_since: str | None = None,
    pressures: Mapping[str, tuple[str, str, str]] | None = None,
) -> list[Obj]:
    """Return the kubelet's conditions; ``ready_since`` None: they changed just now.

    ``pressures`` are those that are not as a healthy kubelet reports them: status, reason, message.
    """
    heard = rfc3339(now)
    changed = ready_since or heard
    conditions = []
    for type_, *healthy in _CONDITIONS:
        status, reason, message = (pressures or {}).get(type_, healthy)
        conditions.append(
            {
                "type": type_,
                "status": status,
                "lastHeartbeatTime": heard,
                "lastTransitionTime": heard if type_ in (pressures or {}) else changed,
                "reason": reason,
                "message": message,
            }
        )
    return conditions


def node_status(
    spec: HostSpec,
    *,
    boot_id: str,
    volumes_in_use: list[str],
    now: float,
    ready_since: str | None = None,
    pressures: Mapping[str, tuple[str, str, str]] | None = None,
) -> Obj:
    """Return the whole status that the kubelet owns; ``pressures`` as in ``node_conditions``."""
    resources = {
        "cpu": str(spec.cpus),
        "memory": f"{spec.memory_mib}Mi",
        "pods": str(spec.pods_max),
        "devices.kubevirt.io/kvm": "1k",
    }
    return {
        "capacity": resources,
        "allocatable": dict(resources),
        "conditions": node_conditions(now, ready_since, pressures),
        "addresses": [
            {"type": "InternalIP", "address": spec.address},
            {"type": "Hostname", "address": spec.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": spec.kubelet_port}},
        "nodeInfo": {
            "machineID": spec.system_uuid.replace("-", ""),
            "systemUUID": spec.system_uuid,
            "bootID": boot_id,
            "kernelVersion": "6.12.0-sim",
            "osImage": "Simulated Linux",
            "containerRuntimeVersion": "cri-o://1.36.0",
            "kubeletVersion": _KUBELET_VERSION,
            "kubeProxyVersion": _KUBELET_VERSION,
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
        "volumesInUse": volumes_in_use,
    }


def new_lease(spec: HostSpec, settings: HostSettings, *, node_uid: str, now: float) -> Obj:
    """Return the node's Lease; it belongs to the Node and goes with it."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": spec.name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": spec.name, "uid": node_uid}
            ],
        },
        "spec": {
            "holderIdentity": spec.name,
            "leaseDurationSeconds": settings.lease_duration_s,
            "renewTime": rfc3339_micro(now),
        },
    }
