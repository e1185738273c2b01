"""From evidence to a granted plan: open, convict, match a policy, ask the guards."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from remediator.engine import (
    decision_inputs,
    evacuation,
    evacuation_guards,
    evacuation_plan,
    fencing,
    guard_answers,
    maintenance,
    safeguards,
)
from remediator.engine.chain import DecisionKind, GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.effects import AskPower, AskProbes, GiveUpLeadership
from remediator.engine.execution import start_step
from remediator.engine.incidents import OWN_NODE, Incident, Trigger
from remediator.engine.inputs import Inputs
from remediator.engine.match_facts import about_node
from remediator.engine.model import IncidentState, NodeFacts, Verdict, node_subject
from remediator.engine.plane_values import SILENT
from remediator.engine.planner import make_plan
from remediator.engine.rules import Match, first_match, near_misses
from remediator.engine.safeguards.node_rules import HandsOffSeen
from remediator.engine.verdicts import Row, decide

# The power is asked again this often while an incident without proof is young, and later.
_ASK_YOUNG_S, _ASK_OLD_S, _YOUNG_S = 20.0, 120.0, 300.0
# The same for probes. A vantage point that was asked probes every second for 30 s, and its reading
# counts for 15 s more: asked so often, the network's value does not come and go with the asking.
_PROBE_YOUNG_S, _PROBE_OLD_S = 5.0, 20.0

# What may make a node suspect. Of these a late lease alone is not worth a question to its BMC.
_SIGNS = {
    "lease": SILENT | {"quiet"},
    "network": frozenset({"down", "refuted"}),
    "handler": frozenset({"silent", "down"}),
    "storage": frozenset({"down"}),
    "power": frozenset({"off"}),
    "kubelet": frozenset({"down"}),
    "machine": frozenset({"down", "gone"}),
    "conditions": frozenset({"bad"}),
}

# A hold for one of these is ordinary; any other is worth a human's attention at once.
_QUIET_GUARDS = frozenset(
    {
        "mode",
        "inventory",
        "paused",
        "cancelled",
        "vms",
        "others-heard",
        "disruptions-at-once",
        "fences-at-once",
    }
)
# A leader on a node that is to be fenced makes place again after so long: 30 s without a leader,
# for the replica that somebody may have started elsewhere since.
_YIELD_AGAIN_S = 600.0
# So many others are probed where a fence waits for a word of them; in a larger zone enough of them
# renew their leases within a moment.
_OTHERS_PROBED = 16


def judge(context: Context, node: NodeFacts) -> Row:
    """Return the row of the verdict table that this node's evidence falls under."""
    return maintenance.over(context, node, decide(decision_inputs.planes(context, node)))


def open_incident(context: Context, node: NodeFacts, row: Row) -> Incident:
    """Open an incident: the evidence about this node has turned."""
    subject = node_subject(node.name)
    incident_id = f"inc-{context.state.head.seq + 1}"
    shell = Incident(
        id=incident_id,
        subject=subject,
        state=IncidentState.WATCHING,
        opened_at=context.now,
        node_uid=node.uid,
        boot_id=node.boot_id,
        verdict=row.verdict,
        verdict_at=context.now,
        row=row.name,
    )
    context.record(
        DecisionKind.OPENED,
        subject,
        f"{row.verdict}: {row.means}",
        incident=shell,
        trigger=Trigger.SUSPECTED if row.verdict is Verdict.SUSPECT else Trigger.CONVICTED,
        verdict=row.verdict,
        row=row.name,
        evidence=context.evidence.rows(node, context.now),
        boot_id=node.boot_id,
        uid=node.uid,
        inputs=decision_inputs.of_verdict(context, node),
    )
    return context.state.incidents[incident_id]


