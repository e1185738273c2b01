"""How much of a zone, or of the cluster, is down: past a share, nothing more is taken down."""

from __future__ import annotations

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.incidents import Incident
from remediator.engine.model import IncidentState, NodeFacts, Verdict
from remediator.engine.safeguards import rows


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


def _share(
    name: str, scope: str, among: frozenset[str], share: float, context: Context
) -> GuardRow:
    limit = share_limit(share, len(among))
    down = sorted(unhealthy(context) & among)
    text = f"{len(down)} of {len(among)} nodes down or silent, limit {limit}"
    if len(down) > limit:
        context.crowded_at[scope] = context.now
        return rows.wait(name, f"{text}: {', '.join(down[:10])}")
    calm_at = context.crowded_at.get(scope, 0.0) + context.settings.budgets.calm_s
    if context.now < calm_at:
        # What came back first is seldom alone: the others get their time to follow.
        why = f"{text}; it was past it a moment ago: others may be back soon"
        return rows.wait(name, why, calm_at)
    return rows.grant(name, text)


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
    """Wait where others may be down with a node that may live: they were not heard since."""
    if incident.verdict is not Verdict.UNREACHABLE or "fence" not in plan.steps:
        return rows.grant("others-heard", "nothing that may live is powered off")
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
            return rows.wait(
                "others-heard",
                f"{len(missing)} of {len(among)} nodes of {scope} were not heard since it fell "
                f"silent, they may be down with it: {', '.join(missing[:10])}",
            )
    return rows.grant("others-heard", "enough others were heard since it fell silent")


def zone_share(context: Context, _incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    """Wait where more of the node's zone is down than may be."""
    if not node.zone:
        return rows.grant("zone-share", "the node is in no zone")
    share = context.settings.budgets.max_unhealthy_zone_share
    return _share(
        "zone-share", f"zone/{node.zone}", context.inventory.zone_members(node.zone), share, context
    )


def cluster_share(context: Context, _incident: Incident, _n: NodeFacts, _plan: Plan) -> GuardRow:
    """Wait where more of the cluster is down than may be."""
    share = context.settings.budgets.max_unhealthy_cluster_share
    return _share("cluster-share", "cluster", frozenset(context.inventory.nodes), share, context)
