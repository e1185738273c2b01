"""The objects of a simulated cluster: nodes, storage, VMs, and what a running VM consists of."""

from __future__ import annotations

from typing import Any

from remediator.sim.cluster_spec import ClusterSpec, VmSpec
from remediator.sim.controllers import launcher_pod
from remediator.sim.controllers.vm_controller import instance_of_template
from remediator.sim.controllers.volumes import attachment_name
from remediator.sim.hosts.domain import ANNOTATION_IGNORES_SHUTDOWN, ANNOTATION_NO_AGENT
from remediator.sim.hosts.handler_pod import handler_pod_status, new_handler_pod
from remediator.sim.hosts.node_object import (
    HEARTBEAT_ANNOTATION,
    LEASE_NAMESPACE,
    SCHEDULABLE_LABEL,
    new_lease,
    new_node,
    node_status,
)
from remediator.sim.hosts.settings import HostSpec
from remediator.sim.hosts.vmi_status import NODE_LABEL
from remediator.sim.resources import (
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VOLUME_ATTACHMENTS,
    ResourceType,
)
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339

Obj = dict[str, Any]

CSI_DRIVER = "csi.sim.remediator.io"
STORAGE_CLASS = "shared-block"
# What the VMI of a running VM went through before.
_PHASES = ("Pending", "Scheduling", "Scheduled", "Running")


