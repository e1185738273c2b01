"""The Fence action: power a node off by its fence device, and prove that it is off.

A node that is alive again just before the order is spared: its Lease is looked at when the action
begins and once more between the BMC's answer and the order. Ready=True alone spares nobody: a dead
node counts as Ready for up to 50 s.
"""

from __future__ import annotations

from typing import Final

from remediator.actions import marks
from remediator.actions.fence.devices import OffFailed
from remediator.actions.live import read_node, read_renew_time
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Fence, Proof, ProofKind
from remediator.kube.objects import Node

# The kubelet renews every 10 s with 4 % jitter (leaseDurationSeconds 40 * 0.25): a renewal younger
# than this is a node that is on time.
ON_TIME_S: Final = 11.0
_MARGIN_S: Final = 1.0  # before the runner's deadline: time to say what is missing


async def fence(work: Fence, world: World) -> Result:
    """Force the node off and return the proof, after looking twice whether it lives after all.

    Raises SparedError, with a proof where the node turned out to have rebooted.
    """
    method = world.devices.method_for(work.node)
    if method is None:
        return failed("no fence device is configured for this node")
    if method != work.method:
        return failed(f"this node's fence device is now {method}, the decision says {work.method}")
    node, renew_time = await _look(work, world, None)

    async def last_look() -> None:
        await _look(work, world, renew_time)
        world.must_lead()

    off = await world.devices.power_off(
        work.node,
        node.system_uuid,
        deadline_s=max(0.1, world.left_s() - _MARGIN_S),
        last_look=last_look,
    )
    if isinstance(off, OffFailed):
        return failed(f"{off.source}: {off.detail}")
    proof = Proof(
        kind=ProofKind.POWER_OFF_VERIFIED,
        node=work.node,
        boot_id=work.boot_id,
        at=off.at,
        source=off.source,
        detail=off.detail,
    )
    return succeeded(off.detail, changed=off.ordered, proof=proof)


async def _look(
    work: Fence, world: World, renew_time_before: str | None
) -> tuple[Node, str | None]:
    """Read the node and its lease; raise SparedError where the ground for fencing is gone."""
    node = await read_node(world, work.node)
    if node is None:
        raise SparedError("the node object is gone")
    refusal = marks.why_not(node, work.node_uid)
    if refusal:
        raise SparedError(refusal)
    if not work.boot_id or not node.boot_id:
        raise SparedError("which boot to fence is not known")
    if node.boot_id != work.boot_id:
        proof = Proof(
            kind=ProofKind.REBOOTED,
            node=work.node,
            boot_id=work.boot_id,
            at=world.clock.now(),
            source="node status",
            detail=f"it runs boot {node.boot_id}",
        )
        raise SparedError("it rebooted by itself", proof=proof)
    renew_time = await read_renew_time(world, work.node)
    alive = _on_time(world, work.node, renew_time, renew_time_before)
    if alive:
        raise SparedError(f"the node is alive: {alive}")
    return node, renew_time


def _on_time(world: World, node: str, fresh: str | None, before: str | None) -> str:
    """Say in words that the node renewed its Lease within ``ON_TIME_S``; empty where it did not."""
    if fresh is None:
        return ""
    if before is not None and fresh != before:
        return "it renewed its lease while its fence device was asked"
    known = world.last_beat(node)
    if known is None:
        return ""
    renew_time, changed_at = known
    if fresh != renew_time:
        return "it renewed its lease just now"
    age_s = world.clock.now() - changed_at
    return f"it renewed its lease {age_s:.1f} s ago" if age_s < ON_TIME_S else ""