def weigh(context: Context, incident: Incident, node: NodeFacts, row: Row) -> None:
    """Bring an incident that holds no proof up to date with the evidence."""
    if row.verdict is Verdict.UNKNOWN:
        return  # we have been deaf or have just begun: nothing is concluded from that
    ask_power(context, incident, node)
    look_closer(context, node, incident)
    if row.verdict is Verdict.HEALTHY:
        # What a new leader finds bad must stand for a while before it counts: that is not "well".
        lives = incident.plan is not None and evacuation_plan.evacuates(incident.plan)
        if not (lives and context.evidence.is_holding(node.name)):
            _clear(context, incident, node)
        return
    convicting = row.verdict is not Verdict.SUSPECT
    fresh_boot = node.boot_id not in ("", incident.boot_id)
    unconfirmed = convicting and incident.state is IncidentState.SUSPECTED
    if row.verdict is not incident.verdict or fresh_boot or unconfirmed:
        context.record(
            DecisionKind.VERDICT,
            incident.subject,
            f"{row.verdict}: {row.means}",
            incident=incident,
            trigger=_turn(incident.state, convicting=convicting),
            verdict=row.verdict,
            row=row.name,
            evidence=context.evidence.rows(node, context.now),
            boot_id=node.boot_id,
            inputs=decision_inputs.of_verdict(context, node),
        )
    if convicting:
        answer(context, incident, node)


def answer(context: Context, incident: Incident, node: NodeFacts) -> None:
    """Match a policy to a convicted node, ask the guards, and start the plan if all grant."""
    if context.now < incident.retry_at:
        context.wake_at(incident.retry_at)
        return
    asked = about_node(context, node, incident.verdict, incident.verdict_at, incident.row)
    match = first_match(context.policies, asked, context.now)

    def inputs() -> Inputs:
        return decision_inputs.of_answer(context, node, asked, match)

    if match.policy is None:
        _no_policy(context, incident, match, inputs)
        return
    plan = make_plan(context, match.policy, node)
    living = evacuation_plan.evacuates(plan)
    if living and evacuation.is_settled(incident, plan):
        return
    if incident.plan is None or evacuation_plan.evacuates(incident.plan) is not living:
        why = evacuation.plan_text(plan) if living else plan_text(plan.steps, len(plan.vms))
        _record_plan(context, incident, match, why, plan, inputs())
    rows = safeguards.ask(context, incident, node, plan)
    away = safeguards.hands_off(context, node)
    if away:
        rows = (guard_answers.ask("hands-off", HandsOffSeen(why=away)), *rows)
    if living:
        rows = evacuation_guards.adapt(context, incident, rows)
    if safeguards.withheld(rows):
        _probe_others(context, incident, node)
        _withhold(context, incident, rows, inputs)
        return
    old = living and evacuation.is_old(incident, plan)
    if old or (incident.plan != plan and not incident.step):
        why = "planned again: its VMs have changed"
        if living:
            why = f"planned again: {evacuation.plan_text(plan)}"
        _record_plan(context, incident, match, why, plan, inputs())
    elif incident.plan is not None and fencing.differs(incident.plan, plan):
        again = msgspec.structs.replace(
            incident.plan, fence_method=plan.fence_method, levels=plan.levels
        )
        why = "planned again: its fence configuration has changed"
        _record_plan(context, incident, match, why, again, inputs())
    if living:
        evacuation.begin(context, incident, node, rows, inputs())
        return
    start_step(context, incident, node, guards=rows, trigger=Trigger.GRANTED, inputs=inputs())


def _probe_others(context: Context, incident: Incident, node: NodeFacts) -> None:
    """Have those probed of whom a fence waits to hear: an answer comes sooner than a renewal."""
    if incident.verdict is not Verdict.UNREACHABLE:
        return
    inventory = context.inventory
    near = safeguards.unheard(context, incident, inventory.zone_members(node.zone))
    far = safeguards.unheard(context, incident, frozenset(inventory.nodes))
    for name in list(dict.fromkeys((*near, *far)))[:_OTHERS_PROBED]:
        last_at = context.probes_asked.get(name)
        if last_at is None or context.now - last_at >= _PROBE_YOUNG_S:
            context.probes_asked[name] = context.now
            context.effects.append(AskProbes(node=name))


def plan_text(steps: tuple[str, ...], vms: int) -> str:
    """Return a plan in one line."""
    return f"{', '.join(steps)}; {vms} VM{'' if vms == 1 else 's'} on it"


def _record_plan(
    context: Context, incident: Incident, match: Match, why: str, plan: Plan, inputs: Inputs
) -> None:
    context.record(
        DecisionKind.PLANNED,
        incident.subject,
        f"policy {plan.policy}: {why}",
        incident=incident,
        clauses=match.clauses,
        plan=plan,
        verdict=incident.verdict,
        row=incident.row,
        inputs=inputs,
    )


