"""Restart a VM: KubeVirt's ``restart``, which stops this run and leaves a request for another.

It works for each run strategy that restarts at all (facts: KubeVirt 5.3, 5.4), and waits in
KubeVirt for as long as the old launcher pod exists: so it never makes a second copy, whatever
becomes of the host. Forced, the guest gets the shortest grace that KubeVirt gives, which is 1 s:
with 0 the pod's object would go before the guest does.
"""

from __future__ import annotations

import asyncio
from typing import Final

from remediator.actions.instances import put, read_instance, same_machine
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import RestartVm
from remediator.kube.errors import ServerError
from remediator.kube.objects import virtual_machine_action

_READ_BACK_S: Final = 0.3
_MARGIN_S: Final = 1.0  # before the runner's deadline: time to say what is missing
_NEVER: Final = frozenset({"Halted", "Once", "WaitAsReceiver"})


async def restart_vm(work: RestartVm, world: World) -> Result:
    """Ask for the restart, and see that KubeVirt took it up. Raises SparedError."""
    vm = await same_machine(world, work.namespace, work.vm, work.vm_uid)
    if vm.run_strategy in _NEVER:
        raise SparedError(f"its run strategy is {vm.run_strategy} by now: nobody restarts it")
    taken_up = await _taken_up(work, world)
    if taken_up:
        return succeeded(taken_up, changed=False)
    path = virtual_machine_action(work.namespace, work.vm, "restart")
    try:
        refused = await put(world, path, {"gracePeriodSeconds": 0} if work.forced else {})
    except ServerError as error:
        # "stop/start already underway" comes as an internal error; what is under way, we read.
        refused = error.message
    while True:
        taken_up = await _taken_up(work, world)
        if taken_up:
            return succeeded(taken_up, changed=not refused)
        if refused or world.left_s() <= _MARGIN_S:
            said = f"refused: {refused}" if refused else "accepted, and nothing came of it"
            return failed(f"the restart was {said}", changed=not refused)
        await asyncio.sleep(_READ_BACK_S)


async def _taken_up(work: RestartVm, world: World) -> str:
    """Say how the restart is under way; empty where it is not. Raises SparedError."""
    vmi = await read_instance(world, work.namespace, work.vm)
    if vmi is not None and vmi.uid != work.vmi_uid:
        return f"a new instance of it is {vmi.phase or 'new'}"
    vm = await same_machine(world, work.namespace, work.vm, work.vm_uid)
    starts = "Start" in vm.requests or vm.run_strategy == "Always"
    if vmi is None or vmi.deleting:
        if not starts:
            raise SparedError("somebody has stopped it meanwhile, and asks for no start")
        return "its instance is being stopped, and another follows"
    if vm.requests[:2] == ("Stop", "Start"):
        return "its restart is requested"
    return ""
