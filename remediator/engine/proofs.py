"""Which proof is held, which is required, and when a proof is void."""

from __future__ import annotations

import enum

from remediator.engine.chain import Plan
from remediator.engine.evidence import Evidence
from remediator.engine.model import NodeFacts, Proof, ProofKind
from remediator.engine.settings import DetectionSettings

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


def standing(
    proof_at: float,
    boot_id: str,
    node: NodeFacts | None,
    evidence: Evidence,
    settings: DetectionSettings,
    now: float,
) -> Standing:
    """Return how a proof taken at ``proof_at`` about ``boot_id`` stands at ``now``.

    A lease renewed after the proof means that something runs there again: another boot (fine, and
    itself proof), or the same one (the proof was wrong). The node status with the new boot id may
    come a little after the first renewal, so there is a short doubt in between.
    """
    if node is None or (node.boot_id and node.boot_id != boot_id):
        return Standing.HOLDS
    # A renewal that was in flight while the device was being asked is not life after death.
    if not evidence.beaten_since(node.name, proof_at + settings.contradiction_after_s):
        return Standing.HOLDS
    alive_since = max(proof_at, evidence.leases.beats[node.name].back_at)
    waited = now - alive_since >= settings.boot_known_within_s
    return Standing.VOID if waited else Standing.IN_DOUBT
