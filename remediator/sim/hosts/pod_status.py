"""The status of a pod, as its kubelet reports it."""

from __future__ import annotations

from remediator.sim.hosts.wire import Obj
from remediator.sim.timestamps import rfc3339


def running_status(
    pod: Obj,
    *,
    now: float,
    started_at: str,
    host_ip: str,
    pod_ip: str,
    ready: bool,
    was_unready: bool,
) -> Obj:
    """Return the status of a pod whose containers run; ``ready`` is its readiness probe's word."""
    conditions = [_condition("Initialized", now)]
    for type_ in ("ContainersReady", "Ready"):
        if not ready:
            why = "containers with unready status: [compute]"
            condition = _condition(type_, now, "False", reason="ContainersNotReady", message=why)
        elif was_unready:
            # A merge keeps what is not named: null takes the reason of the failure away.
            condition = _condition(type_, now, reason=None, message=None)
        else:
            condition = _condition(type_, now)
        conditions.append(condition)
    return {
        "phase": "Running",
        "hostIP": host_ip,
        "podIP": pod_ip,
        "startTime": started_at,
        "conditions": conditions,
        "containerStatuses": _containers(
            pod, {"running": {"startedAt": started_at}}, ready=ready, started=True
        ),
    }


def waiting_status(pod: Obj, reason: str) -> Obj:
    """Return the status of a pod whose containers wait for their images."""
    state = {"waiting": {"reason": reason, "message": "Back-off pulling image"}}
    return {"phase": "Pending", "containerStatuses": _containers(pod, state)}


def ended_status(pod: Obj, phase: str, reason: str, now: float) -> Obj:
    """Return the status of a pod that has ended, Succeeded or Failed."""
    well = phase == "Succeeded"
    terminated = {
        "exitCode": 0 if well else 137,
        "reason": reason or ("Completed" if well else "Error"),
        "finishedAt": rfc3339(now),
    }
    return {
        "phase": phase,
        "conditions": [
            _condition(type_, now, "False", reason=f"Pod{phase}")
            for type_ in ("Ready", "ContainersReady")
        ],
        "containerStatuses": _containers(pod, {"terminated": terminated}),
    }


def _condition(type_: str, now: float, status: str = "True", **more: str | None) -> Obj:
    return {"type": type_, "status": status, "lastTransitionTime": rfc3339(now), **more}


def _containers(pod: Obj, state: Obj, *, ready: bool = False, started: bool = False) -> list[Obj]:
    return [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": ready,
            "started": started,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]
