"""Guards and budgets: each is asked before a node is disrupted, each answer is recorded.

They fail closed: what is not known to be safe waits. More failures mean more care, not more haste.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine import proofs
from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.incidents import DONE_STAGES, OWN_NODE, Incident, Stage
from remediator.engine.model import FactKind, IncidentState, NodeFacts, Verdict

GRANT, WAIT, REFUSE = "grant", "wait", "refuse"

EXCLUDE_LABEL = "remediation.medik8s.io/exclude-from-remediation"  # medik8s: value must be "true"
EXCLUDE_ANNOTATION = "remediator.io/exclude"
# Nodes with the same value hold replicas of the same data, for storage that says so nowhere else.
REPLICA_SET_LABEL = "remediator.io/replica-set"
CLAIM_PREFIX = "remediator-"  # of the holder of a medik8s node lease: the policy's name follows


_TAKING_DOWN = frozenset({IncidentState.FENCING, IncidentState.FENCED, IncidentState.RECOVERING})


def ask(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> tuple[GuardRow, ...]:
    """Ask every guard about carrying out ``plan``, in a fixed order."""
    guards = GUARDS
    word = proofs.word(context, incident, node)
    if word is not None and proofs.accepted(word, plan):
        guards = _WITHOUT_A_FENCE  # nothing is going to be powered off
    return tuple(guard(context, incident, node, plan) for guard in guards)


def withheld(rows: tuple[GuardRow, ...]) -> tuple[GuardRow, ...]:
    """Return the rows that do not grant."""
    return tuple(row for row in rows if row.answer != GRANT)


def hands_off(context: Context, node: NodeFacts) -> str:
    """Return why this node is somebody else's business now, all who say so, or ""."""
    why: list[str] = []
    if node.labels.get(EXCLUDE_LABEL) == "true":
        why.append(f"it carries the label {EXCLUDE_LABEL}=true")
    if EXCLUDE_ANNOTATION in node.annotations:
        why.append(f"it carries the annotation {EXCLUDE_ANNOTATION}")
    lease = context.inventory.leases.get(node.name)
    ours = lease is not None and lease.holder.startswith(CLAIM_PREFIX)
    if lease is not None and lease.holder and not ours and lease.duration_s > 0:
        # Valid by the holder's clock or by ours: either way somebody may be at work on the node.
        expires_at = max(lease.renewed_at, lease.seen_at) + lease.duration_s
        if expires_at > context.now:
            why.append(f"{lease.holder} holds its medik8s lease")
    claims = sorted(context.inventory.hands_off.items())
    why += [claim.why or claim.name for _, claim in claims if claim.node == node.name]
    why += [claim.why or claim.name for _, claim in claims if not claim.node]
    return "; ".join(why)


def unhealthy(context: Context) -> frozenset[str]:
    """Return the nodes that are or may be down.

    Silent, overdue, reached by no vantage point, fenced or in an incident.
    """
    if context.down_now is None:
        state, evidence = context.state, context.evidence
        in_incident = {
            incident.subject.name
            for incident in state.incidents.values()
            if incident.state is not IncidentState.SUSPECTED
        }
        down = in_incident.union(
            state.residues, evidence.overdue_nodes(), evidence.unreached(context.now)
        )
        context.down_now = frozenset(down & context.inventory.nodes.keys())
    return context.down_now


def share_limit(share: float, count: int) -> int:
    """Return how many of ``count`` nodes may be down at once; one may always be treated."""
    return max(1, int(share * count))


