"""The Fence action: power a node off by its fence device, and prove that it is off.

A node that is alive again just before the order is spared: its Lease is looked at when the action
begins and once more between the BMC's answer and the order. Ready=True alone spares nobody: a dead
node counts as Ready for up to 50 s.
"""

from __future__ import annotations

from typing import Final

from remediator.actions import marks
from remediator.actions.claims import take_claim
from remediator.actions.fence.driver import NotDown, Order, Target
from remediator.actions.live import read_node, read_renew_time
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Fence, Proof, ProofKind, Reading
from remediator.kube.objects import Node

# The kubelet renews every 10 s with 4 % jitter (leaseDurationSeconds 40 * 0.25): a renewal younger
# than this is a node that is on time.
ON_TIME_S: Final = 11.0
CONTROL_PLANE_LABELS: Final = (
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
)
_MARGIN_S: Final = 1.0  # before the runner's deadline: time to say what is missing


async def fence(work: Fence, world: World) -> Result:
    """Take the node down and return the proof, after looking twice whether it lives after all.

    Raises SparedError, with a proof where the node turned out to have rebooted.
    """
    node, renew_time = await _look(work, world, None)
    config = world.devices.config_for(work.node, node.labels)
    if config is None:
        return failed("no fence device is configured for this node")
    if config.name != work.method or work.level >= len(config.spec.levels):
        wanted = f"{work.method}, level {work.level + 1}"
        return failed(f"this node's fence configuration is now {config.name}, decided was {wanted}")

    await take_claim(world, node, work.policy)
    await _still_off(work, world, node)

    async def last_look() -> None:
        await _look(work, world, renew_time)
        world.must_lead()

    order = Order(
        action_id=world.action_id,
        deadline_at=world.clock.now() + max(0.1, world.left_s() - _MARGIN_S),
        last_look=last_look,
    )
    down = await world.devices.take_down(config, work.level, target_of(node), order)
    if isinstance(down, NotDown):
        return failed(f"{down.source}: {down.detail}")
    proof = Proof(
        kind=world.devices.proof(config, work.level),
        node=work.node,
        boot_id=work.boot_id,
        at=down.at,
        source=down.source,
        detail=down.detail,
    )
    return succeeded(down.detail, changed=down.ordered, proof=proof)


def target_of(node: Node) -> Target:
    """Return what a fence method has to know of a node."""
    openshift = node.annotations.get("machine.openshift.io/machine", "")
    machine = node.annotations.get("cluster.x-k8s.io/machine", "")
    namespace = node.annotations.get("cluster.x-k8s.io/cluster-namespace", "")
    place = f"{namespace}/{machine}" if machine else ""
    return Target(
        node=node.name,
        uid=node.uid,
        boot_id=node.boot_id,
        system_uuid=node.system_uuid,
        addresses=tuple(each.address for each in node.addresses if each.type == "InternalIP"),
        machine=openshift or place,
        machine_group="machine.openshift.io" if openshift else "cluster.x-k8s.io" * bool(machine),
        control_plane=any(key in node.labels for key in CONTROL_PLANE_LABELS),
        provider_id=(node.spec.provider_id if node.spec is not None else None) or "",
    )


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
    alive = _on_time(world, work, renew_time, renew_time_before)
    if alive and not work.forced:
        raise SparedError(f"the node is alive: {alive}")
    return node, renew_time


async def _still_off(work: Fence, world: World, node: Node) -> None:
    """Raise SparedError where only "off" stands against a node, and its device takes that back.

    A BMC that restarts says off for a moment, perhaps while no probe of its host gets through.
    """
    known = world.last_beat(work.node)
    young = known is not None and world.clock.now() - known[1] < ON_TIME_S
    if work.forced or not work.off_since or not young:
        return
    power = await world.devices.power_state(target_of(node), node.labels)
    if power.reading is Reading.UP:
        raise SparedError(f"its power is on after all, says {power.source}: {power.detail}")


def _on_time(world: World, work: Fence, fresh: str | None, before: str | None) -> str:
    """Say in words that the node renewed its Lease within ``ON_TIME_S``; empty where it did not.

    A renewal from before the fence device said off is none: the host was on until then.
    """
    if fresh is None:
        return ""
    if before is not None and fresh != before:
        return "it renewed its lease while its fence device was asked"
    known = world.last_beat(work.node)
    if known is None:
        return ""
    renew_time, changed_at = known
    if fresh != renew_time:
        return "it renewed its lease just now"
    if changed_at <= work.off_since:
        return ""
    age_s = world.clock.now() - changed_at
    return f"it renewed its lease {age_s:.1f} s ago" if age_s < ON_TIME_S else ""
