"""What emptying a node would mean, or how far it has come: each of its VMs, and what limits it."""

from __future__ import annotations

import copy

from remediator.engine import (
    evacuation_guards,
    evacuation_limits,
    evacuation_moves,
    evacuation_plan,
    maintenance,
    safeguards,
)
from remediator.engine.chain import GuardRow, VmPlan
from remediator.engine.context import Context
from remediator.engine.evacuation_plan import Move
from remediator.engine.incidents import DONE_STAGES, Incident, Stage, VmProgress
from remediator.engine.match_facts import about_node
from remediator.engine.model import IncidentState, NodeFacts, Subject, Verdict, node_subject
from remediator.engine.near_names import near, suggestion
from remediator.engine.rules import Policy, first_match
from remediator.engine.verdicts import WANTED_EMPTY
from remediator.engine.view_lines import leader_line
from remediator.engine.views import DrainView, GuardLine, MoveLine, NoSuch, Surroundings

_HOW = {
    Move.MIGRATE.value: "live migration",
    Move.RESTART.value: "restart elsewhere",
    Move.STAY.value: "stays",
}


def preview(context: Context, around: Surroundings, name: str) -> DrainView | NoSuch:
    """Return what a drain of this node would do now, and how far one has come."""
    node = context.inventory.nodes.get(name)
    if node is None:
        found = near(name, context.inventory.nodes)
        detail = f"there is no node {name}{suggestion(found)}"
        return NoSuch(subject=node_subject(name), detail=detail)
    shadow = copy.copy(context)
    shadow.now, shadow.effects = max(around.at, context.now), []
    shadow.crowded_at, shadow.down_now = dict(context.crowded_at), None
    incident = context.state.incident_on(node_subject(name))
    policy = _policy(shadow, node, incident)
    rows = _guards(shadow, node, incident, policy)
    return DrainView(
        at=around.at,
        leader=leader_line(context, around.at),
        name=name,
        wanted=maintenance.wanted(context, node),
        policy=policy.name if policy is not None else "",
        steps=policy.steps if policy is not None else (),
        state=_state(context, node, incident),
        limits=_limits(context, name),
        guards=tuple(
            GuardLine(
                guard=row.guard,
                answer=row.answer,
                why=row.why,
                in_s=None if row.until is None else max(0.0, round(row.until - shadow.now, 3)),
            )
            for row in safeguards.withheld(rows)
        ),
        moves=_moves(shadow, node, incident, policy),
    )


def _policy(context: Context, node: NodeFacts, incident: Incident | None) -> Policy | None:
    """Return the policy that empties it, or would if a person wanted it empty."""
    if incident is not None and incident.state is IncidentState.EVACUATING:
        return evacuation_moves.policy_of(context, incident)
    # As if it had been wanted for as long as any policy asks.
    asked = about_node(context, node, Verdict.MAINTENANCE, 0.0, WANTED_EMPTY.name)
    return first_match(context.policies, asked, context.now).policy


def _guards(
    context: Context, node: NodeFacts, incident: Incident | None, policy: Policy | None
) -> tuple[GuardRow, ...]:
    if policy is None or (incident is not None and incident.state is IncidentState.EVACUATING):
        return ()
    shell = incident or Incident(
        id="",
        subject=node_subject(node.name),
        state=IncidentState.CONFIRMED,
        opened_at=context.now,
        node_uid=node.uid,
        boot_id=node.boot_id,
        verdict=Verdict.MAINTENANCE,
        verdict_at=context.now,
        row=WANTED_EMPTY.name,
    )
    plan = evacuation_plan.make_plan(context, policy, node)
    rows = safeguards.ask(context, shell, node, plan)
    away = safeguards.hands_off(context, node)
    if away:
        rows = (GuardRow(guard="hands-off", answer=safeguards.WAIT, why=away), *rows)
    return evacuation_guards.adapt(context, shell, rows)


def _state(context: Context, node: NodeFacts, incident: Incident | None) -> str:
    if incident is not None and incident.state is IncidentState.EVACUATING:
        stages = [progress.stage for progress in incident.vms.values()]
        done = sum(stage in (Stage.MOVED, Stage.UP, Stage.GONE) for stage in stages)
        return f"evacuating: {done} of {len(stages)} VMs have left"
    if incident is not None:
        return f"{incident.state}: {incident.verdict}"
    residue = context.state.residues.get(node.name)
    if residue is not None and residue.evacuated:
        return "empty, and cordoned by us"
    return "nothing is under way"


def _limits(context: Context, node: str) -> str:
    load = evacuation_limits.load(context, node)
    said = context.inventory.migration_limits
    bandwidth = f", {said.bandwidth}/s each" if said is not None and said.bandwidth else ""
    return (
        f"{load.cluster} of {load.cluster_limit} live migrations in the cluster, {load.node} of "
        f"{load.node_limit} off {node} ({load.source}{bandwidth})"
    )


def _moves(
    context: Context, node: NodeFacts, incident: Incident | None, policy: Policy | None
) -> tuple[MoveLine, ...]:
    progress = incident.vms if incident is not None and _empties(incident) else {}
    there = evacuation_plan.vms_on(context.inventory, node.name)
    known = {str(vm): vm for vm in there} | {key: each.plan.vm for key, each in progress.items()}
    lines = []
    for key, vm in sorted(known.items()):
        done = progress.get(key)
        plan = (
            done.plan
            if done is not None and vm not in there
            else evacuation_plan.plan_vm(context, policy, node, vm)
        )
        lines.append(_line(context, node, plan, done))
    return tuple(lines)


def _empties(incident: Incident) -> bool:
    return incident.plan is not None and evacuation_plan.evacuates(incident.plan)


def _line(context: Context, node: NodeFacts, plan: VmPlan, progress: VmProgress | None) -> MoveLine:
    vm = plan.vm
    how, why = _HOW.get(plan.treatment, plan.treatment), plan.why
    target = progress.target if progress is not None else ""
    if not target and plan.treatment == Move.MIGRATE:
        target = evacuation_plan.better_node(context, node, vm)
    stage, since_s = "", None
    if progress is not None:
        stage = progress.stage.value
        since_s = round(max(0.0, context.now - progress.since_at), 3)
        if progress.stage not in DONE_STAGES and progress.last:
            why = f"{why}; last attempt: {progress.last}"
    return MoveLine(
        namespace=vm.namespace,
        name=vm.name,
        how=how,
        why=why,
        target=target,
        stage=stage,
        since_s=since_s,
        attempts=progress.attempts if progress is not None else 0,
        migration=_migration(context, vm),
    )


def _migration(context: Context, vm: Subject) -> str:
    """Say how KubeVirt's migration of a VM is, if one is in flight."""
    flight = context.flights.of(vm)
    found = context.inventory.migrations_of((vm.namespace, vm.name))
    if flight is None or not found:
        return ""
    vmi = context.inventory.vmi(vm)
    to = f" to {vmi.migrating_to}" if vmi is not None and vmi.migrating_to else ""
    for_s = max(0.0, context.now - flight.since_at)
    return f"{flight.phase or 'new'}{to}, {flight.stretch} for {for_s:.0f} s"
