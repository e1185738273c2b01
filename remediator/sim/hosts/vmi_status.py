"""What virt-handler writes into a VMI: phase, conditions, place."""

from __future__ import annotations

from remediator.sim.hosts.wire import Obj
from remediator.sim.timestamps import rfc3339

NODE_LABEL = "kubevirt.io/nodeName"
TARGET_NODE_LABEL = "kubevirt.io/migrationTargetNodeName"
FINAL = ("Succeeded", "Failed")


def phase_of(vmi: Obj) -> str:
    """Return status.phase; empty when it was never set."""
    phase: str = (vmi.get("status") or {}).get("phase", "")
    return phase


def vm_of(vmi: Obj) -> str:
    """Return its VM's name in the ledger."""
    meta = vmi["metadata"]
    return f"{meta['namespace']}/{meta['name']}"


def node_of(vmi: Obj) -> str:
    """Return the node whose virt-handler owns the VMI."""
    label: str = (vmi["metadata"].get("labels") or {}).get(NODE_LABEL, "")
    return (vmi.get("status") or {}).get("nodeName") or label


def migration_of(vmi: Obj) -> Obj:
    """Return status.migrationState; empty when there never was a migration."""
    state: Obj = (vmi.get("status") or {}).get("migrationState") or {}
    return state


def nodes_of(vmi: Obj) -> set[str]:
    """Return every node whose virt-handler watches the VMI."""
    labels = vmi["metadata"].get("labels") or {}
    state = migration_of(vmi)
    named = (
        labels.get(NODE_LABEL),
        labels.get(TARGET_NODE_LABEL),
        (vmi.get("status") or {}).get("nodeName"),
        state.get("targetNode"),
        state.get("sourceNode"),
    )
    return {name for name in named if name}


def has_condition(vmi: Obj, type_: str) -> bool:
    """Tell whether the condition is True."""
    return any(
        condition["type"] == type_ and condition["status"] == "True"
        for condition in (vmi.get("status") or {}).get("conditions") or ()
    )


def paused_why(vmi: Obj) -> str:
    """Return the reason of the Paused condition; empty when there is none."""
    for condition in (vmi.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Paused":
            reason: str = condition.get("reason", "")
            return reason
    return ""


def set_phase(vmi: Obj, phase: str, now: float) -> None:
    """Move the phase and note when, as KubeVirt's phaseTransitionTimestamps do."""
    status = vmi.setdefault("status", {})
    status["phase"] = phase
    stamps = status.setdefault("phaseTransitionTimestamps", [])
    stamps[:] = [stamp for stamp in stamps if stamp["phase"] != phase]
    stamps.append({"phase": phase, "phaseTransitionTimestamp": rfc3339(now)})


def set_condition(
    vmi: Obj, type_: str, status: str, now: float, *, reason: str = "", message: str = ""
) -> None:
    """Set a condition as virt-handler does: lastProbeTime is there, and null.

    virt-controller's JSON patches test conditions for exact values (lab section 10).
    """
    held = vmi.setdefault("status", {}).setdefault("conditions", [])
    new: Obj = {
        "type": type_,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": rfc3339(now),
    }
    if reason:
        new["reason"] = reason
    if message:
        new["message"] = message
    for index, old in enumerate(held):
        if old["type"] == type_:
            if old["status"] != status:
                held[index] = new
            return
    held.append(new)


def drop_condition(vmi: Obj, type_: str) -> None:
    """Remove a condition."""
    held = (vmi.get("status") or {}).get("conditions")
    if held:
        held[:] = [condition for condition in held if condition["type"] != type_]
