"""Take a migration back: the evacuation that KubeVirt was told of, and the object in flight.

Without the first KubeVirt would make another migration within 20 s; deleting the second is how a
migration is cancelled (facts: KubeVirt 5.4, lab section 4).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from remediator.actions.live import REQUEST_TIMEOUT_S, read, write
from remediator.actions.world import Result, World, failed, succeeded
from remediator.engine.model import CancelMigration
from remediator.kube.errors import ConflictError, NotFoundError
from remediator.kube.objects import (
    MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
    VirtualMachineInstance,
    VirtualMachineInstanceMigration,
    virtual_machine_instance_action,
)

_READ_BACK_S: Final = 0.3
_MARGIN_S: Final = 1.0  # before the runner's deadline: time to say what is missing


async def cancel_migration(work: CancelMigration, world: World) -> Result:
    """Take it back and see that nothing of it is left; nothing there is a success, too."""
    told, note = await _take_evacuation_back(work, world)
    path = MIGRATIONS.object_path(work.migration, work.namespace) if work.migration else ""
    found = await _migration(path, work, world)
    if found is None:
        if told:
            return succeeded(f"KubeVirt does not move it off any more{note}", changed=True)
        return succeeded(f"nothing was left of its migration{note}", changed=False)
    # Gone, or another has its name by now: the read back tells.
    with contextlib.suppress(NotFoundError, ConflictError):
        await write(
            world,
            lambda: world.client.delete(path, uid=found.uid, timeout_s=REQUEST_TIMEOUT_S),
        )
    while True:
        if await _migration(path, work, world) is None:
            return succeeded(f"its migration is cancelled{note}", changed=True)
        if world.left_s() <= _MARGIN_S:
            return failed(f"deleted, but its migration does not end{note}", changed=True)
        await asyncio.sleep(_READ_BACK_S)


async def _take_evacuation_back(work: CancelMigration, world: World) -> tuple[bool, str]:
    """Tell KubeVirt to leave the VM where it is; return whether it was told, and what to add."""
    vmi = await read(
        world,
        VIRTUAL_MACHINE_INSTANCES.object_path(work.vmi, work.namespace),
        VirtualMachineInstance,
    )
    if vmi is None or vmi.uid != work.vmi_uid or vmi.status is None:
        return False, ""
    if vmi.status.evacuation_node_name != work.node:
        return False, ""
    path = virtual_machine_instance_action(work.namespace, work.vmi, "evacuate/cancel")
    body = {"evacuationNodeName": work.node}
    try:
        await write(
            world, lambda: world.client.replace(path, body, None, timeout_s=REQUEST_TIMEOUT_S)
        )
    except NotFoundError:
        return False, "; this KubeVirt cannot take an evacuation back, and will try again"
    return True, ""


async def _migration(
    path: str, work: CancelMigration, world: World
) -> VirtualMachineInstanceMigration | None:
    """Return the migration while it is in flight."""
    if not path:
        return None
    found = await read(world, path, VirtualMachineInstanceMigration)
    if found is None or found.ended or (work.migration_uid and found.uid != work.migration_uid):
        return None
    return found
