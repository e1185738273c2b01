"""What the leader writes into a RemediationPolicy's status: is it in force, and when it matched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from remediator.kube.fence_configs import StatusCondition
from remediator.kube.metadata import condition_of, format_time
from remediator.kube.remediation_policies import PolicyObject

ACCEPTED: Final = "Accepted"
SOUND: Final = "Sound"  # nothing odd was found about it
_MESSAGE_MAX: Final = 32_000  # the API server's own limit is 32,768


def status_of(
    obj: PolicyObject,
    generation: int,
    *,
    faults: Sequence[str],
    kept: bool,
    warnings: Sequence[str],
    matched_at: float | None,
    now: float,
) -> dict[str, Any] | None:
    """Return the status to be written, None where it says the same already.

    ``kept``: an earlier good writing of it stays in force. ``generation`` is the one that was
    judged; the object may have another by now.
    """
    wanted = [
        _condition(ACCEPTED, *_accepted(faults, kept=kept), generation),
        _condition(SOUND, *_sound(warnings), generation),
    ]
    matched = "" if matched_at is None else format_time(matched_at)
    same = matched == (obj.status.last_matched_time if obj.status is not None else "")
    for one in wanted:
        before = condition_of(obj.conditions, one["type"])
        flipped = before is None or before.status != one["status"]
        one["lastTransitionTime"] = (
            format_time(now) if before is None or flipped else before.last_transition_time
        )
        same = same and before is not None and _same(before, one)
    if same:
        return None
    status: dict[str, Any] = {"observedGeneration": generation, "conditions": wanted}
    return status | ({"lastMatchedTime": matched} if matched else {})


def _same(before: StatusCondition, now: dict[str, Any]) -> bool:
    return (before.status, before.reason, before.message, before.observed_generation) == (
        now["status"],
        now["reason"],
        now["message"],
        now["observedGeneration"],
    )


def _condition(
    kind: str, status: str, reason: str, message: str, generation: int
) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:_MESSAGE_MAX],
        "observedGeneration": generation,
    }


def _accepted(faults: Sequence[str], *, kept: bool) -> tuple[str, str, str]:
    if not faults:
        return "True", "InForce", "it is in force"
    still = "an earlier writing of it stays in force" if kept else "nothing of it is in force"
    return "False", "KeptLastGood" if kept else "Faults", "\n".join([*faults, still])


def _sound(warnings: Sequence[str]) -> tuple[str, str, str]:
    if warnings:
        return "False", "Warnings", "\n".join(warnings)
    return "True", "NothingOdd", "nothing odd was found"