def _mode(context: Context, _incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    steps = ", ".join(plan.steps)
    if not context.enforce:
        return _refuse("mode", f"observe mode: would {steps} {node.name}; {len(plan.vms)} VMs")
    policy = next((each for each in context.policies if each.name == plan.policy), None)
    if policy is not None and not policy.enforce:
        return _refuse("mode", f"policy {plan.policy} only observes: would {steps}")
    return _grant("mode", "enforce")


def _inventory(context: Context, _incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    if not context.inventory.synced:
        return _wait("inventory", "the lists of nodes, VMs and pods are not complete yet")
    if FactKind.HANDS_OFF not in context.inventory.synced_kinds:
        return _wait("inventory", "whether somebody else works on a node is not known yet")
    return _grant("inventory", "complete")


def _control_plane(_c: Context, _incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    if node.control_plane:
        return _refuse("control-plane", "etcd quorum is not known here: a human must decide")
    return _grant("control-plane", "a worker")


def _vms(_context: Context, _incident: Incident, _node: NodeFacts, plan: Plan) -> GuardRow:
    if not plan.vms:
        return _wait("vms", "no VM is on this node: nothing would be won by fencing it")
    return _grant("vms", f"{len(plan.vms)} VMs to recover")


def _method(_context: Context, _incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    if "fence" not in plan.steps:
        return _grant("fence-method", "the plan does not fence")
    if not plan.fence_method:
        return _refuse("fence-method", f"no fence method is configured for {node.name}")
    if not plan.levels:
        taken = ", ".join(plan.required_proof) or "none"
        why = f"no level of {plan.fence_method} gives a proof that the policy takes here: {taken}"
        return _refuse("fence-method", why)
    return _grant("fence-method", plan.fence_method)


def own_node(context: Context, incident: Incident, node: NodeFacts) -> GuardRow | None:
    """Return why a node must not be fenced because this leader runs there; None where it is not."""
    if not context.home or node.name != context.home:
        return None
    if context.identity in incident.yielded_by:
        why = "it runs this leader, and no other replica took over: start one on another node"
        return _wait(OWN_NODE, why)
    return _wait(OWN_NODE, "it runs this leader: another replica must lead before it is fenced")


def _own_node(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    refusal = own_node(context, incident, node) if "fence" in plan.steps else None
    return refusal or _grant(OWN_NODE, "another node than the leader's")


def _is_stuck(incident: Incident) -> bool:
    """Whether a recovery has come as far as it can: it may need what its partner would bring."""
    left = {each.stage for each in incident.vms.values()} - DONE_STAGES
    return incident.state is IncidentState.RECOVERING and left == {Stage.STUCK}


def _replicas(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    if "fence" not in plan.steps:
        return _grant("storage-replicas", "the plan does not fence")
    working = {
        other.subject.name
        for other in context.state.incidents.values()
        if other.id != incident.id and other.state in _TAKING_DOWN and not _is_stuck(other)
    }
    for partner, volume in context.inventory.replica_partners(node.name).items():
        if partner in working:
            why = f"{partner}, which holds a replica of {volume} as well, is being recovered"
            return _wait("storage-replicas", why)
    mine = node.labels.get(REPLICA_SET_LABEL)
    for name in sorted(working) if mine else ():
        other = context.inventory.nodes.get(name)
        if other is not None and other.labels.get(REPLICA_SET_LABEL) == mine:
            return _wait("storage-replicas", f"{name} of replica set {mine} is being recovered")
    return _grant("storage-replicas", "no partner of its replicas is being recovered")


def _trust(_context: Context, incident: Incident, _node: NodeFacts, plan: Plan) -> GuardRow:
    if incident.contradicted and "fence" in plan.steps:
        return _refuse("power-trust", "its BMC said off while it lived: it proves nothing")
    return _grant("power-trust", "never contradicted")


def _cooldown(context: Context, incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    last_at = context.state.fenced_at.get(node.name)
    if last_at is None or incident.proof is not None:
        return _grant("cool-down", "not fenced lately")
    until = last_at + context.settings.budgets.fence_cooldown_s
    if context.now < until:
        ago_s = context.now - last_at
        left_s = until - context.now
        why = f"fenced {ago_s:.0f} s ago: it is flapping; held for another {left_s:.0f} s"
        return _wait("cool-down", why, until)
    return _grant("cool-down", f"last fenced {context.now - last_at:.0f} s ago")


def _share(
    name: str, scope: str, among: frozenset[str], share: float, context: Context
) -> GuardRow:
    limit = share_limit(share, len(among))
    down = sorted(unhealthy(context) & among)
    text = f"{len(down)} of {len(among)} nodes down or silent, limit {limit}"
    if len(down) > limit:
        context.crowded_at[scope] = context.now
        return _wait(name, f"{text}: {', '.join(down[:10])}")
    calm_at = context.crowded_at.get(scope, 0.0) + context.settings.budgets.calm_s
    if context.now < calm_at:
        # What came back first is seldom alone: the others get their time to follow.
        return _wait(name, f"{text}; it was past it a moment ago: others may be back soon", calm_at)
    return _grant(name, text)


def unheard(context: Context, incident: Incident, among: frozenset[str]) -> list[str]:
    """Return the nodes of which nothing was heard since this one must have failed, by name.

    What cuts a rack off is noticed of one node first: that whose renewal was due first. The others
    may be down with it while their leases are not late yet.
    """
    name = incident.subject.name
    missed_at = context.evidence.missed_at(name)
    since = incident.verdict_at if missed_at is None else min(incident.verdict_at, missed_at)
    known = unhealthy(context) | {name}
    return sorted(
        other for other in among - known if not context.evidence.heard_after(other, since)
    )


def _others_heard(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    if incident.verdict is not Verdict.UNREACHABLE or "fence" not in plan.steps:
        return _grant("others-heard", "nothing that may live is powered off")
    settings = context.settings.budgets
    everybody = frozenset(context.inventory.nodes)
    scopes = [("the cluster", everybody, settings.max_unhealthy_cluster_share)]
    if node.zone:
        zone = context.inventory.zone_members(node.zone)
        scopes.insert(0, (node.zone, zone, settings.max_unhealthy_zone_share))
    for scope, among, share in scopes:
        missing = unheard(context, incident, among)
        down = len(unhealthy(context) & among)
        if missing and down + len(missing) > share_limit(share, len(among)):
            return _wait(
                "others-heard",
                f"{len(missing)} of {len(among)} nodes of {scope} were not heard since it fell "
                f"silent, they may be down with it: {', '.join(missing[:10])}",
            )
    return _grant("others-heard", "enough others were heard since it fell silent")


def _zone_share(context: Context, _incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    if not node.zone:
        return _grant("zone-share", "the node is in no zone")
    share = context.settings.budgets.max_unhealthy_zone_share
    return _share(
        "zone-share", f"zone/{node.zone}", context.inventory.zone_members(node.zone), share, context
    )


def _cluster_share(context: Context, _incident: Incident, _n: NodeFacts, _plan: Plan) -> GuardRow:
    share = context.settings.budgets.max_unhealthy_cluster_share
    return _share("cluster-share", "cluster", frozenset(context.inventory.nodes), share, context)


def _fences(context: Context, incident: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    limit = context.settings.budgets.max_fences_at_once
    running = [
        other.subject.name
        for other in context.state.incidents.values()
        if other.state is IncidentState.FENCING and other.id != incident.id
    ]
    if len(running) >= limit:
        return _wait("fences-at-once", f"{len(running)} of {limit} under way: {', '.join(running)}")
    return _grant("fences-at-once", f"{len(running)} of {limit} under way")


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
    _zone_share,
    _cluster_share,
    _others_heard,
    _fences,
)

_WITHOUT_A_FENCE: tuple[Guard, ...] = (_mode, _inventory, _vms)


def _grant(guard: str, why: str) -> GuardRow:
    return GuardRow(guard=guard, answer=GRANT, why=why)


def _wait(guard: str, why: str, until: float | None = None) -> GuardRow:
    return GuardRow(guard=guard, answer=WAIT, why=why, until=until)


def _refuse(guard: str, why: str) -> GuardRow:
    return GuardRow(guard=guard, answer=REFUSE, why=why)