def _turn(state: IncidentState, *, convicting: bool) -> Trigger | None:
    if convicting:
        return None if state is IncidentState.CONFIRMED else Trigger.CONVICTED
    return None if state is IncidentState.SUSPECTED else Trigger.DOUBTED


def spare(context: Context, incident: Incident, node: NodeFacts, row: Row) -> None:
    """Drop a fence that has not happened: the evidence has turned in the node's favour."""
    if context.evidence.values(node, context.now).lease == "up":
        _clear(context, incident, node)
        return
    context.record(
        DecisionKind.VERDICT,
        incident.subject,
        f"{row.verdict}: {row.means}; the fence is dropped",
        incident=incident,
        trigger=Trigger.DOUBTED,
        verdict=row.verdict,
        row=row.name,
        evidence=context.evidence.rows(node, context.now),
        boot_id=node.boot_id,
        inputs=decision_inputs.of_verdict(context, node),
    )


def held_back(context: Context, incident: Incident, node: NodeFacts) -> bool:
    """Hold a fence that has not happened where it may not any more; True where it is held.

    Somebody else has taken the node over, a person has paused or cancelled it, or it turned out to
    be the one that we run on.
    """
    rows: list[GuardRow] = []
    away = safeguards.hands_off(context, node)
    if away:
        rows.append(guard_answers.ask("hands-off", HandsOffSeen(why=away)))
    own = safeguards.own_node(context, incident, node)
    if own is not None:
        rows.append(own)
    rows += safeguards.withheld(safeguards.stops(context, incident))
    if rows:
        _withhold(context, incident, tuple(rows))
    return bool(rows)


def stand_still(context: Context, incident: Incident) -> None:
    """Leave a plan where it stands: this daemon only observes, another one had begun it."""
    key = "guards:mode"
    if incident.answered == key:
        return
    decision = context.record(
        DecisionKind.REFUSED,
        incident.subject,
        f"observe mode: the plan that was under way stands still at {incident.state}; VMs that "
        "wait for it stay down",
        incident=incident,
        guards=(GuardRow(guard="mode", answer=safeguards.REFUSE, why="observe mode"),),
        stage=key,
    )
    context.notice(decision)


def close_vanished(context: Context, incident: Incident) -> None:
    """End an incident without proof whose Node object was deleted: nothing is left to act on."""
    if not context.inventory.synced:
        return
    decision = context.record(
        DecisionKind.RESOLVED,
        incident.subject,
        "its Node object was deleted: Kubernetes now removes its pods by itself, without proof "
        "that the host is off; nothing was restarted by us",
        incident=incident,
        trigger=Trigger.CLEARED,
    )
    context.notice(decision)


def look_closer(context: Context, node: NodeFacts, incident: Incident | None = None) -> None:
    """Have a node probed from everywhere, and its power read, at the first sign of anything."""
    values = context.evidence.values(node, context.now)
    doubted = context.evidence.network.doubted(node.name, context.now)
    signs = {plane for plane, telling in _SIGNS.items() if getattr(values, plane) in telling}
    if values.lease == "quiet" and not context.evidence.leases.late(node.name):
        signs.discard("lease")  # late for the budgets, but we are slow ourselves
    if not signs and not doubted:
        return
    every_s = _PROBE_YOUNG_S if _is_young(context, incident) else _PROBE_OLD_S
    last_at = context.probes_asked.get(node.name)
    if last_at is None or context.now - last_at >= every_s:
        context.probes_asked[node.name] = context.now
        context.effects.append(AskProbes(node=node.name))
    if doubted or signs - {"lease", "conditions"} or values.lease in SILENT:
        ask_power(context, incident, node)


def ask_power(context: Context, incident: Incident | None, node: NodeFacts) -> None:
    """Ask the node's fence device for its power state, unless that was done a moment ago."""
    if not fencing.method_for(context, node.name):
        return
    every_s = _ASK_YOUNG_S if _is_young(context, incident) else _ASK_OLD_S
    last_at = context.power_asked.get(node.name)
    if last_at is None or context.now - last_at >= every_s:
        context.power_asked[node.name] = context.now
        context.effects.append(AskPower(node=node.name))


def _is_young(context: Context, incident: Incident | None) -> bool:
    return incident is None or context.now - incident.opened_at < _YOUNG_S


