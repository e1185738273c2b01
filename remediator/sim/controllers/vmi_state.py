"""What the fields of a VirtualMachineInstance mean, and the names KubeVirt gives its parts."""

from __future__ import annotations

from collections.abc import Iterable

from remediator.sim.controllers.metadata import Obj, phase_of
from remediator.sim.controllers.pod_state import node_name

FOREGROUND_FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"
"""Set by virt-api; falls when the VMI is final and no launcher pod is left."""
CONTROLLER_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
"""Set by the VM controller on the VMI and on the VM itself."""
MIGRATION_FINALIZER = "kubevirt.io/migrationJobFinalize"

NODE_NAME_LABEL = "kubevirt.io/nodeName"
TARGET_NODE_LABEL = "kubevirt.io/migrationTargetNodeName"
CREATED_BY_LABEL = "kubevirt.io/created-by"
MIGRATION_JOB_LABEL = "kubevirt.io/migrationJobUID"
VMI_NAME_LABEL = "kubevirt.io/vmi-name"
SCHEDULABLE_LABEL = "kubevirt.io/schedulable"
HEARTBEAT_ANNOTATION = "kubevirt.io/heartbeat"

FINAL_PHASES = ("Succeeded", "Failed")
UNPROCESSED_PHASES = ("", "Pending")
FINAL_MIGRATION_PHASES = ("Succeeded", "Failed")


def is_final(vmi: Obj) -> bool:
    """Return True when the VMI has ended."""
    return phase_of(vmi) in FINAL_PHASES


def vmi_node(vmi: Obj) -> str:
    """Return the node that runs the VMI; empty before the hand-over."""
    name: str = (vmi.get("status") or {}).get("nodeName") or ""
    return name


def was_running(vmi: Obj) -> bool:
    """Return True when the VMI ever reached Running (kv wasVMIInRunningPhase)."""
    stamps = (vmi.get("status") or {}).get("phaseTransitionTimestamps") or ()
    return phase_of(vmi) == "Running" or any(stamp["phase"] == "Running" for stamp in stamps)


def set_phase(vmi: Obj, phase: str, now: str) -> None:
    """Set the phase of a VMI that is being changed, and note when."""
    status = vmi.setdefault("status", {})
    if status.get("phase") == phase:
        return
    status["phase"] = phase
    stamps = status.setdefault("phaseTransitionTimestamps", [])
    stamps.append({"phase": phase, "phaseTransitionTimestamp": now})


def current_pod(vmi: Obj, pods: Iterable[Obj]) -> Obj | None:
    """Return the launcher pod that counts: on the VMI's node if it has one, the newest of them.

    kv CurrentVMIPod: during a migration the target's pod is on another node and does not count.
    """
    node = vmi_node(vmi)
    newest: Obj | None = None
    for pod in pods:
        if node and node_name(pod) != node:
            continue
        if newest is None or _created(pod) >= _created(newest):
            newest = pod
    return newest


def _created(pod: Obj) -> str:
    created: str = pod["metadata"]["creationTimestamp"]
    return created
