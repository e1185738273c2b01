"""Switch a fenced host on again by the configuration that took it down."""

from __future__ import annotations

from remediator.actions.fence.driver import Order
from remediator.actions.fence.fence import target_of
from remediator.actions.live import read_node
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import PowerOn


async def power_on(work: PowerOn, world: World) -> Result:
    """Ask every device of the configuration that can, and read back. Raises SparedError."""
    node = await read_node(world, work.node)
    if node is None or node.uid != work.node_uid:
        raise SparedError("the node object is gone")
    if node.boot_id != work.fenced_boot_id:
        raise SparedError("the node is back already")
    config = world.devices.config_for(work.node, node.labels)
    if config is None or config.name != work.method:
        return failed(f"the fence configuration {work.method} is not this node's any more")

    async def last_look() -> None:
        world.must_lead()

    order = Order(
        action_id=world.action_id, deadline_at=world.deadline_at - 1.0, last_look=last_look
    )
    wrong = await world.devices.bring_up(config, target_of(node), order)
    return failed(wrong) if wrong else succeeded("the host is switched on", changed=True)
