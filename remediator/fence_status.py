"""What the leader writes into a FenceConfig's status: is it accepted, and do its devices answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from remediator.actions.fence.check_rows import CheckRow
from remediator.kube.fence_configs import FenceConfigObject, StatusCondition
from remediator.kube.metadata import condition_of, format_time

ACCEPTED: Final = "Accepted"
DEVICES_HEALTHY: Final = "DevicesHealthy"
_NAMED: Final = 5  # nodes in one message
_MESSAGE_MAX: Final = 32_000  # the API server's own limit is 32,768


def status_of(
    obj: FenceConfigObject,
    generation: int,
    faults: Sequence[str],
    rows: Sequence[CheckRow],
    now: float,
) -> dict[str, Any] | None:
    """Return the status to be written, None where it says the same already.

    ``generation`` is the one that was judged; the object may have another by now.
    """
    wanted = [
        _condition(ACCEPTED, *_accepted(faults), generation),
        _condition(DEVICES_HEALTHY, *_healthy(rows), generation),
    ]
    same = True
    for one in wanted:
        before = condition_of(obj.conditions, one["type"])
        flipped = before is None or before.status != one["status"]
        one["lastTransitionTime"] = (
            format_time(now) if before is None or flipped else before.last_transition_time
        )
        same = same and before is not None and _same(before, one)
    return None if same else {"observedGeneration": generation, "conditions": wanted}


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


def _accepted(faults: Sequence[str]) -> tuple[str, str, str]:
    if faults:
        return "False", "Faults", "\n".join(faults)
    return "True", "InForce", "it is in force"


def _healthy(rows: Sequence[CheckRow]) -> tuple[str, str, str]:
    if not rows:
        return "Unknown", "NoNode", "no node is fenced by it"
    asked = [row for row in rows if row.asked_at]
    nodes = {row.node for row in rows}
    faulty = [row for row in rows if row.fault]
    if faulty:
        broken = sorted({row.node for row in faulty})
        first = {node: next(row for row in faulty if row.node == node) for node in broken[:_NAMED]}
        named = "; ".join(f"{node}: {row.device}: {row.fault}" for node, row in first.items())
        more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        message = f"{len(broken)} of {len(nodes)} nodes have a faulty device: {named}{more}"
        return "False", "DevicesFaulty", message
    waiting = {row.node for row in rows if not row.asked_at}
    if waiting:
        message = f"{len(waiting)} of {len(nodes)} nodes have devices that were not asked yet"
        return "Unknown", "NotAskedYet" if not asked else "NotAllAskedYet", message
    return "True", "AllAnswer", f"the devices of all {len(nodes)} nodes answer as they should"
