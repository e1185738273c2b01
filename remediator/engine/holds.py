"""What a person's pause or cancellation does to incidents that are open.

A frozen or cancelled plan is held at its next safe point: what is under way ends, nothing further
begins. An ignored node's incident is closed at that point. Clean-up is never held: a node that is
back is released, whatever is paused.
"""

from __future__ import annotations

from remediator.engine import safeguards
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.incidents import DONE_STAGES, Incident, Stage, Trigger
from remediator.engine.model import IncidentState

_PROVEN = frozenset({IncidentState.FENCED, IncidentState.RECOVERING})


def closed(context: Context, incident: Incident) -> bool:
    """Close the incident of an ignored node, unless something of it is under way; True: closed.

    A node that is being emptied takes its migrations back first, as if it were paused.
    """
    why = safeguards.ignored(context, incident.subject)
    if not why or _is_busy(context, incident):
        return False
    proven = incident.state in _PROVEN
    left = ""
    if proven:
        open_vms = sum(1 for each in incident.vms.values() if each.stage not in DONE_STAGES)
        left = f"; it was {incident.state}, and {open_vms} of its VMs are left as they are"
    context.record(
        DecisionKind.RESOLVED,
        incident.subject,
        f"none of our business any more: {why}{left}",
        incident=incident,
        trigger=Trigger.RECOVERED if proven else Trigger.CLEARED,
    )
    return True


def holds(context: Context, incident: Incident) -> bool:
    """Hold what follows a proof, and say so once; True: it is held."""
    why = safeguards.held(context, incident)
    if not why:
        return False
    key = f"held:{why}"
    if incident.answered != key:
        context.record(
            DecisionKind.REFUSED,
            incident.subject,
            f"held at {incident.state}: {why}",
            incident=incident,
            guards=safeguards.withheld(safeguards.stops(context, incident)),
            stage=key,
        )
    return True


def _is_busy(context: Context, incident: Incident) -> bool:
    busy = context.state.busy
    if incident.state is IncidentState.EVACUATING and any(
        each.stage in (Stage.MIGRATING, Stage.CANCELLING) for each in incident.vms.values()
    ):
        return True
    return str(incident.subject) in busy or any(name in busy for name in incident.vms)
