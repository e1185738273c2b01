"""Guards and budgets: each is asked before a node is disrupted, each answer is recorded.

They fail closed: what is not known to be safe waits. More failures mean more care, not more haste.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine import proofs
from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.guard_answers import ask as answer
from remediator.engine.incidents import DONE_STAGES, OWN_NODE, Incident, Stage
from remediator.engine.model import FactKind, IncidentState, NodeFacts
from remediator.engine.safeguards import (
    approvals,
    flapping,
    pauses,
    quorum,
    quotas,
    replicas,
    shares,
)
from remediator.engine.safeguards import node_rules as rules

# Nodes with the same value hold replicas of the same data, for storage that says so nowhere else.
REPLICA_SET_LABEL = "remediator.io/replica-set"


_TAKING_DOWN = frozenset({IncidentState.FENCING, IncidentState.FENCED, IncidentState.RECOVERING})


def ask(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> tuple[GuardRow, ...]:
    """Ask every guard about carrying out ``plan``, in a fixed order; a person's approval last."""
    guards = GUARDS
    word = proofs.word(context, incident, node)
    if word is not None and proofs.accepted(word, plan):
        guards = _WITHOUT_A_FENCE  # nothing is going to be powered off
    answered = tuple(guard(context, incident, node, plan) for guard in guards)
    policy = next((each for each in context.policies if each.name == plan.policy), None)
    return approvals.weigh(context, incident, policy, answered)


def _mode(context: Context, _incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    policy = next((each for each in context.policies if each.name == plan.policy), None)
    saw = rules.ModeSeen(
        enforce=context.enforce,
        policy=plan.policy,
        policy_enforces=policy is None or policy.enforce,
        steps=plan.steps,
        what=f"{node.name}; {len(plan.vms)} VMs",
    )
    return answer("mode", saw)


def _inventory(context: Context, _incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    return answer("inventory", inventory_seen(context))


def inventory_seen(context: Context) -> rules.InventorySeen:
    """Return which lists are complete."""
    return rules.InventorySeen(
        lists=context.inventory.synced,
        hands_off=FactKind.HANDS_OFF in context.inventory.synced_kinds,
    )


def _paused(context: Context, incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    return pauses.paused_row(context, incident.subject)


def _cancelled(context: Context, incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    return pauses.cancelled_row(context, incident)


def _vms(_context: Context, _incident: Incident, _node: NodeFacts, plan: Plan) -> GuardRow:
    return answer("vms", rules.VmsSeen(count=len(plan.vms)))


def _method(_context: Context, _incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    saw = rules.MethodSeen(
        fences="fence" in plan.steps,
        node=node.name,
        method=plan.fence_method,
        levels=len(plan.levels),
        required=plan.required_proof,
    )
    return answer("fence-method", saw)


def own_node(context: Context, incident: Incident, node: NodeFacts) -> GuardRow | None:
    """Return why a node must not be fenced because this leader runs there; None where it is not."""
    if not context.home or node.name != context.home:
        return None
    yielded = context.identity in incident.yielded_by
    return answer(OWN_NODE, rules.OwnNodeSeen(ours=True, yielded=yielded))


def _own_node(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    refusal = own_node(context, incident, node) if "fence" in plan.steps else None
    return refusal or answer(OWN_NODE, rules.OwnNodeSeen(ours=False, yielded=False))


def _is_stuck(incident: Incident) -> bool:
    """Whether a recovery has come as far as it can: it may need what its partner would bring."""
    left = {each.stage for each in incident.vms.values()} - DONE_STAGES
    return incident.state is IncidentState.RECOVERING and left == {Stage.STUCK}


def _replicas(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    fences = "fence" in plan.steps
    return answer("storage-replicas", _partner(context, incident, node, fences=fences))


def _partner(
    context: Context, incident: Incident, node: NodeFacts, *, fences: bool
) -> rules.ReplicasSeen:
    if not fences:
        return rules.ReplicasSeen(fences=False)
    working = {
        other.subject.name
        for other in context.state.incidents.values()
        if other.id != incident.id and other.state in _TAKING_DOWN and not _is_stuck(other)
    }
    for partner, volume in context.inventory.replica_partners(node.name).items():
        if partner in working:
            return rules.ReplicasSeen(fences=True, partner=partner, volume=volume)
    mine = node.labels.get(REPLICA_SET_LABEL)
    for name in sorted(working) if mine else ():
        other = context.inventory.nodes.get(name)
        if mine and other is not None and other.labels.get(REPLICA_SET_LABEL) == mine:
            return rules.ReplicasSeen(fences=True, partner=name, replica_set=mine)
    return rules.ReplicasSeen(fences=True)


def _trust(_context: Context, incident: Incident, _node: NodeFacts, plan: Plan) -> GuardRow:
    saw = rules.TrustSeen(contradicted=incident.contradicted, fences="fence" in plan.steps)
    return answer("power-trust", saw)


def _fences(context: Context, incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    running = tuple(
        other.subject.name
        for other in context.state.incidents.values()
        if other.state is IncidentState.FENCING and other.id != incident.id
    )
    limit = context.settings.budgets.max_fences_at_once
    return answer("fences-at-once", rules.FencesSeen(limit=limit, running=running))


Guard = Callable[[Context, Incident, NodeFacts, Plan], GuardRow]

# By the name that stands in the record.
GUARDS_BY_NAME: dict[str, Guard] = {
    "mode": _mode,
    "inventory": _inventory,
    "paused": _paused,
    "cancelled": _cancelled,
    "control-plane": quorum.control_plane,
    "vms": _vms,
    "fence-method": _method,
    "own-node": _own_node,
    "storage-replicas": _replicas,
    "replicated-app": replicas.apps_on_node,
    "power-trust": _trust,
    "cool-down": flapping.cool_down,
    "flapping": flapping.flapping,
    "storm-brake": flapping.storm,
    "zone-share": shares.zone_share,
    "cluster-share": shares.cluster_share,
    "others-heard": shares.others_heard,
    "disruptions-at-once": quotas.nodes_at_once,
    "disruptions-per-hour": quotas.nodes_per_hour,
    "policy-limits": quotas.policy_on_node,
    "fences-at-once": _fences,
}
GUARDS: tuple[Guard, ...] = tuple(GUARDS_BY_NAME.values())

_WITHOUT_A_FENCE: tuple[Guard, ...] = (_mode, _inventory, _paused, _cancelled, _vms)
