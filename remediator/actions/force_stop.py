"""Force-stop one VM of a proven dead node: delete its launcher pod, by UID, without grace.

The disappearance of the pod object is what makes virt-controller start the VM elsewhere (facts:
lab.md, section 1). On a node that is not really down this starts a second writer, so this is the
action with the strictest recheck. The VMI, its finalizers and its status are never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from remediator.actions import marks
from remediator.actions.live import (
    REQUEST_TIMEOUT_S,
    read,
    read_node,
    read_renew_time,
    write,
)
from remediator.actions.liveness import renewed_since
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import ForceStop
from remediator.kube.errors import ConflictError, NotFoundError
from remediator.kube.objects import PODS, Node, Pod

_READ_BACK_S: Final = 0.2
_MARGIN_S: Final = 1.0  # before the runner's deadline: time to say what is missing


async def force_stop(work: ForceStop, world: World) -> Result:
    """Delete the pod and see it gone; gone already is a success too. Raises SparedError."""
    node = await _recheck_node(work, world)
    if node is not None and not marks.has(node, marks.FENCED_TAINT):
        return failed("our taint is not on the node: the new pod could land on it again")
    path = PODS.object_path(work.pod, work.namespace)
    pod = await read(world, path, Pod)
    if pod is None or pod.uid != work.pod_uid:
        return succeeded("the launcher pod was gone already", changed=False)
    if pod.node_name != work.node:
        raise SparedError("the pod is not bound to this node")
    if pod.labels.get("kubevirt.io") != "virt-launcher":
        raise SparedError("the pod is no launcher pod")
    # Gone, or another pod has the name by now: the read back tells.
    with contextlib.suppress(NotFoundError, ConflictError):
        await write(
            world,
            lambda: world.client.delete(
                path, uid=work.pod_uid, grace_s=0, timeout_s=REQUEST_TIMEOUT_S
            ),
        )
    return await _see_it_gone(work, world, path)


async def _recheck_node(work: ForceStop, world: World) -> Node | None:
    """Return the node, None where its object is deleted; raise SparedError where it may live."""
    proof = work.proof
    if proof.node != work.node or not proof.boot_id:
        raise SparedError("the proof is about another node, or names no boot")
    node = await read_node(world, work.node)
    if node is not None:
        refusal = marks.why_not(node, work.node_uid)
        if refusal:
            raise SparedError(refusal)
        if node.boot_id and node.boot_id != proof.boot_id:
            # Its kubelet ends the old pods by itself, and may run a pod that was bound here before
            # our taint: deleting that without grace would start a second copy before it has ended.
            raise SparedError("the node is back in another boot: its kubelet ends the old pods")
    # Where the Node object is gone nothing can be scheduled there, but a kubelet that lives on
    # renews its Lease without one.
    fresh = await read_renew_time(world, work.node)
    anchor = marks.lease_anchor(node, proof.boot_id) if node is not None else None
    alive = renewed_since(world, work.node, fresh, proof, anchor=anchor)
    if alive:
        raise SparedError(f"the node is alive, the proof is void: {alive}")
    return node


async def _see_it_gone(work: ForceStop, world: World, path: str) -> Result:
    while True:
        pod = await read(world, path, Pod)
        if pod is None or pod.uid != work.pod_uid:
            return succeeded("the launcher pod is deleted", changed=True)
        if world.left_s() <= _MARGIN_S:
            return failed("deleted, but the pod object stays: a finalizer holds it", changed=True)
        await asyncio.sleep(_READ_BACK_S)
