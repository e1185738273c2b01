"""The virt-launcher pod of a VMI, as virt-controller's template service renders it."""

from __future__ import annotations

from remediator.sim.controllers.metadata import (
    Obj,
    annotations_of,
    key_of,
    labels_of,
    owner_reference,
    uid_of,
)
from remediator.sim.controllers.node_affinity import HOSTNAME
from remediator.sim.controllers.pod_state import COMPUTE
from remediator.sim.controllers.quantities import mebibytes, quantity
from remediator.sim.controllers.settings import ControlPlaneSettings
from remediator.sim.controllers.vmi_state import (
    CREATED_BY_LABEL,
    MIGRATION_JOB_LABEL,
    SCHEDULABLE_LABEL,
)
from remediator.sim.resources import PODS, VIRTUAL_MACHINE_INSTANCES

_CPU_ALLOCATION_RATIO = 10.0
"""kv default cpuAllocationRatio: a virtual CPU asks for a tenth of a core."""

_IMAGE = "quay.io/kubevirt/virt-launcher:v1.8.0"


def render(vmi: Obj, settings: ControlPlaneSettings) -> Obj:
    """Return the launcher pod to create for a VMI."""
    namespace, name = key_of(vmi)
    spec = vmi["spec"]
    grace_s = spec.get("terminationGracePeriodSeconds")
    pod: Obj = {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            "generateName": f"virt-launcher-{name}-",
            "namespace": namespace,
            "labels": {
                **labels_of(vmi),
                "kubevirt.io": "virt-launcher",
                CREATED_BY_LABEL: uid_of(vmi),
                "vm.kubevirt.io/name": name,
                "vmi.kubevirt.io/id": name,
            },
            "annotations": {**annotations_of(vmi), "kubevirt.io/domain": name},
            "ownerReferences": [owner_reference(vmi, VIRTUAL_MACHINE_INSTANCES)],
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": settings.launcher_extra_grace_s
            + (settings.vmi_grace_s if grace_s is None else int(grace_s)),
            "nodeSelector": {**(spec.get("nodeSelector") or {}), SCHEDULABLE_LABEL: "true"},
            "hostname": name,
            "volumes": _volumes(spec.get("volumes") or []),
            "containers": [
                {
                    "name": COMPUTE,
                    "image": _IMAGE,
                    "resources": {"requests": _requests(spec, settings)},
                }
            ],
        },
    }
    for field in ("affinity", "tolerations", "priorityClassName", "schedulerName"):
        if spec.get(field):
            pod["spec"][field] = spec[field]
    if spec.get("topologySpreadConstraints"):
        pod["spec"]["topologySpreadConstraints"] = spec["topologySpreadConstraints"]
    return pod


def render_migration_target(
    vmi: Obj, migration: Obj, source: Obj, settings: ControlPlaneSettings
) -> Obj:
    """Return the pod that a live migration moves the VMI into: on another node than ``source``."""
    pod = render(vmi, settings)
    meta = pod["metadata"]
    meta["labels"][MIGRATION_JOB_LABEL] = uid_of(migration)
    meta["annotations"]["kubevirt.io/migrationJobName"] = key_of(migration)[1]
    pod["spec"]["nodeSelector"].update(migration["spec"].get("addedNodeSelector") or {})
    affinity = dict(pod["spec"].get("affinity") or {})
    anti = dict(affinity.get("podAntiAffinity") or {})
    term = {
        "labelSelector": {"matchLabels": {CREATED_BY_LABEL: labels_of(source)[CREATED_BY_LABEL]}},
        "topologyKey": HOSTNAME,
    }
    rule = "requiredDuringSchedulingIgnoredDuringExecution"
    anti[rule] = [*(anti.get(rule) or []), term]
    pod["spec"]["affinity"] = {**affinity, "podAntiAffinity": anti}
    return pod


def claims_of(vmi: Obj) -> list[str]:
    """Return the names of the PersistentVolumeClaims of the VMI's disks."""
    found = []
    for volume in vmi["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            found.append(volume["persistentVolumeClaim"]["claimName"])
        elif volume.get("dataVolume"):
            found.append(volume["dataVolume"]["name"])
    return found


def _volumes(disks: list[Obj]) -> list[Obj]:
    volumes: list[Obj] = []
    for disk in disks:
        claim = disk.get("persistentVolumeClaim", {}).get("claimName")
        claim = claim or disk.get("dataVolume", {}).get("name")
        if claim:
            volumes.append({"name": disk["name"], "persistentVolumeClaim": {"claimName": claim}})
    volumes.append({"name": "libvirt-runtime", "emptyDir": {}})
    return volumes


def _requests(spec: Obj, settings: ControlPlaneSettings) -> Obj:
    domain = spec.get("domain") or {}
    asked = (domain.get("resources") or {}).get("requests") or {}
    topology = domain.get("cpu") or {}
    cpus = (
        int(topology.get("cores") or 1)
        * int(topology.get("sockets") or 1)
        * int(topology.get("threads") or 1)
    )
    guest = (domain.get("memory") or {}).get("guest") or asked.get("memory") or 0
    overhead = settings.launcher_overhead_mib * 2.0**20
    return {
        "cpu": str(asked.get("cpu") or f"{int(1000 * cpus / _CPU_ALLOCATION_RATIO)}m"),
        "memory": mebibytes(quantity(guest) + overhead),
    }
