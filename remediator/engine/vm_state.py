"""What is remembered of the incidents of VMs: how each kind of record changes it.

A part of ``state.apply``, for the incidents of VMs have another course than those of nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.incidents import InvariantError, VmIncident
from remediator.engine.model import Action, Outcome, OutcomeStatus, Snapshot

if TYPE_CHECKING:
    from remediator.engine.state import EngineState

# Values of the facet "agent" that say that the guest agent has answered in this run.
_HEARD = frozenset({"up", "lost"})


def concerns(state: EngineState, decision: Decision) -> bool:
    """Whether this record opens the incident of a VM, or belongs to one that is open."""
    opened = decision.kind is DecisionKind.OPENED and decision.subject.kind == "vm"
    return opened or decision.incident in state.vm_incidents


def apply_vm(state: EngineState, decision: Decision) -> None:
    """Change the incident of a VM by a record of it."""
    if decision.kind is DecisionKind.OPENED:
        _open(state, decision)
        return
    incident = state.vm_incidents[decision.incident]
    incident.state = decision.state or incident.state
    if decision.action is not None:
        if decision.outcome is None:
            _start(state, incident, decision, decision.action)
        else:
            _finish(state, incident, decision, decision.action, decision.outcome)
    match decision.kind:
        case DecisionKind.VERDICT:
            _verdict(incident, decision)
        case DecisionKind.PLANNED if decision.plan is not None:
            incident.plan = decision.plan
            _begin(incident)
        case DecisionKind.REFUSED:
            incident.answered, incident.retry_at = decision.stage, decision.retry_at or 0.0
        case DecisionKind.ESCALATED:
            _escalate(incident, decision)
        case DecisionKind.MOVED_ON:
            incident.step += 1
            incident.awaiting, incident.retry_at = False, 0.0
        case DecisionKind.RESOLVED:
            del state.vm_incidents[incident.id]
            del state.vm_open_on[str(incident.subject)]
        case _:
            pass


def anchor_times(state: EngineState, at: float) -> None:
    """Begin all waits anew: the leader before had another clock, which may be off by anything."""
    for incident in state.vm_incidents.values():
        incident.opened_at = min(incident.opened_at, at)
        incident.verdict_at, incident.retry_at = at, 0.0


def _open(state: EngineState, decision: Decision) -> None:
    if decision.state is None or decision.verdict is None:
        raise InvariantError(f"record {decision.seq} opens an incident without state or verdict")
    incident = VmIncident(
        id=decision.incident,
        subject=decision.subject,
        state=decision.state,
        opened_at=decision.at,
        vmi_uid=decision.uid,
        verdict=decision.verdict,
        verdict_at=decision.at,
        row=decision.row,
        agent=_agent_heard(decision),
        heard_uid=decision.uid if _agent_heard(decision) else "",
    )
    state.vm_incidents[decision.incident] = incident
    state.vm_open_on[str(decision.subject)] = decision.incident


def _verdict(incident: VmIncident, decision: Decision) -> None:
    if decision.verdict is None:
        return
    if decision.verdict is not incident.verdict:
        # Other evidence deserves another try at once.
        incident.retry_at, incident.answered = 0.0, ""
    incident.verdict, incident.verdict_at = decision.verdict, decision.at
    incident.row = decision.row
    incident.vmi_uid = decision.uid or incident.vmi_uid
    if _agent_heard(decision):
        incident.agent, incident.heard_uid = True, incident.vmi_uid


def _agent_heard(decision: Decision) -> bool:
    return any(row.plane == "agent" and row.value in _HEARD for row in decision.evidence)


def _begin(incident: VmIncident) -> None:
    """Begin a plan, or begin it anew."""
    incident.step, incident.attempts, incident.done = 0, {}, {}
    incident.awaiting, incident.retry_at, incident.answered = False, 0.0, ""


def _escalate(incident: VmIncident, decision: Decision) -> None:
    """Take in that a human was told: the plan is through, or one step is tried on slowly."""
    what, _, step = decision.stage.partition(":")
    if what == "exhausted":
        _begin(incident)
    elif what == "slow":
        incident.attempts.pop(step, None)
        incident.done.pop(step, None)
        incident.awaiting = False
    elif what == "hold":
        incident.awaiting = False
    incident.answered, incident.retry_at = decision.stage, decision.retry_at or 0.0


def _start(state: EngineState, incident: VmIncident, decision: Decision, action: Action) -> None:
    state.pending[action.id] = action
    state.busy[str(action.subject)] = action.id
    if decision.kind is DecisionKind.RESUMED:
        return
    incident.started += 1
    incident.attempts[incident.next_step] = action.attempt
    incident.run_uid = decision.uid
    incident.awaiting, incident.answered = False, ""


def _finish(
    state: EngineState,
    incident: VmIncident,
    decision: Decision,
    action: Action,
    outcome: Outcome,
) -> None:
    state.pending.pop(action.id, None)
    state.busy.pop(str(action.subject), None)
    step = incident.next_step
    if outcome.status is not OutcomeStatus.SUCCEEDED:
        incident.retry_at = decision.retry_at or 0.0
        return
    incident.retry_at = 0.0
    incident.done[step] = incident.done.get(step, 0) + 1
    if isinstance(action.work, Snapshot):
        incident.step += 1  # it is there: nothing more is awaited of it
    else:
        incident.awaiting = True