class ObjectBuilder:
    """Puts a cluster's objects into the store, as administrators and a long uptime would have."""

    def __init__(self, store: Store, spec: ClusterSpec, now: float) -> None:
        self._store = store
        self._spec = spec
        self._now = now

    def namespaces(self) -> None:
        """Create the namespaces of the VMs and of KubeVirt."""
        for name in dict.fromkeys((LEASE_NAMESPACE, "kubevirt", *self._spec.namespaces)):
            if self._store.find(NAMESPACES, "", name) is None:
                self._create(NAMESPACES, {"metadata": {"name": name}})

    def storage_class(self) -> None:
        """Create the class of all disks: shared, also for ReadWriteOnce."""
        self._create(
            STORAGE_CLASSES,
            {
                "metadata": {
                    "name": STORAGE_CLASS,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": CSI_DRIVER,
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "Immediate",
            },
        )

    def node(self, host: HostSpec, boot_id: str) -> None:
        """Create a registered, ready node with its lease and virt-handler's heartbeat."""
        obj = new_node(host)
        if not host.control_plane:
            obj["metadata"]["labels"][SCHEDULABLE_LABEL] = "true"
            obj["metadata"]["annotations"][HEARTBEAT_ANNOTATION] = rfc3339(self._now)
        status = node_status(host, boot_id=boot_id, volumes_in_use=[], now=self._now)
        node = self._create(NODES, obj, status)
        lease = new_lease(host, self._spec.hosts, node_uid=node["metadata"]["uid"], now=self._now)
        self._create(LEASES, lease)
        if not host.control_plane:
            status = handler_pod_status(self._now, ready=True)
            self._create(PODS, new_handler_pod(host.name, 0), status)

    def virtual_machine(self, vm: VmSpec) -> None:
        """Create a VM and its disk."""
        if vm.access_mode:
            self._disk(vm)
        self._create(VIRTUAL_MACHINES, vm_object(vm))

    def run(self, vm: VmSpec, node: str) -> None:
        """Make a VM run on a node, booted: VMI, launcher pod and attached volume."""
        owner = self._store.get(VIRTUAL_MACHINES, vm.namespace, vm.name)
        now = rfc3339(self._now)
        vmi = instance_of_template(owner)
        vmi["metadata"]["labels"][NODE_LABEL] = node
        vmi["status"] = {
            "phase": "Running",
            "nodeName": node,
            "phaseTransitionTimestamps": [
                {"phase": phase, "phaseTransitionTimestamp": now} for phase in _PHASES
            ],
            "conditions": _vmi_conditions(vm, now),
        }
        vmi = self._create(VIRTUAL_MACHINE_INSTANCES, vmi)
        pod = launcher_pod.render(vmi, self._spec.controllers)
        pod["spec"]["nodeName"] = node
        self._create(PODS, pod, _running_pod_status(pod, now))
        if vm.access_mode:
            volume = self._store.get(PERSISTENT_VOLUMES, "", volume_name(vm))
            attachment = {
                "metadata": {"name": attachment_name(volume, node)},
                "spec": {
                    "attacher": CSI_DRIVER,
                    "nodeName": node,
                    "source": {"persistentVolumeName": volume_name(vm)},
                },
            }
            self._create(VOLUME_ATTACHMENTS, attachment, {"attached": True})

    def _disk(self, vm: VmSpec) -> None:
        capacity = {"storage": "30Gi"}
        name = volume_name(vm)
        claim_key = {"namespace": vm.namespace, "name": claim_name(vm)}
        volume = {
            "metadata": {"name": name},
            "spec": {
                "capacity": capacity,
                "accessModes": [vm.access_mode],
                "volumeMode": "Block",
                "storageClassName": STORAGE_CLASS,
                "persistentVolumeReclaimPolicy": "Delete",
                "csi": {"driver": CSI_DRIVER, "volumeHandle": f"vol-{name}"},
                "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **claim_key},
            },
        }
        claim = {
            "metadata": claim_key,
            "spec": {
                "accessModes": [vm.access_mode],
                "volumeMode": "Block",
                "storageClassName": STORAGE_CLASS,
                "volumeName": name,
                "resources": {"requests": capacity},
            },
        }
        self._create(PERSISTENT_VOLUMES, volume, {"phase": "Bound"})
        bound = {"phase": "Bound", "accessModes": [vm.access_mode], "capacity": capacity}
        self._create(PERSISTENT_VOLUME_CLAIMS, claim, bound)

    def _create(self, res: ResourceType, obj: Obj, status: Obj | None = None) -> Obj:
        created = self._store.create(res, {"apiVersion": res.api_version, "kind": res.kind, **obj})
        if status is None:
            return created
        meta = created["metadata"]

        def set_status(obj: Obj) -> None:
            obj["status"] = {**(obj.get("status") or {}), **status}

        return self._store.mutate(
            res, meta.get("namespace", ""), meta["name"], set_status, subresource="status"
        )


def claim_name(vm: VmSpec) -> str:
    """Return the name of the VM's claim."""
    return f"{vm.name}-disk"


def volume_name(vm: VmSpec) -> str:
    """Return the name of the VM's PersistentVolume."""
    return f"pv-{vm.namespace}-{vm.name}"


def vm_object(vm: VmSpec) -> Obj:
    """Return the VirtualMachine."""
    annotations: dict[str, str] = {}
    if not vm.agent:
        annotations[ANNOTATION_NO_AGENT] = "true"
    if vm.ignores_shutdown:
        annotations[ANNOTATION_IGNORES_SHUTDOWN] = "true"
    volumes: list[Obj]
    if vm.access_mode:
        volumes = [{"name": "disk", "persistentVolumeClaim": {"claimName": claim_name(vm)}}]
    else:
        image = "quay.io/containerdisks/fedora:latest"
        volumes = [{"name": "disk", "containerDisk": {"image": image}}]
    migrates = vm.access_mode in ("", "ReadWriteMany")
    return {
        "metadata": {
            "name": vm.name,
            "namespace": vm.namespace,
            "labels": {"app": vm.name},
        },
        "spec": {
            "runStrategy": vm.run_strategy,
            "template": {
                "metadata": {
                    "labels": {"kubevirt.io/vm": vm.name, "app": vm.apart or vm.name},
                    "annotations": annotations,
                },
                "spec": {
                    "terminationGracePeriodSeconds": vm.grace_s,
                    "evictionStrategy": "LiveMigrate" if migrates else "None",
                    "domain": {
                        "cpu": {"cores": vm.cpus},
                        "memory": {"guest": f"{vm.memory_mib}Mi"},
                        "devices": {"disks": [{"name": "disk", "disk": {"bus": "virtio"}}]},
                    },
                    "volumes": volumes,
                    **_affinity(vm),
                },
            },
        },
    }


def _affinity(vm: VmSpec) -> Obj:
    if not vm.apart:
        return {}
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": vm.apart}},
    }
    rule = "requiredDuringSchedulingIgnoredDuringExecution"
    return {"affinity": {"podAntiAffinity": {rule: [term]}}}


def _condition(type_: str, now: str, status: str = "True", **more: str) -> Obj:
    return {
        "type": type_,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": now,
        **more,
    }


def _vmi_conditions(vm: VmSpec, now: str) -> list[Obj]:
    conditions = [_condition("Ready", now)]
    if vm.access_mode == "ReadWriteOnce":
        reason = "DisksNotLiveMigratable"
        conditions.append(_condition("LiveMigratable", now, "False", reason=reason))
    else:
        conditions.append(_condition("LiveMigratable", now))
    if vm.agent:
        conditions.append(_condition("AgentConnected", now))
    return conditions


def _running_pod_status(pod: Obj, now: str) -> Obj:
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [
            {"type": type_, "status": "True", "lastTransitionTime": now}
            for type_ in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ],
    }
