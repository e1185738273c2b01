"""Fills the inputs of a decision record from what the engine has before it now."""

from __future__ import annotations

import msgspec

from remediator.engine import fencing, proofs
from remediator.engine.chain import Plan
from remediator.engine.context import Context
from remediator.engine.incidents import Incident
from remediator.engine.inputs import Ground, Inputs, MatchSeen, OwnSeen, VmSeen
from remediator.engine.model import NodeFacts, RunStrategy, node_subject
from remediator.engine.plane_values import PlaneValues
from remediator.engine.rules import Match
from remediator.engine.vm_verdicts import VmValues


def planes(context: Context, node: NodeFacts) -> PlaneValues:
    """Return the key that the verdict table is read with: a person's word counts as "off"."""
    values = context.evidence.values(node, context.now)
    incident = context.state.incident_on(node_subject(node.name))
    if proofs.word(context, incident, node) is not None:
        # A person has seen it, and it was not heard since.
        return msgspec.structs.replace(values, power="off")
    return values


def of_verdict(context: Context, node: NodeFacts) -> Inputs:
    """Return what a verdict on a node is made from."""
    return Inputs(planes=planes(context, node), own=own(context))


def of_answer(
    context: Context, incident: Incident, node: NodeFacts, match: Match, plan: Plan | None
) -> Inputs:
    """Return what the choice of a policy for a convicted node is made from."""
    policy = match.policy
    return Inputs(
        planes=planes(context, node),
        own=own(context),
        match=MatchSeen(
            kind="node",
            name=node.name,
            labels=node.labels,
            verdict=incident.verdict,
            since_at=incident.verdict_at,
            at=context.now,
            policy=policy.name if policy is not None else "",
            policy_hash=policy.content_hash if policy is not None else "",
        ),
        ground=ground(context, node, plan) if plan is not None else None,
    )


def of_vm(
    context: Context, values: VmValues, stood_s: dict[str, float] | None = None, patience: int = 1
) -> Inputs:
    """Return what a verdict on a VM is made from."""
    seen = VmSeen(values=values, stood_s=stood_s or {}, patience=patience)
    return Inputs(vm=seen, own=own(context))


def own(context: Context) -> OwnSeen:
    """Return how far this daemon trusts its own eyes now."""
    health = context.evidence.own_health
    return OwnSeen(multiplier=health.multiplier, reasons=health.reasons)


def ground(context: Context, node: NodeFacts, plan: Plan) -> Ground:
    """Return what any policy's plan for this node would be made from now."""
    method = fencing.method_for(context, node.name)
    kinds = {fencing.disk_kind(context.inventory, vm) for vm in plan.vms}
    return Ground(
        vms=len(plan.vms),
        disks=tuple(sorted(kind.value for kind in kinds)),
        manual=sum(vm.run_strategy == RunStrategy.MANUAL for vm in plan.vms),
        fence_method=method.name if method is not None else "",
        levels=method.levels if method is not None else (),
    )
