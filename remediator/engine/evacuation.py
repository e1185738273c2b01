"""Emptying a node that lives: one that is sick, or that a person wants empty.

    confirmed -> evacuating -> resolved (empty; the cordon stays until the node is well)
                            -> held / escalated (some VMs cannot leave)
                            -> confirmed (it died in the middle: it is planned again, as a dead one)

What was begun is seen to its end or taken back before the incident ends, whatever ends it; only
where the node dies is it left to KubeVirt, which ends such migrations by itself as soon as the old
launcher pods are gone (facts/lab.md section 5).
"""

from __future__ import annotations

from remediator.engine import (
    decision_inputs,
    evacuation_course,
    evacuation_end,
    evacuation_plan,
    execution,
    safeguards,
)
from remediator.engine.chain import DecisionKind, GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.evacuation_plan import Move
from remediator.engine.incidents import Incident, Trigger
from remediator.engine.inputs import Inputs
from remediator.engine.model import (
    Action,
    FactKind,
    IncidentState,
    Migrate,
    NodeFacts,
    RestartVm,
    Verdict,
)
from remediator.engine.safeguards import pauses
from remediator.engine.verdicts import LIVING, Row

_HELD_BY_POLICY = "hold"


# --- from a plan to its beginning -----------------------------------------------------------------


def is_settled(incident: Incident, plan: Plan) -> bool:
    """Whether all was tried already, and nothing has become possible since."""
    if incident.answered == _HELD_BY_POLICY:  # until the evidence, or the policy, is another
        return incident.plan is not None and incident.plan.policy_hash == plan.policy_hash
    if not incident.answered.startswith(evacuation_end.LEFT):
        return False
    return bool(plan.vms) and all(vm.treatment == Move.STAY for vm in plan.vms)


def is_old(incident: Incident, plan: Plan) -> bool:
    """Whether an incident is to be planned anew: it was tried, or its plan fits no more."""
    return incident.plan != plan or bool(incident.step)


def plan_text(plan: Plan) -> str:
    """Return a plan in one line, with what cannot be moved and why."""
    count = len(plan.vms)
    text = f"{', '.join(plan.steps)}; {count} VM{'' if count == 1 else 's'} on it"
    left = [vm for vm in plan.vms if vm.treatment != Move.MIGRATE]
    said = evacuation_end.listed(f"{vm.vm.namespace}/{vm.vm.name} ({vm.why})" for vm in left)
    return f"{text}; not moved live: {said}" if left else text


def begin(
    context: Context,
    incident: Incident,
    node: NodeFacts,
    guards: tuple[GuardRow, ...],
    inputs: Inputs,
) -> None:
    """Begin a plan that every guard has granted."""
    if incident.next_step == "cordon":
        execution.start_step(
            context, incident, node, guards=guards, trigger=Trigger.EMPTYING, inputs=inputs
        )
        return
    context.record(
        DecisionKind.PLANNED,
        incident.subject,
        "its VMs are moved off; the policy asks for no cordon first",
        incident=incident,
        trigger=Trigger.EMPTYING,
        plan=incident.plan,
        guards=guards,
        inputs=inputs,
    )


# --- while it is under way ------------------------------------------------------------------------


def consider(context: Context, incident: Incident, node: NodeFacts, row: Row) -> None:
    """Bring an evacuation up to date with what is known now."""
    if FactKind.MIGRATION not in context.inventory.synced_kinds:
        return  # a new leader does not know yet what is in flight
    evacuation_course.follow(context, incident, node)
    plan = incident.plan
    if row.verdict is Verdict.UNKNOWN or plan is None:
        return  # we have been deaf or have just begun: nothing is begun on that
    if row.verdict is Verdict.HEALTHY and context.evidence.is_holding(node.name):
        return  # what a new leader finds bad must stand for a while before it counts
    if row.verdict is not incident.verdict:
        _turn(context, incident, node, row, plan)
    if incident.state is not IncidentState.EVACUATING or row.verdict is Verdict.SUSPECT:
        return  # nothing is begun where the source may not live
    against = _against(context, incident, node)
    if row.verdict is Verdict.HEALTHY or against is not None:
        if evacuation_course.wind_down(context, incident):
            _stop(context, incident, node, against)
        return
    if not execution.due(context, incident):
        return
    match incident.next_step:
        case "cordon":
            _cordon(context, incident, node)
        case "notify":
            _notify(context, incident, node)
        case "hold":
            _hold(context, incident)
        case _:
            evacuation_course.go_on(context, incident, node)
            if incident.state is IncidentState.EVACUATING:
                evacuation_end.end(context, incident, node)


