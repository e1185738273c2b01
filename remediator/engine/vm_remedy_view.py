"""What is being done about a VM, for people: its plan, the step that is due, what comes next."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine.context import Context
from remediator.engine.incidents import VmIncident
from remediator.engine.model import IncidentState
from remediator.engine.rules import SubjectKind
from remediator.engine.views import Due
from remediator.engine.vm_watch import VmWatch


def plan_text(incident: VmIncident) -> str:
    """Return a plan in one line, the step that is due in brackets; "" where there is none."""
    if incident.plan is None:
        return ""
    steps = [
        f"[{step}]" if at == incident.step else step for at, step in enumerate(incident.plan.steps)
    ]
    return f"{incident.plan.policy}: {', '.join(steps)}"


def due(context: Context, watch: VmWatch, incident: VmIncident) -> Iterator[Due]:
    """Yield what is to come for a confirmed incident, while nothing else happens."""
    action_id = context.state.busy.get(str(incident.subject))
    step = incident.next_step
    if incident.state is IncidentState.SUSPECTED:
        return
    if action_id is not None:
        yield Due(what=f"{step or 'an action'} is under way: {action_id}")
    elif incident.plan is None:
        yield Due(what=_without_plan(context, incident))
    elif incident.awaiting:
        left_s = watch.remedy_left_s(incident)
        yield Due(what=f"{step} has not helped, unless it is well", in_s=left_s)
    elif incident.answered.startswith("guards:"):
        names = incident.answered.removeprefix("guards:")
        yield Due(what=f"{step or incident.plan.steps[0]} waits for the guards: {names}")
    elif incident.answered.startswith("hold:"):
        yield Due(what=f"policy {incident.plan.policy} does nothing more: a human was told")
    elif incident.retry_at > context.now:
        wait_s = round(incident.retry_at - context.now, 3)
        yield Due(what=f"{step or incident.plan.steps[0]} is tried", in_s=wait_s)


def _without_plan(context: Context, incident: VmIncident) -> str:
    answering = [
        policy.name
        for policy in context.policies
        if policy.subject is SubjectKind.VM and incident.verdict in policy.verdicts
    ]
    if not answering:
        return f"a human was told: no policy answers {incident.verdict} of a VM"
    return f"a human was told: none of its policies matches now ({', '.join(answering)})"
