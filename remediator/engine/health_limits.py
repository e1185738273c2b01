"""What a view of the cluster knows nothing of, and what may still be done: the fine print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from remediator.engine import safeguards
from remediator.engine.context import Context
from remediator.engine.model import IncidentState
from remediator.engine.views import BudgetLine, Surroundings, Unheard, WatchLine

_NAMED = 5  # names in a sentence


def unheard(
    context: Context, around: Surroundings, unfenceable: Sequence[str]
) -> Iterator[Unheard]:
    """Yield everything that this leader does not hear; ``unfenceable`` are nodes without device."""
    for watch in around.watches:
        why = _why_unheard(watch)
        if why:
            yield Unheard(what=f"watch {watch.name}", why=why)
    if not context.inventory.synced:
        why = "the lists of nodes, VMs and pods are not complete: no plan is made"
        yield Unheard(what="inventory", why=why)
    if not context.fence_methods:
        yield Unheard(what="power", why="no fence method is configured: no host can be proven off")
    elif unfenceable:
        yield Unheard(what="power", why=f"no fence method covers {_names(unfenceable)}")
    if not any(each.fresh for each in context.evidence.network.vantages(around.at)):
        yield Unheard(what="network", why="no vantage point is heard: nobody probes the nodes")
    if context.evidence.said.storage.silent:
        yield Unheard(what="storage", why="no storage says which nodes it hears")
    if context.evidence.said.machine.silent:
        yield Unheard(what="machine", why="no Machine or health check speaks of a node")


def _why_unheard(watch: WatchLine) -> str:
    if watch.absent:
        return "CRD not installed"
    if not watch.synced:
        return "not listed yet: nothing is concluded from it"
    if watch.quiet_s is not None and watch.quiet_s > watch.limit_s:
        return f"nothing heard for {watch.quiet_s:.0f} s (limit {watch.limit_s:g} s)"
    return ""


def budget_lines(context: Context, zones: Sequence[str], now: float) -> Iterator[BudgetLine]:
    """Yield the budgets in force: of these zones, and of the cluster."""
    settings, nodes = context.settings.budgets, context.inventory.nodes
    for zone in zones:
        if zone:
            members = context.inventory.zone_members(zone)
            share = settings.max_unhealthy_zone_share
            yield _share(context, "zone-share", f"zone/{zone}", members, share, now)
    share = settings.max_unhealthy_cluster_share
    yield _share(context, "cluster-share", "cluster", nodes.keys(), share, now)
    fencing = sorted(
        each.subject.name
        for each in context.state.incidents.values()
        if each.state is IncidentState.FENCING
    )
    limit = settings.max_fences_at_once
    yield BudgetLine(
        name="fences-at-once",
        scope="cluster",
        used=len(fencing),
        limit=limit,
        of=len(nodes),
        spent=len(fencing) >= limit,
        why=_names(fencing),
    )


def _share(
    context: Context, name: str, scope: str, among: AbstractSet[str], share: float, now: float
) -> BudgetLine:
    down = sorted(safeguards.unhealthy(context) & among)
    limit = safeguards.share_limit(share, len(among))
    why = _names(down)
    crowded_at = context.crowded_at.get(scope)
    calm_s = 0.0
    if crowded_at is not None and len(down) <= limit:
        calm_s = max(0.0, crowded_at + context.settings.budgets.calm_s - now)
    if calm_s > 0:
        lately = f"was past its limit lately: withheld for {calm_s:.0f} s yet"
        why = f"{why}; {lately}" if why else lately
    return BudgetLine(
        name=name,
        scope=scope,
        used=len(down),
        limit=limit,
        of=len(among),
        spent=len(down) > limit or calm_s > 0,
        why=why,
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
