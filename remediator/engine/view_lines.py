"""Lines that all views share: who made them, how well that one sees, how a node stands."""

from __future__ import annotations

from remediator.engine.context import Context
from remediator.engine.incidents import Incident
from remediator.engine.model import IncidentState, NodeFacts, Verdict, node_subject
from remediator.engine.verdicts import Row
from remediator.engine.views import IncidentLine, LeaderLine, OwnLine

# Convicted, and past what evidence can change: the verdict is the incident's.
PROVEN = frozenset({IncidentState.FENCING, IncidentState.FENCED, IncidentState.RECOVERING})


def leader_line(context: Context, now: float) -> LeaderLine:
    """Return who makes the view."""
    return LeaderLine(
        identity=context.identity,
        epoch=context.epoch,
        since_s=round(max(0.0, now - context.leading_since), 3),
        mode="enforce" if context.enforce else "observe",
    )


def own_line(context: Context) -> OwnLine:
    """Return how far this daemon trusts its own eyes."""
    own = context.evidence.own_health
    return OwnLine(multiplier=own.multiplier, suspended=own.suspended, reasons=own.reasons)


def incident_line(incident: Incident | None, now: float) -> IncidentLine | None:
    """Return a node's open incident."""
    if incident is None:
        return None
    proof = incident.proof
    return IncidentLine(
        id=incident.id,
        state=incident.state.value,
        verdict=incident.verdict,
        row=incident.row,
        since_s=round(max(0.0, now - incident.verdict_at), 3),
        opened_s=round(max(0.0, now - incident.opened_at), 3),
        step=incident.next_step,
        proof="" if proof is None else f"{proof.kind}, from {proof.source}",
    )


def standing_verdict(
    context: Context, node: NodeFacts, row: Row, now: float
) -> tuple[Verdict, float | None]:
    """Return a node's verdict, and for how many seconds it has stood, if that is known.

    Once a fence is under way it is that of the incident, which evidence no longer turns.
    """
    incident = context.state.incident_on(node_subject(node.name))
    if incident is not None and (incident.state in PROVEN or incident.verdict is row.verdict):
        return incident.verdict, round(max(0.0, now - incident.verdict_at), 3)
    beat = context.evidence.leases.beats.get(node.name)
    if row.verdict is Verdict.HEALTHY and beat is not None and beat.back_at:
        return row.verdict, round(max(0.0, now - beat.back_at), 3)
    return row.verdict, None
