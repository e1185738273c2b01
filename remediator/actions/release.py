"""Release the volumes of a node that is proven down: the out-of-service taint.

The taint makes the attach-detach controller detach at once instead of after 6 minutes. On a node
whose VMs still write it would give every disk a second writer (facts: lab.md, section 3), so it
needs a proof about the very boot that the node still shows, and no sign of life since.
"""

from __future__ import annotations

from remediator.actions import marks
from remediator.actions.live import CONFLICTS_MAX, patch_node, read_node, read_renew_time
from remediator.actions.liveness import renewed_since
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Release
from remediator.kube.objects import Node


async def release(work: Release, world: World) -> Result:
    """Add the out-of-service taint, and note that it is ours. Raises SparedError."""
    for _ in range(CONFLICTS_MAX):
        node, renew_time = await _recheck(work, world)
        if marks.has(node, marks.OUT_OF_SERVICE_TAINT):
            return succeeded("it was out of service already", changed=False)
        notes = {marks.OUT_OF_SERVICE: work.proof.boot_id, marks.LEASE_AT_RELEASE: renew_time}
        taints = marks.wire((*node.taints, marks.OUT_OF_SERVICE_TAINT))
        after = await patch_node(
            world, node, {"metadata": {"annotations": notes}, "spec": {"taints": taints}}
        )
        if after is None:
            continue  # somebody wrote the node in between: look again
        if not marks.has(after, marks.OUT_OF_SERVICE_TAINT):
            return failed("the API server accepted the taint, but did not keep it", changed=True)
        return succeeded("out of service: volumes may detach", changed=True)
    return failed(f"the node changed under each of {CONFLICTS_MAX} tries")


async def _recheck(work: Release, world: World) -> tuple[Node, str]:
    """Return the node and its Lease's renewTime ("" without one), or raise SparedError."""
    proof = work.proof
    if proof.node != work.node or not proof.boot_id:
        raise SparedError("the proof is about another node, or names no boot")
    node = await read_node(world, work.node)
    if node is None:
        raise SparedError("the node object is gone")
    refusal = marks.why_not(node, work.node_uid)
    if refusal:
        raise SparedError(refusal)
    if node.boot_id != proof.boot_id:
        raise SparedError("the node runs another boot than the proof is about")
    fresh = await read_renew_time(world, work.node)
    anchor = marks.lease_anchor(node, proof.boot_id)
    alive = renewed_since(world, work.node, fresh, proof, anchor=anchor)
    if alive:
        raise SparedError(f"the node is alive, the proof is void: {alive}")
    return node, fresh or ""
