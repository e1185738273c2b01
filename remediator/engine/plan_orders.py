"""Orders about one incident: approve or deny its plan, try it again, or cancel it."""

from __future__ import annotations

from remediator.engine import order_records
from remediator.engine.context import Context
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.incidents import Incident, VmIncident
from remediator.engine.model import IncidentState, Subject
from remediator.engine.standing import Answer

_PROVEN = frozenset({IncidentState.FENCED, IncidentState.RECOVERING})
_GROUP = "group:"


def give(context: Context, command: CommandGiven) -> None:
    """Obey or refuse it."""
    incident, subject = find(context, command.target)
    if incident is None:
        why = f"{command.target!r} is no open incident, nor a node or VM that has one"
        order_records.refuse(context, command, subject, why)
        return
    refusal = _why_not(context, command, incident)
    if refusal:
        order_records.refuse(context, command, subject, refusal, incident=incident)
        return
    order_records.obey(context, command, subject, incident=incident)


def find(context: Context, target: str) -> tuple[Incident | VmIncident | None, Subject]:
    """Return the open incident that is meant, by its id or its subject, and who it is about.

    A VM that the recovery of its host has in its care stands for that incident.
    """
    state = context.state
    found = state.incidents.get(target) or state.vm_incidents.get(target)
    if found is not None:
        return found, found.subject
    match target.split("/"):
        case ["node", name] if name:
            subject = Subject("node", name)
            return state.incident_on(subject), subject
        case ["vm", namespace, name] if namespace and name:
            subject = Subject("vm", name, namespace)
            own = state.vm_incident_on(subject)
            caring = (each for each in state.incidents.values() if str(subject) in each.vms)
            return own or next(caring, None), subject
        case _:
            return None, Subject("daemon", context.identity)


def _why_not(context: Context, command: CommandGiven, incident: Incident | VmIncident) -> str:
    """Say why it cannot be obeyed; empty where it can."""
    cancelled = incident.id in context.state.cancelled
    match command.verb:
        case Verb.APPROVE | Verb.DENY:
            return _why_not_answered(context, command, incident)
        case Verb.CANCEL if cancelled:
            return f"{incident.id} is cancelled already"
        case Verb.CANCEL if not context.enforce:
            return "observe mode: this daemon does nothing that could be cancelled"
        case _:
            return ""


def _why_not_answered(
    context: Context, command: CommandGiven, incident: Incident | VmIncident
) -> str:
    if not context.enforce:
        return "observe mode: this daemon touches nothing"
    if incident.state in _PROVEN:
        return f"{incident.id} is {incident.state}: its plan is under way already"
    plan = getattr(incident, "plan", None)
    if plan is None:
        return f"{incident.id} has no plan yet: there is nothing to approve"
    asked = context.state.approvals.get(incident.id)
    if asked is not None and asked.answer is not Answer.NONE and asked.policy == plan.policy:
        return f"it was {asked.answer} by {asked.by}; 'remediator retry {incident.id}' asks anew"
    policy_name = asked.policy if asked is not None else plan.policy
    policy = next((each for each in context.policies if each.name == policy_name), None)
    wanted = policy.approval.by if policy is not None and policy.approval is not None else ()
    if wanted and not any(_is(command.by, each) for each in wanted):
        hint = ""
        if any(each.startswith(_GROUP) for each in wanted):
            hint = "; who is in a group is not known to remediator"
        return f"policy {policy_name} lets only {', '.join(wanted)} answer{hint}"
    return ""


def _is(by: str, wanted: str) -> bool:
    """Whether ``by`` ("ana@laptop") is the person that a policy names ("ana", "ana@laptop")."""
    return by == wanted or by.partition("@")[0] == wanted