def _clear(context: Context, incident: Incident, node: NodeFacts) -> None:
    values = context.evidence.values(node, context.now)
    if incident.contradicted and values.power != "on":
        return  # a BMC that lied stays distrusted until it tells the truth again
    context.record(
        DecisionKind.RESOLVED,
        incident.subject,
        _why_cleared(incident, node),
        incident=incident,
        trigger=Trigger.CLEARED,
        verdict=Verdict.HEALTHY,
        row="alive",
        evidence=context.evidence.rows(node, context.now),
        inputs=decision_inputs.of_verdict(context, node),
    )


def _why_cleared(incident: Incident, node: NodeFacts) -> str:
    match incident.verdict:
        case Verdict.CONTRADICTION:
            why = f"the BMC of {node.name} says on again, as its lease always did"
        case Verdict.HANDLER_DOWN:
            why = f"virt-handler of {node.name} beats again"
        case Verdict.DEGRADED if incident.row == "bad-condition":
            why = f"the conditions of {node.name} are good again"
        case Verdict.DEGRADED:
            why = f"{node.name} is Ready again"
        case Verdict.SUSPECT if incident.row == "network-silent":
            why = f"{node.name} is reached again"
        case _:
            why = f"{node.name} is heard again"
    rebooted = node.boot_id not in ("", incident.boot_id)
    return f"{why}; it has rebooted meanwhile" if rebooted else why


def _no_policy(
    context: Context, incident: Incident, match: Match, inputs: Callable[[], Inputs]
) -> None:
    if match.due_at is not None:
        context.wake_at(match.due_at)
        if match.closed:
            _closed(context, incident, match, inputs)
        return
    key = f"no-policy:{incident.verdict}"
    if incident.answered == key:
        return
    near = near_misses(match.clauses)
    missed = f" ({'; '.join(near)})" if near else ""
    decision = context.record(
        DecisionKind.ESCALATED,
        incident.subject,
        f"no policy answers {incident.verdict}{missed}: nothing is done, a human should look",
        incident=incident,
        trigger=Trigger.EXHAUSTED,
        clauses=match.clauses,
        verdict=incident.verdict,
        row=incident.row,
        stage=key,
        inputs=inputs(),
    )
    context.notice(decision)


def _closed(
    context: Context, incident: Incident, match: Match, inputs: Callable[[], Inputs]
) -> None:
    """Record, once, that a policy waits for its active window."""
    key = f"window:{','.join(match.closed)}"
    if incident.answered == key:
        return
    context.record(
        DecisionKind.REFUSED,
        incident.subject,
        f"waits: {'; '.join(near_misses(match.clauses))}",
        incident=incident,
        trigger=Trigger.WITHHELD,
        clauses=match.clauses,
        verdict=incident.verdict,
        row=incident.row,
        stage=key,
        inputs=inputs(),
    )


def _withhold(
    context: Context,
    incident: Incident,
    rows: tuple[GuardRow, ...],
    inputs: Callable[[], Inputs] | None = None,
) -> None:
    """Record a refusal, once for each set of guards that withhold."""
    against = safeguards.withheld(rows)
    names = [row.guard for row in against]
    key = safeguards.refusal_key(rows)
    yields = names == [OWN_NODE] and (
        context.identity not in incident.yielded_by
        # Nobody else took over then; somebody may have been started since.
        or context.now - context.leading_since >= _YIELD_AGAIN_S
    )
    if incident.answered == key and not yields:
        return
    for_good = any(row.answer == safeguards.REFUSE and row.guard != "mode" for row in against)
    trigger = Trigger.EXHAUSTED if for_good else Trigger.WITHHELD
    kind = DecisionKind.ESCALATED if for_good else DecisionKind.REFUSED
    decision = context.record(
        kind,
        incident.subject,
        "; ".join(f"{row.guard}: {row.why}" for row in against),
        incident=incident,
        trigger=trigger,
        guards=rows,
        verdict=incident.verdict,
        row=incident.row,
        evidence=(),
        stage=key,
        inputs=inputs() if inputs is not None else None,
    )
    if not set(names) <= _QUIET_GUARDS:
        context.notice(decision)
    if yields:
        # Where nobody else takes over, we lead again, and the node stays as it is.
        context.effects.append(GiveUpLeadership(why=against[0].why))
