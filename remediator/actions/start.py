"""Start a VM that its run strategy does not bring back by itself: KubeVirt's ``start``."""

from __future__ import annotations

import asyncio
from typing import Final

from remediator.actions.live import REQUEST_TIMEOUT_S, read, write
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import StartVm
from remediator.kube.errors import ConflictError
from remediator.kube.metadata import KubeObject, KubeStruct
from remediator.kube.objects import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VirtualMachine,
    VirtualMachineInstance,
    virtual_machine_action,
)

_READ_BACK_S: Final = 0.3
_MARGIN_S: Final = 1.0  # before the runner's deadline: time to say what is missing
_FINAL_PHASES: Final = frozenset({"Succeeded", "Failed"})


class _Request(KubeStruct, frozen=True):
    action: str = ""  # "Start" or "Stop"


class _Status(KubeStruct, frozen=True):
    state_change_requests: tuple[_Request, ...] | None = None


class _Requests(KubeObject, frozen=True):
    """A VirtualMachine, narrowed to what is asked of it."""

    status: _Status | None = None

    @property
    def start(self) -> bool:
        requests = (self.status.state_change_requests if self.status else None) or ()
        return any(request.action == "Start" for request in requests)


async def start_vm(work: StartVm, world: World) -> Result:
    """Ask for the start, and see that KubeVirt took it up.

    A 409 may mean that it runs, that a start is under way, or that KubeVirt restarts it by itself:
    which of them, the state read back tells. Raises SparedError.
    """
    vm = await read(world, VIRTUAL_MACHINES.object_path(work.vm, work.namespace), VirtualMachine)
    if vm is None or vm.uid != work.vm_uid:
        raise SparedError("the VM is gone, or was created anew")
    if vm.deleting:
        raise SparedError("the VM is being deleted")
    if vm.run_strategy == "Halted":
        # KubeVirt's start would set Always, against the wish of whoever stopped it.
        raise SparedError("the VM is Halted: somebody wants it stopped")
    while await _old_one_runs(work, world):
        if world.left_s() <= _MARGIN_S:
            return failed(f"KubeVirt has not noticed that its instance on {work.node} is over")
        await asyncio.sleep(_READ_BACK_S)
    taken_up = await _taken_up(work, world)
    if taken_up:
        return succeeded(taken_up, changed=False)
    path = virtual_machine_action(work.namespace, work.vm, "start")
    refused = ""
    try:
        await write(
            world, lambda: world.client.replace(path, {}, None, timeout_s=REQUEST_TIMEOUT_S)
        )
    except ConflictError as error:
        refused = error.message
    while True:
        taken_up = await _taken_up(work, world)
        if taken_up:
            return succeeded(taken_up, changed=not refused)
        if world.left_s() <= _MARGIN_S:
            said = f"refused ({refused})" if refused else "accepted"
            return failed(f"the start was {said}, and nothing came of it", changed=not refused)
        await asyncio.sleep(_READ_BACK_S)


async def _old_one_runs(work: StartVm, world: World) -> bool:
    """Whether its instance on the dead host still counts as running, though its pod is gone.

    KubeVirt notices that a moment later, and refuses a start until then.
    """
    path = VIRTUAL_MACHINE_INSTANCES.object_path(work.vm, work.namespace)
    vmi = await read(world, path, VirtualMachineInstance) if work.node else None
    return (
        vmi is not None
        and vmi.node_name == work.node
        and vmi.phase not in _FINAL_PHASES
        and not vmi.deleting
    )


async def _taken_up(work: StartVm, world: World) -> str:
    """Say how the VM is on its way up; empty when it is not."""
    path = VIRTUAL_MACHINE_INSTANCES.object_path(work.vm, work.namespace)
    vmi = await read(world, path, VirtualMachineInstance)
    if vmi is not None and vmi.phase not in _FINAL_PHASES and not vmi.deleting:
        return f"its instance is {vmi.phase or 'new'}"
    vm = await read(world, VIRTUAL_MACHINES.object_path(work.vm, work.namespace), _Requests)
    return "its start is requested" if vm is not None and vm.start else ""
