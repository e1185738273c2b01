"""Let a guest go on that KubeVirt paused by itself: KubeVirt's ``unpause``."""

from __future__ import annotations

import asyncio
from typing import Final

from remediator.actions.instances import put, read_instance, same_instance
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Unpause
from remediator.kube.objects import virtual_machine_instance_action

_READ_BACK_S: Final = 0.3
_MARGIN_S: Final = 1.0  # before the runner's deadline: time to say what is missing
# Reasons of the Paused condition that somebody's wish stands behind: PausedByUser, …ByMigration….
_WISHED: Final = "PausedBy"


async def unpause(work: Unpause, world: World) -> Result:
    """Ask for it, and see the condition go. Raises SparedError.

    A disk that still fails stops the guest again within moments; whether it runs on, the next
    seconds tell.
    """
    vmi = await same_instance(world, work.namespace, work.vmi, work.vmi_uid)
    if vmi.phase != "Running":
        raise SparedError(f"its instance is {vmi.phase or 'new'}, not Running")
    if not vmi.paused:
        return succeeded("it is not paused any more", changed=False)
    if vmi.paused.startswith(_WISHED):
        raise SparedError(f"somebody paused it: {vmi.paused}")
    path = virtual_machine_instance_action(work.namespace, work.vmi, "unpause")
    refused = await put(world, path, {})
    while True:
        now = await read_instance(world, work.namespace, work.vmi)
        if now is None or now.uid != work.vmi_uid:
            raise SparedError("its instance ended meanwhile")
        if not now.paused:
            return succeeded("the guest goes on", changed=not refused)
        if world.left_s() <= _MARGIN_S:
            said = f"refused ({refused})" if refused else "accepted"
            return failed(
                f"the order to go on was {said}, and it is paused still: {now.paused}",
                changed=not refused,
            )
        await asyncio.sleep(_READ_BACK_S)
