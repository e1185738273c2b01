"""Our own trouble, looked at and put on record: nothing is convicted while it is too great."""

from __future__ import annotations

from remediator.engine.chain import DecisionKind, EvidenceRow
from remediator.engine.context import Context
from remediator.engine.model import Subject


def look(context: Context) -> None:
    """Bring the local health multiplier up to date; record when convictions stop and go on."""
    own, evidence = context.evidence.own_health, context.evidence
    nodes = context.inventory.nodes
    share = context.settings.budgets.max_unhealthy_cluster_share
    own.many_overdue(evidence.overdue_lately(context.now), len(nodes), share)
    own.look(context.now)
    if own.suspended is context.suspension_told or not context.identity:
        return
    context.suspension_told = own.suspended
    if own.suspended:
        why = f"nothing is convicted until this is over: {'; '.join(own.reasons)}"
        stage = "suspended"
    else:
        why = "nothing is wrong with this daemon any more: convictions go on"
        stage = "fine"
    row = EvidenceRow(
        plane="own health",
        value=stage,
        since_s=0.0,
        source="this daemon",
        detail=f"limits are {own.multiplier} times as long",
    )
    decision = context.record(
        DecisionKind.OWN_HEALTH,
        Subject("daemon", context.identity),
        why,
        stage=stage,
        evidence=(row,),
    )
    context.notice(decision)
