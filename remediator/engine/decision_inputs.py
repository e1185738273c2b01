"""Fills the inputs of a decision record from what the engine has before it now."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from remediator.engine import fencing, maintenance, planner, proofs
from remediator.engine.answered import answered
from remediator.engine.chain import VmPlan
from remediator.engine.context import Context
from remediator.engine.inputs import Ground, Inputs, MatchSeen, OwnSeen, VmSeen
from remediator.engine.model import NodeFacts, RunStrategy, Subject, node_subject
from remediator.engine.plane_values import PlaneValues
from remediator.engine.rules import Match, MatchInput
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
    return Inputs(
        planes=planes(context, node), wanted=maintenance.wanted(context, node), own=own(context)
    )


def of_answer(context: Context, node: NodeFacts, asked: MatchInput, match: Match) -> Inputs:
    """Return what the choice of a policy for a convicted node is made from."""
    under = ground(context, node, planner.vm_plans(context.inventory, match.policy, node.name))
    return Inputs(
        planes=planes(context, node),
        wanted=maintenance.wanted(context, node),
        own=own(context),
        match=seen(context, asked, match, under),
        ground=under,
    )


def of_vm_answer(context: Context, subject: Subject, asked: MatchInput, match: Match) -> Inputs:
    """Return what the choice of a policy for a confirmed VM incident is made from."""
    vmi = context.inventory.vmi(subject)
    node = vmi.node if vmi is not None else ""
    plan = planner.plan_vm(context.inventory, match.policy, subject, vmi, node)
    under = _ground_of((plan,), context)
    return Inputs(own=own(context), match=seen(context, asked, match, under), ground=under)


def seen(context: Context, asked: MatchInput, match: Match, under: Ground) -> MatchSeen:
    """Return what the policies were asked about, every fact read, and what they answered."""
    return MatchSeen(
        kind=asked.kind,
        name=asked.name,
        namespace=asked.namespace,
        labels=asked.labels,
        verdict=asked.verdict,
        since_at=asked.since_at,
        at=context.now,
        # As they read when the record is read again: JSON has no tuples.
        facts=msgspec.json.decode(msgspec.json.encode(dict(asked.facts))),
        answer=answered(match.policy, asked.verdict, under),
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


def ground(context: Context, node: NodeFacts, vms: Sequence[VmPlan]) -> Ground:
    """Return what any policy's plan for this node and these VMs of it would be made from now."""
    method = fencing.method_for(context, node.name)
    return msgspec.structs.replace(
        _ground_of(vms, context),
        fence_method=method.name if method is not None else "",
        levels=method.levels if method is not None else (),
    )


def _ground_of(vms: Sequence[VmPlan], context: Context) -> Ground:
    kinds = {fencing.disk_kind(context.inventory, vm) for vm in vms}
    return Ground(
        vms=len(vms),
        disks=tuple(sorted(kind.value for kind in kinds)),
        manual=sum(vm.run_strategy == RunStrategy.MANUAL for vm in vms),
    )
