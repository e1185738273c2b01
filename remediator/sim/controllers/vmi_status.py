"""The status of a VirtualMachineInstance that virt-controller owns (kv vmi/lifecycle.go)."""

from __future__ import annotations

from remediator.sim.controllers.conditions import (
    condition_is,
    find_condition,
    remove_condition,
    set_condition,
)
from remediator.sim.controllers.metadata import Obj, is_deleting, phase_of, remove_finalizer, uid_of
from remediator.sim.controllers.pod_state import (
    is_down_or_going_down,
    is_ready_for_handover,
    node_name,
)
from remediator.sim.controllers.vmi_state import (
    CONTROLLER_FINALIZER,
    FINAL_PHASES,
    FOREGROUND_FINALIZER,
    NODE_NAME_LABEL,
    UNPROCESSED_PHASES,
    set_phase,
)

POD_SCHEDULED = "PodScheduled"
SYNCHRONIZED = "Synchronized"
IMAGE_TROUBLES = ("ErrImagePull", "ImagePullBackOff")


def update_status(
    vmi: Obj, pod: Obj | None, owned: list[Obj], *, owned_by_vm: bool, now: str
) -> None:
    """Bring a VMI that is being changed up to date with its launcher pods.

    ``pod`` is the one that counts, ``owned`` are all of them. Never looks at nodes: a VMI is
    Running as long as its pod object exists.
    """
    phase = phase_of(vmi)
    _sync_active_pods(vmi, owned)
    _sync_ready(vmi, pod, now)
    if phase in UNPROCESSED_PHASES:
        _unprocessed(vmi, pod, now)
    elif phase == "Scheduling":
        _scheduling(vmi, pod, now)
    elif phase in ("Scheduled", "Running"):
        if pod is None:
            set_phase(vmi, "Failed", now)
    elif phase in FINAL_PHASES:
        if not owned:
            remove_finalizer(vmi, FOREGROUND_FINALIZER)
        if not owned_by_vm:
            remove_finalizer(vmi, CONTROLLER_FINALIZER)


def _unprocessed(vmi: Obj, pod: Obj | None, now: str) -> None:
    if pod is not None:
        set_phase(vmi, "Scheduling", now)
    elif is_deleting(vmi):
        set_phase(vmi, "Failed", now)
    else:
        set_phase(vmi, "Pending", now)


def _scheduling(vmi: Obj, pod: Obj | None, now: str) -> None:
    if pod is None:
        set_phase(vmi, "Failed", now)
        return
    if condition_is(pod, POD_SCHEDULED, "False"):
        reason = find_condition(pod, POD_SCHEDULED) or {}
        set_condition(
            vmi,
            POD_SCHEDULED,
            "False",
            now=now,
            reason=reason.get("reason") or "",
            message=reason.get("message") or "",
        )
    else:
        remove_condition(vmi, POD_SCHEDULED)
    waiting = image_trouble(pod)
    if waiting:
        set_condition(vmi, SYNCHRONIZED, "False", now=now, reason=waiting, message=waiting)
    else:
        remove_condition(vmi, SYNCHRONIZED)
    if is_ready_for_handover(pod) and not is_deleting(vmi):
        set_phase(vmi, "Scheduled", now)
        vmi["metadata"].setdefault("labels", {})[NODE_NAME_LABEL] = node_name(pod)
        vmi["status"]["nodeName"] = node_name(pod)
    elif is_down_or_going_down(pod):
        set_phase(vmi, "Failed", now)


def image_trouble(pod: Obj) -> str:
    """Return why an image of the pod is not there; empty when none is missing."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        reason: str = ((container.get("state") or {}).get("waiting") or {}).get("reason", "")
        if reason in IMAGE_TROUBLES:
            return reason
    return ""


def _sync_active_pods(vmi: Obj, owned: list[Obj]) -> None:
    status = vmi.setdefault("status", {})
    active = {uid_of(pod): node_name(pod) for pod in owned}
    if active:
        status["activePods"] = active
    else:
        status.pop("activePods", None)


def _sync_ready(vmi: Obj, pod: Obj | None, now: str) -> None:
    """Set the Ready condition (kv syncReadyConditionFromPod)."""
    status, reason, message = "False", "", ""
    if pod is None:
        reason, message = "PodNotExists", "virt-launcher pod has not yet been scheduled"
    elif is_down_or_going_down(pod):
        reason, message = "PodTerminating", "virt-launcher pod is terminating"
    elif phase_of(vmi) != "Running":
        reason, message = "GuestNotRunning", "Guest VM is not reported as running"
    elif (ready := find_condition(pod, "Ready")) is not None:
        status = ready["status"]
        reason, message = ready.get("reason") or "", ready.get("message") or ""
    else:
        reason = "PodConditionMissing"
        message = "virt-launcher pod is missing the Ready condition"
    set_condition(vmi, "Ready", status, now=now, reason=reason, message=message)
