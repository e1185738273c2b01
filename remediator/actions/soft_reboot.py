"""Ask a guest to reboot itself: KubeVirt's ``softreboot``, by its agent or its power button.

Whether the guest obeys cannot be read back: its agent and its probes will tell. A repeat after a
crash may reboot it once more, which its boot would have to bear anyway; where its agent answers
again by then, it is spared.
"""

from __future__ import annotations

from remediator.actions.instances import put, same_instance
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import SoftReboot
from remediator.kube.objects import virtual_machine_instance_action


async def soft_reboot(work: SoftReboot, world: World) -> Result:
    """Ask for the reboot; a success says that KubeVirt took it up. Raises SparedError."""
    vmi = await same_instance(world, work.namespace, work.vmi, work.vmi_uid)
    if vmi.phase != "Running":
        raise SparedError(f"its instance is {vmi.phase or 'new'}, not Running")
    if vmi.node_name != work.node or vmi.migrating_to:
        raise SparedError("it is migrating, or has migrated")
    if vmi.paused:
        raise SparedError(f"it is paused: {vmi.paused}")
    if work.agent_lost and vmi.agent_connected:
        raise SparedError("its guest agent answers again")
    path = virtual_machine_instance_action(work.namespace, work.vmi, "softreboot")
    refused = await put(world, path, {})
    if refused:
        return failed(f"refused: {refused}")
    return succeeded("KubeVirt has asked the guest to reboot", changed=True)
