"""Guards and budgets: each is asked before a node is disrupted, each answer is recorded.

They fail closed: what is not known to be safe waits. More failures mean more care, not more haste.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine import proofs
from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.incidents import DONE_STAGES, OWN_NODE, Incident, Stage
from remediator.engine.model import FactKind, IncidentState, NodeFacts
from remediator.engine.safeguards import rows, shares

# Nodes with the same value hold replicas of the same data, for storage that says so nowhere else.
REPLICA_SET_LABEL = "remediator.io/replica-set"


_TAKING_DOWN = frozenset({IncidentState.FENCING, IncidentState.FENCED, IncidentState.RECOVERING})


def ask(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> tuple[GuardRow, ...]:
    """Ask every guard about carrying out ``plan``, in a fixed order."""
    guards = GUARDS
    word = proofs.word(context, incident, node)
    if word is not None and proofs.accepted(word, plan):
        guards = _WITHOUT_A_FENCE  # nothing is going to be powered off
    return tuple(guard(context, incident, node, plan) for guard in guards)


def _mode(context: Context, _incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    steps = ", ".join(plan.steps)
    if not context.enforce:
        return rows.refuse("mode", f"observe mode: would {steps} {node.name}; {len(plan.vms)} VMs")
    policy = next((each for each in context.policies if each.name == plan.policy), None)
    if policy is not None and not policy.enforce:
        return rows.refuse("mode", f"policy {plan.policy} only observes: would {steps}")
    return rows.grant("mode", "enforce")


def _inventory(context: Context, _incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    if not context.inventory.synced:
        return rows.wait("inventory", "the lists of nodes, VMs and pods are not complete yet")
    if FactKind.HANDS_OFF not in context.inventory.synced_kinds:
        return rows.wait("inventory", "whether somebody else works on a node is not known yet")
    return rows.grant("inventory", "complete")


def _control_plane(_c: Context, _incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    if node.control_plane:
        return rows.refuse("control-plane", "etcd quorum is not known here: a human must decide")
    return rows.grant("control-plane", "a worker")


def _vms(_context: Context, _incident: Incident, _node: NodeFacts, plan: Plan) -> GuardRow:
    if not plan.vms:
        return rows.wait("vms", "no VM is on this node: nothing would be won by fencing it")
    return rows.grant("vms", f"{len(plan.vms)} VMs to recover")


def _method(_context: Context, _incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    if "fence" not in plan.steps:
        return rows.grant("fence-method", "the plan does not fence")
    if not plan.fence_method:
        return rows.refuse("fence-method", f"no fence method is configured for {node.name}")
    if not plan.levels:
        taken = ", ".join(plan.required_proof) or "none"
        why = f"no level of {plan.fence_method} gives a proof that the policy takes here: {taken}"
        return rows.refuse("fence-method", why)
    return rows.grant("fence-method", plan.fence_method)


def own_node(context: Context, incident: Incident, node: NodeFacts) -> GuardRow | None:
    """Return why a node must not be fenced because this leader runs there; None where it is not."""
    if not context.home or node.name != context.home:
        return None
    if context.identity in incident.yielded_by:
        why = "it runs this leader, and no other replica took over: start one on another node"
        return rows.wait(OWN_NODE, why)
    return rows.wait(OWN_NODE, "it runs this leader: another replica must lead before it is fenced")


def _own_node(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    refusal = own_node(context, incident, node) if "fence" in plan.steps else None
    return refusal or rows.grant(OWN_NODE, "another node than the leader's")


def _is_stuck(incident: Incident) -> bool:
    """Whether a recovery has come as far as it can: it may need what its partner would bring."""
    left = {each.stage for each in incident.vms.values()} - DONE_STAGES
    return incident.state is IncidentState.RECOVERING and left == {Stage.STUCK}


def _replicas(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    if "fence" not in plan.steps:
        return rows.grant("storage-replicas", "the plan does not fence")
    working = {
        other.subject.name
        for other in context.state.incidents.values()
        if other.id != incident.id and other.state in _TAKING_DOWN and not _is_stuck(other)
    }
    for partner, volume in context.inventory.replica_partners(node.name).items():
        if partner in working:
            why = f"{partner}, which holds a replica of {volume} as well, is being recovered"
            return rows.wait("storage-replicas", why)
    mine = node.labels.get(REPLICA_SET_LABEL)
    for name in sorted(working) if mine else ():
        other = context.inventory.nodes.get(name)
        if other is not None and other.labels.get(REPLICA_SET_LABEL) == mine:
            why = f"{name} of replica set {mine} is being recovered"
            return rows.wait("storage-replicas", why)
    return rows.grant("storage-replicas", "no partner of its replicas is being recovered")


def _trust(_context: Context, incident: Incident, _node: NodeFacts, plan: Plan) -> GuardRow:
    if incident.contradicted and "fence" in plan.steps:
        return rows.refuse("power-trust", "its BMC said off while it lived: it proves nothing")
    return rows.grant("power-trust", "never contradicted")


def _cooldown(context: Context, incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    last_at = context.state.fenced_at.get(node.name)
    if last_at is None or incident.proof is not None:
        return rows.grant("cool-down", "not fenced lately")
    until = last_at + context.settings.budgets.fence_cooldown_s
    if context.now < until:
        ago_s = context.now - last_at
        left_s = until - context.now
        why = f"fenced {ago_s:.0f} s ago: it is flapping; held for another {left_s:.0f} s"
        return rows.wait("cool-down", why, until)
    return rows.grant("cool-down", f"last fenced {context.now - last_at:.0f} s ago")


def _fences(context: Context, incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    limit = context.settings.budgets.max_fences_at_once
    running = [
        other.subject.name
        for other in context.state.incidents.values()
        if other.state is IncidentState.FENCING and other.id != incident.id
    ]
    if len(running) >= limit:
        why = f"{len(running)} of {limit} under way: {', '.join(running)}"
        return rows.wait("fences-at-once", why)
    return rows.grant("fences-at-once", f"{len(running)} of {limit} under way")


Guard = Callable[[Context, Incident, NodeFacts, Plan], GuardRow]

GUARDS: tuple[Guard, ...] = (
    _mode,
    _inventory,
    _control_plane,
    _vms,
    _method,
    _own_node,
    _replicas,
    _trust,
    _cooldown,
    shares.zone_share,
    shares.cluster_share,
    shares.others_heard,
    _fences,
)

_WITHOUT_A_FENCE: tuple[Guard, ...] = (_mode, _inventory, _vms)
