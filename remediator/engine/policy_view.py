"""What the policies say of one node or VM now: which would act, and why every other would not."""

from __future__ import annotations

import copy

from remediator.engine import evacuation_plan, planner, safeguards, vm_plan
from remediator.engine.chain import ClauseRow, GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.due import guards_against
from remediator.engine.match_facts import about_node, about_vm
from remediator.engine.model import NodeFacts, Record, Subject, Verdict, node_subject
from remediator.engine.near_names import near, suggestion
from remediator.engine.rules import MatchInput, Policy, Word
from remediator.engine.verdicts import decide
from remediator.engine.view_lines import leader_line, standing_verdict
from remediator.engine.views import GuardLine, LeaderLine, NoSuch, Surroundings
from remediator.engine.vm_health import vm_health
from remediator.engine.vm_view import vm_standing
from remediator.engine.vm_watch import VmWatch

# Where a verdict is only assumed, it is taken to have stood for longer than any policy waits.
_LONG_S = 366 * 86400.0


class PolicyWord(Record, frozen=True, kw_only=True):
    """What one policy says."""

    name: str
    mode: str
    steps: tuple[str, ...]
    matches: bool
    chosen: bool  # it is the first that matches
    clauses: tuple[ClauseRow, ...]


class PolicyView(Record, frozen=True, kw_only=True):
    """What would happen right now, and why."""

    at: float
    leader: LeaderLine
    subject: str
    verdict: Verdict
    row: str
    since_s: float | None  # for how long it has stood; None where it is only assumed
    incident: str  # "inc-17 (held)", "" without one
    chosen: str  # policy, "" where none matches
    would: tuple[str, ...]  # what it would have done, or why nothing is
    guards: tuple[GuardLine, ...]  # those that do not grant it now
    words: tuple[PolicyWord, ...]


def node_view(
    context: Context, around: Surroundings, name: str, assumed: Verdict | None = None
) -> PolicyView | NoSuch:
    """Return what the policies say of a node, under its own verdict or an assumed one."""
    node = context.inventory.nodes.get(name)
    if node is None:
        likely = near(name, context.inventory.nodes)
        detail = f"there is no node {name}{suggestion(likely)}"
        return NoSuch(subject=node_subject(name), detail=detail)
    shadow = _shadow(context, around.at)
    incident = context.state.incident_on(node_subject(name))
    row = decide(shadow.evidence.values(node, shadow.now))
    verdict, row_name = standing_verdict(shadow, node, row, shadow.now)[0], row.name
    since_at = around.at
    if incident is not None:
        verdict, since_at, row_name = incident.verdict, incident.verdict_at, incident.row
    if assumed is not None and assumed is not verdict:
        verdict, since_at, row_name, incident = assumed, around.at - _LONG_S, "", None
    asked = about_node(shadow, node, verdict, since_at, row_name)
    words, chosen = _words(shadow, asked)
    guards = guards_against(context, node, around.at) if incident is not None else ()
    return PolicyView(
        at=around.at,
        leader=leader_line(context, around.at),
        subject=str(node_subject(name)),
        verdict=verdict,
        row=row_name,
        since_s=_since(around.at, since_at, assumed=assumed is not None and incident is None),
        incident="" if incident is None else f"{incident.id} ({incident.state})",
        chosen=chosen.name if chosen is not None else "",
        would=_would(shadow, chosen, None if chosen is None else _node_plan(shadow, chosen, node)),
        guards=guards,
        words=words,
    )


def vm_view(
    context: Context,
    watch: VmWatch,
    around: Surroundings,
    subject: Subject,
    assumed: Verdict | None = None,
) -> PolicyView | NoSuch:
    """Return what the policies say of a VM, under its own verdict or an assumed one."""
    found = vm_health(context, watch, subject)
    if found is None:
        detail = f"there is no VM {subject.namespace}/{subject.name}"
        return NoSuch(subject=subject, detail=detail)
    shadow = _shadow(context, around.at)
    verdict, row_name = vm_standing(context, found)
    incident = context.state.vm_incident_on(subject)
    since_at = incident.verdict_at if incident is not None else around.at
    if assumed is not None and assumed is not verdict:
        verdict, since_at, row_name, incident = assumed, around.at - _LONG_S, "", None
    asked = about_vm(shadow, subject, verdict, since_at, row_name)
    words, chosen = _words(shadow, asked)
    plan, guards = None, tuple[GuardLine, ...]()
    if chosen is not None:
        plan = vm_plan.make_plan(context.inventory, chosen, subject)
        vmi = context.inventory.vmi(subject)
        host = vmi.node if vmi is not None else ""
        rows = safeguards.ask_vm(shadow, subject, chosen, plan, node=host)
        guards = tuple(_line(one, around.at) for one in safeguards.withheld(rows))
    would = _would(shadow, chosen, plan)
    return PolicyView(
        at=around.at,
        leader=leader_line(context, around.at),
        subject=str(subject),
        verdict=verdict,
        row=row_name,
        since_s=_since(around.at, since_at, assumed=assumed is not None and incident is None),
        incident="" if incident is None else f"{incident.id} ({incident.state})",
        chosen=chosen.name if chosen is not None else "",
        would=(*would, *((f"nothing for now: {found.excuse}",) if found.excuse else ())),
        guards=guards,
        words=words,
    )


def _shadow(context: Context, now: float) -> Context:
    """Return the context as it may be asked without the engine remembering it."""
    shadow = copy.copy(context)
    shadow.now = max(now, context.now)
    shadow.effects, shadow.down_now = [], None
    shadow.crowded_at = dict(context.crowded_at)
    return shadow


def _words(context: Context, asked: MatchInput) -> tuple[tuple[PolicyWord, ...], Policy | None]:
    said: tuple[Word, ...] = context.policies.words(asked, context.now)
    chosen = next((word.policy for word in said if word.matches), None)
    lines = tuple(
        PolicyWord(
            name=word.policy.name,
            mode="enforce" if word.policy.enforce else "observe",
            steps=word.policy.steps,
            matches=word.matches,
            chosen=word.policy is chosen,
            clauses=word.clauses,
        )
        for word in said
    )
    return lines, chosen


def _node_plan(context: Context, policy: Policy, node: NodeFacts) -> Plan:
    if evacuation_plan.evacuates(policy):
        return evacuation_plan.make_plan(context, policy, node)
    return planner.make_plan(context, policy, node)


def _would(context: Context, chosen: Policy | None, plan: Plan | None) -> tuple[str, ...]:
    if chosen is None or plan is None:
        return ("nothing: no policy matches",)
    count = len(plan.vms)
    head = f"{', '.join(chosen.steps)}; {count} VM{'' if count == 1 else 's'}"
    treated = (f"{vm.vm}: {vm.treatment}: {vm.why}" for vm in plan.vms[:20])
    more = (f"and {count - 20} more VMs",) if count > 20 else ()
    only = []
    if not context.enforce:
        only.append("this daemon only observes: it would say so, and touch nothing")
    elif not chosen.enforce:
        only.append("the policy only observes: it would say so, and touch nothing")
    if chosen.approval is not None:
        only.append("a person is asked first")
    return (head, *only, *treated, *more)


def _since(at: float, since_at: float, *, assumed: bool) -> float | None:
    return None if assumed else round(max(0.0, at - since_at), 3)


def _line(row: GuardRow, now: float) -> GuardLine:
    in_s = None if row.until is None else round(max(0.0, row.until - now), 3)
    return GuardLine(guard=row.guard, answer=row.answer, why=row.why, in_s=in_s)
