"""How the emptying of a node ends: empty, or with VMs that had to stay."""

from __future__ import annotations

from collections.abc import Iterable

from remediator.engine import evacuation_moves, evacuation_plan, maintenance
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.incidents import DONE_STAGES, Incident, Stage, Trigger
from remediator.engine.model import IncidentState, NodeFacts, Verdict
from remediator.engine.rules import OnFailure
from remediator.engine.verdicts import LIVING, Row

LEFT = "left:"  # VMs stayed on the node: key of what was last said
NAMED_MAX = 5  # VMs that stayed, in one sentence
_OVER = frozenset({IncidentState.HELD, IncidentState.ESCALATED})


def listed(names: Iterable[str]) -> str:
    """Return the first few of many, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return ", ".join(found[:NAMED_MAX]) + more


def moved(incident: Incident) -> str:
    """Say how many of its VMs have left."""
    stages = [progress.stage for progress in incident.vms.values()]
    count = sum(stage in (Stage.MOVED, Stage.UP) for stage in stages)
    return f"{count} of {len(stages)} VMs were moved"


def emptied(context: Context, incident: Incident, node: NodeFacts, row: Row) -> bool:
    """End an incident that had to leave VMs behind, once the last of them has left; True if so."""
    if incident.state not in _OVER or not incident.answered.startswith(LEFT):
        return False
    if row.verdict not in LIVING or evacuation_plan.vms_on(context.inventory, node.name):
        return False
    if row.verdict is Verdict.HEALTHY:
        return False
    _resolve(context, incident, "its last VM has left")
    return True


def end(context: Context, incident: Incident, node: NodeFacts) -> None:
    """End the evacuation once every VM has come to its end."""
    if any(progress.stage not in DONE_STAGES for progress in incident.vms.values()):
        return
    there = evacuation_plan.vms_on(context.inventory, node.name)
    if not there:
        _resolve(context, incident, moved(incident))
        return
    said = listed(
        f"{each.namespace}/{each.name} ({_why_left(context, incident, node, str(each))})"
        for each in there
    )
    text = f"{moved(incident)}; still there: {said}"
    policy = evacuation_moves.policy_of(context, incident)
    on_failure = policy.options("migrate").on_failure if policy is not None else OnFailure.ESCALATE
    key = f"{LEFT}{','.join(str(each) for each in there[:NAMED_MAX])}"
    if on_failure is OnFailure.HOLD:
        give_up(context, incident, text, key, trigger=Trigger.WITHHELD)
    else:
        give_up(context, incident, text, key)


def _why_left(context: Context, incident: Incident, node: NodeFacts, key: str) -> str:
    progress = incident.vms.get(key)
    if progress is None:
        return "it came later"
    obstacle = evacuation_plan.obstacle_to(context, node, progress.plan.vm)
    if obstacle is not None:
        return obstacle.why
    return evacuation_moves.failures(progress) if progress.attempts else "left"


def give_up(
    context: Context,
    incident: Incident,
    why: str,
    key: str,
    *,
    trigger: Trigger = Trigger.EXHAUSTED,
) -> None:
    """Leave what cannot be moved: a human is told, and it is looked at again later."""
    retry_at = context.now + context.settings.evacuation.follow_up_s
    held = trigger is Trigger.WITHHELD
    decision = context.record(
        DecisionKind.REFUSED if held else DecisionKind.ESCALATED,
        incident.subject,
        f"{why}; looked at again in {context.settings.evacuation.follow_up_s:g} s",
        incident=incident,
        trigger=trigger,
        stage=key,
        retry_at=retry_at,
    )
    context.notice(decision)
    context.wake_at(retry_at)


def _resolve(context: Context, incident: Incident, why: str) -> None:
    name = incident.subject.name
    node = context.inventory.nodes.get(name)
    wish = maintenance.wanted(context, node) if node is not None else ""
    until = "until it is given back (undrain)" if wish else "until it is well"
    marked = name in context.state.residues
    stays = f"it stays cordoned {until}" if marked else "it was not cordoned by us"
    decision = context.record(
        DecisionKind.RESOLVED,
        incident.subject,
        f"{name} is empty: {why}; {stays}",
        incident=incident,
        trigger=Trigger.EMPTIED,
    )
    if wish:
        context.notice(decision)  # a person waits for it
