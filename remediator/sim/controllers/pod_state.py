"""What a pod's fields mean: terminal, going down, ready for hand-over, gated."""

from __future__ import annotations

from remediator.sim.controllers.metadata import Obj, is_deleting, phase_of

COMPUTE = "compute"
"""The launcher pod's container in which the guest runs."""

JsonStatuses = list[Obj]


def node_name(pod: Obj) -> str:
    """Return the node that the pod is bound to; empty while it is not."""
    name: str = pod["spec"].get("nodeName") or ""
    return name


def is_terminal(pod: Obj) -> bool:
    """Return True when the pod has ended: phase Succeeded or Failed."""
    return phase_of(pod) in ("Succeeded", "Failed")


def _container_statuses(pod: Obj) -> JsonStatuses:
    return (pod.get("status") or {}).get("containerStatuses") or []


def all_containers_terminated(pod: Obj) -> bool:
    """Return True when the kubelet has reported every container as terminated."""
    statuses = _container_statuses(pod)
    return bool(statuses) and all(
        (status.get("state") or {}).get("terminated") is not None for status in statuses
    )


def releases_volumes(pod: Obj) -> bool:
    """Return True when the attach-detach controller no longer wants the pod's volumes attached.

    k8s IsPodTerminated: ended, or being deleted with no container running.
    """
    return is_terminal(pod) or (is_deleting(pod) and all_containers_terminated(pod))


def is_down_or_going_down(pod: Obj) -> bool:
    """Return True when the launcher ended or was told to end (kv IsPodDownOrGoingDown)."""
    if is_terminal(pod) or is_deleting(pod):
        return True
    return any(
        status["name"] == COMPUTE and (status.get("state") or {}).get("terminated") is not None
        for status in _container_statuses(pod)
    )


def is_ready_for_handover(pod: Obj) -> bool:
    """Return True when virt-controller may hand the VMI over to virt-handler (kv IsPodReady).

    The compute container only has to run; its readiness may depend on the guest.
    """
    if is_down_or_going_down(pod) or phase_of(pod) != "Running":
        return False
    for status in _container_statuses(pod):
        if status["name"] == COMPUTE:
            if (status.get("state") or {}).get("running") is None:
                return False
        elif not status.get("ready"):
            return False
    return True


def is_gated(pod: Obj) -> bool:
    """Return True while the pod has scheduling gates."""
    return bool(pod["spec"].get("schedulingGates"))


def claim_names(pod: Obj) -> list[str]:
    """Return the names of the PersistentVolumeClaims that the pod mounts."""
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    ]
