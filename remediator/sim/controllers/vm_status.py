"""The status of a VirtualMachine: what the VM controller reports (kv vm.go updateStatus)."""

from __future__ import annotations

import random

from remediator.sim.controllers.conditions import condition_is, find_condition, set_condition
from remediator.sim.controllers.metadata import Obj, is_deleting, phase_of, uid_of
from remediator.sim.controllers.run_strategy import (
    ALWAYS,
    ONCE,
    RERUN_ON_FAILURE,
    START,
    STOP,
    requests_of,
    strategy_of,
)
from remediator.sim.controllers.settings import ControlPlaneSettings
from remediator.sim.controllers.snapshots import volume_statuses
from remediator.sim.controllers.vmi_state import UNPROCESSED_PHASES, is_final, was_running
from remediator.sim.controllers.vmi_status import IMAGE_TROUBLES, SYNCHRONIZED
from remediator.sim.timestamps import parse_rfc3339, rfc3339

_BACKING_OFF = (ALWAYS, RERUN_ON_FAILURE, ONCE)


def update_status(
    vm: Obj,
    vmi: Obj | None,
    *,
    now: float,
    rng: random.Random,
    settings: ControlPlaneSettings,
    snapshots: bool = True,
) -> None:
    """Bring the status of a VM that is being changed up to date with its VMI.

    ``snapshots``: whether the storage class of its disks makes snapshots.
    """
    status = vm.setdefault("status", {})
    status["volumeSnapshotStatuses"] = volume_statuses(vm, enabled=snapshots)
    status["created"] = vmi is not None
    status["ready"] = vmi is not None and condition_is(vmi, "Ready", "True")
    # Kept empty until the VM was started for the first time.
    if status.get("runStrategy") or vmi is not None:
        status["runStrategy"] = strategy_of(vm)
    if _first_request_is_done(vm, vmi):
        status["stateChangeRequests"] = requests_of(vm)[1:]
        if not status["stateChangeRequests"]:
            del status["stateChangeRequests"]
    _sync_start_failure(vm, vmi, now=now, rng=rng, settings=settings)
    _sync_ready(vm, vmi, now=rfc3339(now))
    status["printableStatus"] = printable_status(vm, vmi)


def backoff_left_s(vm: Obj, now: float) -> float:
    """Return how long the next start must still wait after start failures, in seconds."""
    failure = (vm.get("status") or {}).get("startFailure")
    if not failure:
        return 0.0
    return max(0.0, parse_rfc3339(failure["retryAfterTimestamp"]) - now)


def printable_status(vm: Obj, vmi: Obj | None) -> str:
    """Return the one word that people read; the first that applies."""
    if is_deleting(vm):
        return "Terminating"
    if vmi is not None and not is_final(vmi):
        return _live_status(vmi)
    failures = ((vm.get("status") or {}).get("startFailure") or {}).get("consecutiveFailCount", 0)
    if failures and strategy_of(vm) in _BACKING_OFF:
        return "CrashLoopBackOff"
    return "Stopped"


def _live_status(vmi: Obj) -> str:
    if is_deleting(vmi):
        return "Stopping"
    migration = (vmi.get("status") or {}).get("migrationState") or {}
    if migration.get("startTimestamp") and not migration.get("endTimestamp"):
        return "Migrating"
    phase = phase_of(vmi)
    if phase == "Running":
        return "Paused" if condition_is(vmi, "Paused", "True") else "Running"
    scheduled = find_condition(vmi, "PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "ErrorUnschedulable"
    synchronized = find_condition(vmi, SYNCHRONIZED) or {}
    if synchronized.get("reason") in IMAGE_TROUBLES:
        return str(synchronized["reason"])
    if phase in (*UNPROCESSED_PHASES, "Scheduling", "Scheduled"):
        return "Starting"
    return "Unknown"


def _first_request_is_done(vm: Obj, vmi: Obj | None) -> bool:
    """Return True when the first state change request may go.

    kv isTrimFirstChangeRequestNeeded.
    """
    requests = requests_of(vm)
    if not requests:
        return False
    first = requests[0]
    if first["action"] == STOP:
        return vmi is None or first.get("uid") != uid_of(vmi)
    if first["action"] == START:
        return vmi is not None and not is_deleting(vmi) and not is_final(vmi)
    return False


def _sync_start_failure(
    vm: Obj, vmi: Obj | None, *, now: float, rng: random.Random, settings: ControlPlaneSettings
) -> None:
    """Count a VMI that failed without ever having run; forget the count once one has run."""
    status = vm["status"]
    if (vmi is not None and was_running(vmi)) or strategy_of(vm) not in _BACKING_OFF:
        status.pop("startFailure", None)
        return
    if vmi is None or not is_final(vmi):
        return
    known = status.get("startFailure") or {}
    if known.get("lastFailedVMIUID") == uid_of(vmi):
        return
    count = known.get("consecutiveFailCount", 0) + 1
    delay_s = start_backoff_s(count, rng=rng, settings=settings)
    status["startFailure"] = {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": uid_of(vmi),
        "retryAfterTimestamp": rfc3339(now + delay_s),
    }


def start_backoff_s(count: int, *, rng: random.Random, settings: ControlPlaneSettings) -> float:
    """Return the wait after the ``count``-th start failure (kv calculateStartBackoffTime)."""
    delay_s = settings.start_backoff_base_s * count**2
    delay_s += rng.randrange(int(delay_s / 2) + 1)
    return min(delay_s, settings.start_backoff_cap_s)


def _sync_ready(vm: Obj, vmi: Obj | None, *, now: str) -> None:
    if vmi is None:
        set_condition(
            vm, "Ready", "False", now=now, reason="VMINotExists", message="VMI does not exist"
        )
        return
    ready = find_condition(vmi, "Ready")
    if ready is None:
        set_condition(
            vm,
            "Ready",
            "False",
            now=now,
            reason="VMIConditionMissing",
            message="VMI is missing the Ready condition",
        )
        return
    set_condition(
        vm,
        "Ready",
        ready["status"],
        now=now,
        reason=ready.get("reason") or "",
        message=ready.get("message") or "",
    )
