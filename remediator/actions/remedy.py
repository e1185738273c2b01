"""Which action carries out which remedy of a VM."""

from __future__ import annotations

from typing import assert_never

from remediator.actions.kill_pod import kill_pod
from remediator.actions.restart import restart_vm
from remediator.actions.snapshot import snapshot
from remediator.actions.soft_reboot import soft_reboot
from remediator.actions.unpause import unpause
from remediator.actions.world import Result, World
from remediator.engine.model import (
    KillPod,
    RemedyWork,
    RestartVm,
    Snapshot,
    SoftReboot,
    Unpause,
)


async def remedy(work: RemedyWork, world: World) -> Result:
    """Carry out one remedy. Raises SparedError, ApiError, TransportError."""
    match work:
        case SoftReboot():
            return await soft_reboot(work, world)
        case RestartVm():
            return await restart_vm(work, world)
        case KillPod():
            return await kill_pod(work, world)
        case Unpause():
            return await unpause(work, world)
        case Snapshot():
            return await snapshot(work, world)
        case _:
            assert_never(work)
