"""Cordon a node under suspicion: our NoSchedule taint and ``spec.unschedulable``."""

from __future__ import annotations

from typing import Any

from remediator.actions import marks
from remediator.actions.claims import take_claim
from remediator.actions.live import CONFLICTS_MAX, patch_node, read_node
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Cordon
from remediator.kube.objects import Node


async def cordon(work: Cordon, world: World) -> Result:
    """Cordon and taint the node in one guarded patch. Raises SparedError."""
    for _ in range(CONFLICTS_MAX):
        node = await read_node(world, work.node)
        if node is None:
            raise SparedError("the node object is gone")
        refusal = marks.why_not(node, work.node_uid)
        if refusal:
            raise SparedError(refusal)
        claimed = await take_claim(world, node, work.policy)
        patch = _cordon_patch(node)
        if not patch:
            return succeeded("it was cordoned and tainted already", changed=False)
        after = await patch_node(world, node, patch)
        if after is None:
            continue  # somebody wrote the node in between: look again
        if _cordon_patch(after):
            return failed("the API server accepted the patch, but did not keep it", changed=True)
        return succeeded(f"cordoned and tainted{claimed}", changed=True)
    return failed(f"the node changed under each of {CONFLICTS_MAX} tries")


def _cordon_patch(node: Node) -> dict[str, Any]:
    """Return what is missing; empty when nothing is."""
    patch: dict[str, Any] = {}
    spec: dict[str, Any] = {}
    if not marks.has(node, marks.FENCED_TAINT):
        spec["taints"] = marks.wire((*node.taints, marks.FENCED_TAINT))
    if not node.unschedulable:
        spec["unschedulable"] = True
        patch["metadata"] = {"annotations": {marks.CORDONED: "true"}}
    if spec:
        patch["spec"] = spec
    return patch
