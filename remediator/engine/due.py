"""What happens next to a node, and when: read off the engine's own waits, in their order."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from remediator.engine import cleanup, safeguards
from remediator.engine.chain import GuardRow
from remediator.engine.context import Context
from remediator.engine.incidents import BOOTING_STAGES, DONE_STAGES, Incident, Stage
from remediator.engine.match_facts import about_node
from remediator.engine.model import IncidentState, NodeFacts, Reading, Verdict
from remediator.engine.plane_values import READY
from remediator.engine.planner import make_plan
from remediator.engine.rules import first_match
from remediator.engine.verdicts import Row
from remediator.engine.views import Due, GuardLine

_UNPROVEN = frozenset(
    {
        IncidentState.SUSPECTED,
        IncidentState.CONFIRMED,
        IncidentState.HELD,
        IncidentState.ESCALATED,
    }
)


def node_due(context: Context, node: NodeFacts, row: Row, now: float) -> tuple[Due, ...]:
    """Return everything that is due for a node.

    First what is under way, then what waits for the world, then what waits for time, soonest first;
    of a node that is convicted, evidence comes last.
    """
    incident = context.state.incident_on(f"node/{node.name}")
    waits = list(_of_incident(context, node, row, incident, now))
    evidence = [] if proven_off(context, node, incident) else list(_of_evidence(context, node, now))
    if incident is None or incident.state is IncidentState.SUSPECTED:
        waits, evidence = [*waits, *evidence], []
    relaxes_at = context.evidence.own_health.relaxes_at
    if relaxes_at is not None:
        what = "our own trouble counts for less, if nothing adds to it"
        evidence.append(Due(what=what, in_s=_left(relaxes_at, now)))
    return (
        *_under_way(context, node, incident, now),
        *sorted(waits, key=_soonness),
        *sorted(evidence, key=_soonness),
    )


def _soonness(due: Due) -> tuple[bool, float]:
    return due.in_s is not None, due.in_s or 0.0


def proven_off(context: Context, node: NodeFacts, incident: Incident | None) -> bool:
    """Whether the node is proven off: until its next boot evidence turns no verdict."""
    if incident is not None:
        return incident.state in (IncidentState.FENCED, IncidentState.RECOVERING)
    residue = context.state.residues.get(node.name)
    return residue is not None and cleanup.owes(residue, node)


def guards_against(context: Context, node: NodeFacts, now: float) -> tuple[GuardLine, ...]:
    """Return the guards that would not grant the plan of this node's incident now.

    Without an incident only "hands-off" is asked: whose business the node is does not depend on it.
    """
    shadow = _shadow(context, now)
    rows: tuple[GuardRow, ...] = ()
    incident = context.state.incident_on(f"node/{node.name}")
    if incident is not None:
        asked = about_node(shadow, node, incident.verdict, incident.verdict_at, incident.row)
        match = first_match(shadow.policies, asked, now)
        if match.policy is not None:
            plan = incident.plan or make_plan(shadow, match.policy, node)
            rows = safeguards.withheld(safeguards.ask(shadow, incident, node, plan))
    away = safeguards.hands_off(shadow, node)
    if away:
        rows = (GuardRow(guard="hands-off", answer=safeguards.WAIT, why=away), *rows)
    return tuple(
        GuardLine(
            guard=each.guard,
            answer=each.answer,
            why=each.why,
            in_s=None if each.until is None else _left(each.until, now),
        )
        for each in rows
    )


def _shadow(context: Context, now: float) -> Context:
    """Return the context as guards may be asked in without the engine remembering it."""
    shadow = copy.copy(context)
    shadow.now = max(now, context.now)
    shadow.effects, shadow.down_now = [], None
    shadow.crowded_at = dict(context.crowded_at)
    return shadow


def _left(at: float, now: float) -> float:
    return _positive(at - now)


def _positive(seconds: float) -> float:
    return round(max(0.0, seconds), 3)


# --- what is under way ----------------------------------------------------------------------------


def _under_way(
    context: Context, node: NodeFacts, incident: Incident | None, now: float
) -> Iterator[Due]:
    state = context.state
    action = state.pending.get(state.busy.get(f"node/{node.name}", ""))
    if action is not None:
        step = type(action.work).__struct_config__.tag
        yield Due(what=f"{step} is under way, attempt {action.attempt} ({action.deadline_s:g} s)")
    if incident is not None and incident.state is IncidentState.RECOVERING:
        stages = [progress.stage for progress in incident.vms.values()]
        done = sum(stage in DONE_STAGES for stage in stages)
        booting = sum(stage in BOOTING_STAGES for stage in stages)
        yield Due(what=f"{done} of {len(stages)} VMs done, {booting} booting")
    if incident is not None and incident.state is IncidentState.EVACUATING:
        stages = [progress.stage for progress in incident.vms.values()]
        done = sum(stage in DONE_STAGES for stage in stages)
        moving = sum(stage in (Stage.MIGRATING, Stage.CANCELLING) for stage in stages)
        yield Due(what=f"{done} of {len(stages)} VMs done, {moving} migrating")
    residue = state.residues.get(node.name)
    if residue is not None and incident is None:
        retry_s = _left(residue.retry_at, now)
        if retry_s > 0:
            yield Due(what="taking our taints off is tried again", in_s=retry_s)
        elif residue.evacuated and not residue.fenced_boot_id:
            yield Due(what="our cordon comes off once it is well, and wanted")
        elif cleanup.owes(residue, node):
            yield Due(what="our taints come off once it runs another boot")
        else:
            yield Due(what="our taints come off once it is Ready and renews its lease")


# --- what evidence waits for ----------------------------------------------------------------------


def _of_evidence(context: Context, node: NodeFacts, now: float) -> Iterator[Due]:
    evidence, name = context.evidence, node.name
    leases, silence_s = evidence.leases, evidence.silence_s(name)
    if name in leases.beats and not leases.silent(name):
        left_s = evidence.limits_s(name)[1] - silence_s
        yield Due(what="its lease counts as silent, unless renewed", in_s=_positive(left_s))
    elif name in leases.beats:
        missed, limit = leases.missed(name), context.settings.detection.lease_lost_after_beats
        if 0 < missed < limit:
            left_s = silence_s / missed * (limit - missed)
            yield Due(what="its lease counts as lost, unless renewed", in_s=_positive(left_s))
    handlers = evidence.handlers
    if node.kubevirt and name in handlers.beats and not handlers.silent(name):
        left_s = handlers.limits_s(name)[1] - handlers.silence_s(name)
        yield Due(what="virt-handler counts as silent, unless it beats", in_s=_positive(left_s))
    detection = context.settings.detection
    holds = {rule.type: rule.hold_s for rule in detection.conditions}
    holds |= dict.fromkeys(READY, detection.degraded_after_s)
    for said in evidence.said.kubelet.of(name):
        hold_s = holds.get(said.aspect)
        if said.reading is Reading.DOWN and hold_s is not None and now - said.since < hold_s:
            what = f"{said.aspect or 'Ready'} has been bad for long enough to count"
            yield Due(what=what, in_s=_left(said.since + hold_s, now))
    lease = evidence.leases.beats.get(name)
    back_at = lease.back_at if lease is not None else 0.0
    for said in evidence.said.handler.of(name):
        until = max(said.since, back_at) + detection.handler_silent_after_s * handlers.stretch
        if said.reading is Reading.DOWN and now < until:
            what = "virt-handler's pod has been down for long enough to count"
            yield Due(what=what, in_s=_left(until, now))


# --- what the incident, and what comes after it, waits for ----------------------------------------


def _of_incident(
    context: Context, node: NodeFacts, row: Row, incident: Incident | None, now: float
) -> Iterator[Due]:
    state, subject = context.state, f"node/{node.name}"
    fenced_at = state.fenced_at.get(node.name)
    if fenced_at is not None:
        until = fenced_at + context.settings.budgets.fence_cooldown_s
        if until > now:
            yield Due(what="its cool-down after the last fence ends", in_s=_left(until, now))
    if incident is None:
        return
    if incident.retry_at > now:
        yield Due(
            what=f"{incident.next_step or 'the plan'} is tried again",
            in_s=_left(incident.retry_at, now),
        )
    if incident.state in _UNPROVEN and row.verdict is not Verdict.SUSPECT:
        shadow = _shadow(context, now)
        asked = about_node(shadow, node, incident.verdict, incident.verdict_at, incident.row)
        match = first_match(shadow.policies, asked, now)
        if match.due_at is not None:
            yield Due(what="a policy answers, if the verdict stands", in_s=_left(match.due_at, now))
        elif match.policy is None:
            yield Due(what=f"nothing: no policy answers {incident.verdict}, a human should look")
        for guard in guards_against(context, node, now):
            ends = guard.in_s is not None
            what = (
                f"guard {guard.guard} may grant"
                if ends
                else f"guard {guard.guard} withholds the plan"
            )
            yield Due(what=what, in_s=guard.in_s)
    if (
        incident.state in (IncidentState.FENCED, IncidentState.RECOVERING)
        and subject not in state.busy
    ):
        step = incident.next_step
        if step and step != "recover":
            yield Due(what=f"next step: {step}")
