"""What a policy's answer comes to on the ground of one incident, in a form that can be compared."""

from __future__ import annotations

from remediator.engine import fencing
from remediator.engine.inputs import Answered, Ground
from remediator.engine.model import Verdict
from remediator.engine.rules import DiskKind, Policy


def answered(policy: Policy | None, verdict: Verdict, ground: Ground) -> Answered:
    """Return what ``policy`` answers; None: no policy matched."""
    if policy is None:
        return Answered()
    required = fencing.taken_proof(policy, {DiskKind(kind) for kind in ground.disks})
    levels = fencing.levels_that_prove(ground.levels, required) if "fence" in policy.steps else ()
    return Answered(
        policy=policy.name,
        policy_hash=policy.content_hash,
        steps=policy.steps,
        for_s=policy.stands_for_s(verdict),
        required_proof=tuple(kind.value for kind in required),
        levels=tuple(level.index for level in levels),
        manual_starts=ground.manual if policy.start_manual else 0,
        enforce=policy.enforce,
        approval=policy.approval is not None,
    )