def _turn(context: Context, incident: Incident, node: NodeFacts, row: Row, plan: Plan) -> None:
    """Record another verdict; one that the plan is not for ends the evacuation as such."""
    passing = row.verdict in (Verdict.SUSPECT, Verdict.HEALTHY) or row.verdict in plan.verdicts
    text = "" if row.verdict in LIVING else "; no more VMs are moved off it"
    context.record(
        DecisionKind.VERDICT,
        incident.subject,
        f"{row.verdict}: {row.means}{text}",
        incident=incident,
        trigger=None if passing else Trigger.CONVICTED,
        verdict=row.verdict,
        row=row.name,
        evidence=context.evidence.rows(node, context.now),
        boot_id=node.boot_id,
        inputs=decision_inputs.of_verdict(context, node),
    )


def _against(context: Context, incident: Incident, node: NodeFacts) -> GuardRow | None:
    """Return the guard by which this node must be left alone now, though it is not well."""
    away = safeguards.hands_off(context, node)
    if away:
        return GuardRow(guard="hands-off", answer=safeguards.WAIT, why=away)
    return next(iter(safeguards.withheld(pauses.stops(context, incident))), None)


def _stop(context: Context, incident: Incident, node: NodeFacts, against: GuardRow | None) -> None:
    """End what is not needed, or not allowed, any more."""
    moved = evacuation_end.moved(incident)
    if against is not None:
        decision = context.record(
            DecisionKind.REFUSED,
            incident.subject,
            f"{against.guard}: {against.why}; {moved}",
            incident=incident,
            trigger=Trigger.WITHHELD,
            guards=(against,),
            stage=f"guards:{against.guard}",
        )
        context.notice(decision)
        return
    context.record(
        DecisionKind.RESOLVED,
        incident.subject,
        f"{node.name} is well again, and wanted; {moved}",
        incident=incident,
        trigger=Trigger.CLEARED,
        verdict=Verdict.HEALTHY,
        row="alive",
        evidence=context.evidence.rows(node, context.now),
        inputs=decision_inputs.of_verdict(context, node),
    )


def _cordon(context: Context, incident: Incident, node: NodeFacts) -> None:
    tried = incident.attempts.get("cordon", 0)
    if tried < context.settings.steps.attempts:
        execution.start_step(context, incident, node)
        return
    evacuation_end.give_up(
        context, incident, f"cordon failed {tried} times: no VM is moved", "exhausted:cordon"
    )


def _notify(context: Context, incident: Incident, node: NodeFacts) -> None:
    count = len(evacuation_plan.vms_on(context.inventory, node.name))
    decision = context.record(
        DecisionKind.SKIPPED,
        incident.subject,
        f"the policy asks to tell: {node.name} is {incident.verdict}, "
        f"{count} VM{' is' if count == 1 else 's are'} on it",
        incident=incident,
        stage="notify",
    )
    context.notice(decision)


def _hold(context: Context, incident: Incident) -> None:
    context.record(
        DecisionKind.REFUSED,
        incident.subject,
        "the policy holds here",
        incident=incident,
        trigger=Trigger.WITHHELD,
        stage=_HELD_BY_POLICY,
    )


def keeps_quiet(context: Context, node: NodeFacts, row: Row) -> bool:
    """Whether a node that is not well needs no incident: we have emptied it, and it still is."""
    residue = context.state.residues.get(node.name)
    return (
        residue is not None
        and residue.evacuated
        and residue.node_uid == node.uid
        and row.verdict in LIVING
        and not evacuation_plan.vms_on(context.inventory, node.name)
    )


def may_repeat(context: Context, action: Action, row: Row) -> str:
    """Return why a move that an earlier leader began must not be repeated; "" where it may be.

    Cancelling may always be repeated; of a node that was not heard yet, "wait".
    """
    if not isinstance(action.work, (Migrate, RestartVm)):
        return ""
    if row.verdict is Verdict.UNKNOWN:
        return "wait"
    incident = context.state.incidents.get(action.incident)
    if incident is None or incident.state is not IncidentState.EVACUATING:
        return "its node is not being emptied any more"
    return "" if row.verdict in LIVING else f"{row.verdict}: {row.means}"
