"""The phases of a live migration, and why one fails (kv migration.go updateStatus)."""

from __future__ import annotations

from remediator.sim.controllers.metadata import Obj, is_deleting, phase_of, uid_of
from remediator.sim.controllers.pod_state import is_ready_for_handover, is_terminal
from remediator.sim.controllers.vmi_state import is_final, vmi_node

HANDED_OFF_PHASES = ("PreparingTarget", "TargetReady", "Running")
"""From here on both virt-handlers know of the migration."""

_TARGET_CREATED_PHASES = ("Scheduling", "Scheduled", *HANDED_OFF_PHASES)


def migration_state(vmi: Obj) -> Obj:
    """Return status.migrationState of a VMI; empty when there never was a migration."""
    state: Obj = (vmi.get("status") or {}).get("migrationState") or {}
    return state


def failure(migration: Obj, vmi: Obj | None, target: Obj | None) -> str | None:
    """Return why the migration has failed, None while it has not; the first reason that holds."""
    if vmi is None:
        return "vmi does not exist."
    phase = phase_of(migration)
    handed_off = phase in HANDED_OFF_PHASES
    state = migration_state(vmi)
    mine = state.get("migrationUid") == uid_of(migration)
    reasons = (
        (is_final(vmi), "vmi shutdown during migration."),
        # A successor of the VMI that was to be migrated. Its pod waits for this migration to end,
        # so waiting here for that pod would stop both for ever.
        (phase_of(vmi) != "Running", "vmi is not running."),
        # lab section 4: deleted before the copy begins, it ends though no virt-handler helps.
        (
            is_deleting(migration) and phase != "Running" and not state_started(state, mine=mine),
            "due to being canceled",
        ),
        (
            target is not None and is_terminal(target),
            "target pod shutdown during migration",
        ),
        (
            target is None and phase in _TARGET_CREATED_PHASES,
            "Migration target pod was removed during active migration.",
        ),
        (
            handed_off and not mine,
            "VMI's migration state was cleared or taken over during the active migration.",
        ),
        (mine and bool(state.get("failed")), "source node reported migration failed"),
    )
    return next((why for holds, why in reasons if holds), None)


def state_started(state: Obj, *, mine: bool) -> bool:
    """Whether the source has begun to copy memory for this migration."""
    return mine and bool(state.get("startTimestamp"))


def next_phase(migration: Obj, vmi: Obj, target: Obj | None) -> str | None:
    """Return the phase to go on to, None to stay."""
    state = migration_state(vmi)
    mine = state.get("migrationUid") == uid_of(migration)
    ready = target is not None and is_ready_for_handover(target)
    taken_over = bool(state.get("completed")) and vmi_node(vmi) == state.get("targetNode")
    steps = {
        "": ("Pending", True),
        "Pending": ("Scheduling", target is not None),
        "Scheduling": ("Scheduled", ready),
        "Scheduled": ("PreparingTarget", mine),
        "PreparingTarget": ("TargetReady", bool(state.get("targetNodeAddress"))),
        "TargetReady": ("Running", bool(state.get("startTimestamp"))),
        "Running": ("Succeeded", mine and taken_over),
    }
    phase, reached = steps[phase_of(migration)]
    return phase if reached else None
