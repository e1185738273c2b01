"""Take back what we put on a node, once that is safe: the taints, and the cordon where it was ours.

A fenced node is whole again when it runs another boot, is Ready, and nothing of the old boot is
left on it: no launcher pod on its way out, none whose VM lives elsewhere by now, no volume still
being detached. Kubernetes never removes the out-of-service taint by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from remediator.actions import marks
from remediator.actions.fence.fence import target_of
from remediator.actions.live import CONFLICTS_MAX, patch_node, read_node
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Uncordon
from remediator.kube.objects import (
    LAUNCHER_PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VOLUME_ATTACHMENTS,
    Node,
    Pod,
    VolumeAttachment,
)

_LOOK_AGAIN_S: Final = 1.0
_LIST_S: Final = 5.0  # per page
_MARGIN_S: Final = (
    2.0  # before the runner's deadline: time for the patch, or to say what is missing
)
_FINAL_PHASES: Final = frozenset({"Succeeded", "Failed"})
_NAMED_MAX: Final = 3  # names in one detail line


async def uncordon(work: Uncordon, world: World) -> Result:
    """Remove our marks, after the old boot's leavings are gone where the node had been fenced."""
    conflicts = 0
    while conflicts < CONFLICTS_MAX:
        node = await read_node(world, work.node)
        if node is None or node.uid != work.node_uid:
            return succeeded("the node that we marked is gone, its marks with it", changed=False)
        patch = _uncordon_patch(node)
        if not patch and not work.fence_method:
            return succeeded("nothing of ours was on the node", changed=False)
        left = ""
        if work.fenced_boot_id:
            _require_back(node, work.fenced_boot_id)
            left = await _left_over(work.node, world)
        if not left and work.fence_method:
            world.must_lead()
            left = await world.devices.take_back(work.fence_method, target_of(node))
        if left:
            if world.left_s() <= _MARGIN_S:
                return failed(f"not yet: {left}")
            await asyncio.sleep(_LOOK_AGAIN_S)
            continue
        if not patch:
            return succeeded("nothing of ours was on the node", changed=False)
        after = await patch_node(world, node, patch)
        if after is None:
            conflicts += 1
            continue
        if _uncordon_patch(after):
            return failed("the API server accepted the patch, but kept our marks", changed=True)
        return succeeded("our marks are taken back", changed=True)
    return failed(f"the node changed under each of {CONFLICTS_MAX} tries")


def _require_back(node: Node, fenced_boot_id: str) -> None:
    if not node.boot_id or node.boot_id == fenced_boot_id:
        raise SparedError("the node still reports the boot that was fenced")
    if not node.ready:
        raise SparedError("the node is not Ready yet")


async def _left_over(node: str, world: World) -> str:
    """Say what of the old boot is still there; empty when nothing is."""
    pods = await world.client.list_all(
        LAUNCHER_PODS, query=[("fieldSelector", f"spec.nodeName={node}")], timeout_s=_LIST_S
    )
    pods = [pod for pod in pods if pod.node_name == node]
    dying = [pod for pod in pods if pod.deleting]
    if dying:
        return f"launcher pods are still being deleted: {_names(dying)}"
    running = [pod for pod in pods if pod.phase not in _FINAL_PHASES]
    if running:
        # virt-controller labels a VMI with the node that it runs on, and a pod with its VMI's uid.
        vmis = await world.client.list_all(
            VIRTUAL_MACHINE_INSTANCES,
            query=[("labelSelector", f"kubevirt.io/nodeName={node}")],
            timeout_s=_LIST_S,
        )
        here = {vmi.uid for vmi in vmis}
        old = [pod for pod in running if pod.vmi_uid not in here]
        if old:
            return f"launcher pods of VMs that are not here any more: {_names(old)}"
    attachments = await world.client.list_all(VOLUME_ATTACHMENTS, timeout_s=_LIST_S)
    detaching = [one for one in attachments if one.node_name == node and one.deleting]
    return f"volumes are still being detached: {_names(detaching)}" if detaching else ""


def _names(found: Sequence[Pod | VolumeAttachment]) -> str:
    names = sorted(one.name for one in found)
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more


def _uncordon_patch(node: Node) -> dict[str, Any]:
    """Return the patch that removes our marks and only ours; empty where there are none."""
    taints = marks.without(node.taints, marks.FENCED_TAINT)
    if marks.OUT_OF_SERVICE in node.annotations:  # else it is somebody else's taint
        taints = marks.without(taints, marks.OUT_OF_SERVICE_TAINT)
    spec: dict[str, Any] = {}
    if taints != node.taints:
        spec["taints"] = marks.wire(taints)
    if node.annotations.get(marks.CORDONED) == "true" and node.unschedulable:
        spec["unschedulable"] = False
    ours = (marks.CORDONED, marks.OUT_OF_SERVICE, marks.LEASE_AT_RELEASE)
    notes = dict.fromkeys(key for key in ours if key in node.annotations)
    patch: dict[str, Any] = {}
    if spec:
        patch["spec"] = spec
    if notes:
        patch["metadata"] = {"annotations": notes}
    return patch
