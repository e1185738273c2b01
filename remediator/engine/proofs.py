"""Which proof is held, which is required, and when a proof is void."""

from __future__ import annotations

import enum

from remediator.engine.chain import Plan
from remediator.engine.context import Context
from remediator.engine.incidents import Incident
from remediator.engine.model import NodeFacts, Proof, ProofKind
from remediator.engine.state import EngineState

STRENGTH: tuple[ProofKind, ...] = tuple(ProofKind)  # strongest first, as the enumeration says

# Exact meaning and risk of each proof: docs/proof.md.


def accepted(proof: Proof, plan: Plan) -> bool:
    """Whether the plan's policy takes this kind of proof."""
    return proof.kind.value in plan.required_proof


def rebooted(node: NodeFacts, boot_id: str, now: float) -> Proof | None:
    """Return the proof that ``boot_id`` is over because the node runs another boot, if it does."""
    if not boot_id or not node.boot_id or node.boot_id == boot_id:
        return None
    return Proof(
        kind=ProofKind.REBOOTED,
        node=node.name,
        boot_id=boot_id,
        at=now,
        source="node status",
        detail=f"boot id is now {node.boot_id}",
    )


class Standing(enum.StrEnum):
    """Whether a proof still stands, given what has been seen since."""

    HOLDS = "holds"
    IN_DOUBT = "in doubt"  # the node renews its lease; which boot it runs is not known yet
    VOID = "void"  # it renews its lease and still shows the boot that was proven over


def held(state: EngineState) -> frozenset[tuple[str, str]]:
    """Return the (node, boot) pairs that are proven or said to be over, by the records so far."""
    incidents = {
        (incident.subject.name, proof.boot_id)
        for incident in state.incidents.values()
        for proof in (incident.proof, incident.confirmed)
        if proof is not None
    }
    residues = {
        (residue.node, residue.fenced_boot_id)
        for residue in state.residues.values()
        if residue.fenced_boot_id
    }
    return frozenset(incidents | residues)


def word(context: Context, incident: Incident | None, node: NodeFacts) -> Proof | None:
    """Return the word of a person that this node is off, unless it was heard or reached since.

    A word is about one boot, and is never taken up again once that boot was heard.
    """
    said = incident.confirmed if incident is not None else None
    if said is None or said.boot_id != node.boot_id:
        return None
    evidence, inherited = context.evidence, (node.name, said.boot_id) in context.inherited
    if evidence.beaten_since(node.name, _void_from(context, said)):
        return None
    given_at = context.leading_since if inherited else said.at
    return None if evidence.network.reached_after(node.name, given_at) else said


def _void_from(context: Context, proof: Proof) -> float:
    """Return the time after which a renewal that we see voids a proof.

    A renewal that was on its way while a device was asked is not life after death. A person's word
    is taken of a node that has been silent for longer than that, so nothing was on its way: what
    comes after it, or came just before and was late, is life.
    """
    if (proof.node, proof.boot_id) in context.inherited:
        return context.leading_since
    late_s = context.settings.detection.contradiction_after_s
    return proof.at + (-late_s if proof.kind is ProofKind.OPERATOR_CONFIRMED else late_s)


def standing(context: Context, node: NodeFacts | None, proof: Proof) -> Standing:
    """Return how a proof stands now.

    A lease renewed after the proof means that something runs there again: another boot (fine, and
    itself proof), or the same one (the proof was wrong). The node status with the new boot id may
    come a little after the first renewal, so there is a short doubt in between.

    A proof of an earlier leader carries the time of that daemon's clock, which may be off by
    anything. But every renewal that this leader saw happen is later than such a proof.
    """
    if node is None or (node.boot_id and node.boot_id != proof.boot_id):
        return Standing.HOLDS
    detection = context.settings.detection
    since = _void_from(context, proof)
    if not context.evidence.beaten_since(node.name, since):
        return Standing.HOLDS
    alive_since = max(since, context.evidence.leases.beats[node.name].back_at)
    waited = context.now - alive_since >= detection.boot_known_within_s
    return Standing.VOID if waited else Standing.IN_DOUBT
