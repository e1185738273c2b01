"""How much of a zone, or of the cluster, is down: past a share, nothing more is taken down."""

from __future__ import annotations

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.guard_answers import ask as answer
from remediator.engine.guard_answers import named
from remediator.engine.incidents import Incident
from remediator.engine.model import IncidentState, NodeFacts, Verdict
from remediator.engine.safeguards import node_rules as rules


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


def _share(scope: str, among: frozenset[str], share: float, context: Context) -> rules.ShareSeen:
    limit = share_limit(share, len(among))
    down = unhealthy(context) & among
    if len(down) > limit:
        context.crowded_at[scope] = context.now
    return rules.ShareSeen(
        placed=True,
        down=len(down),
        named=named(down),
        among=len(among),
        limit=limit,
        now=context.now,
        calm_at=context.crowded_at.get(scope, 0.0) + context.settings.budgets.calm_s,
    )


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


def others_heard(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    """Ask whether enough others were heard since the node fell silent."""
    if incident.verdict is not Verdict.UNREACHABLE or "fence" not in plan.steps:
        return answer("others-heard", rules.OthersSeen(matters=False))
    settings = context.settings.budgets
    everybody = frozenset(context.inventory.nodes)
    scopes = [("the cluster", everybody, settings.max_unhealthy_cluster_share)]
    if node.zone:
        zone = context.inventory.zone_members(node.zone)
        scopes.insert(0, (node.zone, zone, settings.max_unhealthy_zone_share))
    heard = tuple(_heard(context, incident, *scope) for scope in scopes)
    return answer("others-heard", rules.OthersSeen(matters=True, scopes=heard))


def _heard(
    context: Context, incident: Incident, scope: str, among: frozenset[str], share: float
) -> rules.ScopeHeard:
    missing = unheard(context, incident, among)
    return rules.ScopeHeard(
        scope=scope,
        among=len(among),
        missing=len(missing),
        named=named(missing),
        down=len(unhealthy(context) & among),
        limit=share_limit(share, len(among)),
    )


def zone_share(context: Context, _incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    """Ask whether too much of the node's zone is down."""
    if not node.zone:
        return answer("zone-share", _NO_ZONE)
    share = context.settings.budgets.max_unhealthy_zone_share
    among = context.inventory.zone_members(node.zone)
    return answer("zone-share", _share(f"zone/{node.zone}", among, share, context))


def cluster_share(context: Context, _incident: Incident, _n: NodeFacts, _plan: Plan) -> GuardRow:
    """Ask whether too much of the cluster is down."""
    share = context.settings.budgets.max_unhealthy_cluster_share
    among = frozenset(context.inventory.nodes)
    return answer("cluster-share", _share("cluster", among, share, context))


_NO_ZONE = rules.ShareSeen(placed=False, down=0, named=(), among=0, limit=0, now=0.0, calm_at=0.0)
