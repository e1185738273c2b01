"""Have the kubelet of a living host end a launcher pod: deleted by UID, always with grace.

With a grace of 0 the API server would forget the pod at once, and KubeVirt would start another copy
while the old one may still write. So the host must answer now: its kubelet, that renews its lease,
is the one who ends the containers, and the pod's object goes when they are gone.
"""

from __future__ import annotations

import contextlib
from typing import Final

from remediator.actions import marks
from remediator.actions.live import REQUEST_TIMEOUT_S, read, read_node, read_renew_time, write
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import KillPod
from remediator.kube.errors import ConflictError, NotFoundError
from remediator.kube.objects import PODS, Pod

# Two renewals of its lease: a kubelet that was not heard for longer may not be there to end it.
_ANSWERS_WITHIN_S: Final = 20.0


async def kill_pod(work: KillPod, world: World) -> Result:
    """Ask for the pod's end; a success says that the API server took it. Raises SparedError."""
    if work.grace_s is not None and work.grace_s < 1:
        raise SparedError("never without grace: the kubelet must end it, not we")
    path = PODS.object_path(work.pod, work.namespace)
    pod = await read(world, path, Pod)
    if pod is None or pod.uid != work.pod_uid:
        return succeeded("the launcher pod is gone already", changed=False)
    if pod.labels.get("kubevirt.io") != "virt-launcher":
        raise SparedError("the pod is no launcher pod")
    if pod.node_name != work.node:
        raise SparedError("the pod is bound to another node by now")
    if work.node:
        await _must_answer(work.node, world)
    # Gone, or another pod has the name by now: the read back tells.
    with contextlib.suppress(NotFoundError, ConflictError):
        await write(
            world,
            lambda: world.client.delete(
                path, uid=work.pod_uid, grace_s=work.grace_s, timeout_s=REQUEST_TIMEOUT_S
            ),
        )
    pod = await read(world, path, Pod)
    if pod is None or pod.uid != work.pod_uid:
        return succeeded("the launcher pod is gone", changed=True)
    if not pod.deleting:
        return failed("its deletion was accepted, and it is not being deleted", changed=True)
    grace = "its own grace" if work.grace_s is None else f"{work.grace_s} s of grace"
    return succeeded(f"the kubelet is to end it, with {grace}", changed=True)


async def _must_answer(name: str, world: World) -> None:
    """Raise SparedError unless the kubelet of this node answers now."""
    node = await read_node(world, name)
    if node is None:
        raise SparedError("the Node object is gone: whether the host lives is not known")
    if marks.has(node, marks.FENCED_TAINT) or marks.OUT_OF_SERVICE in node.annotations:
        raise SparedError("the node is being fenced, or was: its own incident goes on with it")
    refusal = marks.why_not(node, node.uid)
    if refusal:
        raise SparedError(refusal)
    fresh, known = await read_renew_time(world, name), world.last_beat(name)
    if fresh is None or known is None:
        raise SparedError("nothing is known of the node's lease")
    renew_time, changed_at = known
    silent_s = world.clock.now() - changed_at
    if fresh == renew_time and silent_s > _ANSWERS_WITHIN_S:
        raise SparedError("the node does not answer: nobody would end the pod")
