"""Keep the disks of a VM as they are: a VirtualMachineSnapshot, followed until it is ready.

Its name is settled before it is made and tells whose it is, so that a repeat after a crash finds
its own. It stays when it has been made; nobody here deletes one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from remediator.actions.instances import read_instance, same_machine
from remediator.actions.live import REQUEST_TIMEOUT_S, read, write
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Snapshot
from remediator.kube.errors import AlreadyExistsError
from remediator.kube.machines import VirtualMachineStorage
from remediator.kube.objects import VIRTUAL_MACHINES
from remediator.kube.snapshots import SNAPSHOTS, VirtualMachineSnapshot

_READ_BACK_S: Final = 2.0
_MARGIN_S: Final = 2.0  # before the runner's deadline: time to say what is missing
# Two renewals of its lease: a host that is silent for longer has an incident of its own.
_ANSWERS_WITHIN_S: Final = 20.0
INCIDENT_LABEL: Final = "remediator.io/incident"


async def snapshot(work: Snapshot, world: World) -> Result:
    """Make it and see it ready to use; one of ours that is there already counts.

    A storage that cannot make one is no failure to be tried again: SparedError says so.
    """
    await same_machine(world, work.namespace, work.vm, work.vm_uid)
    path = SNAPSHOTS.object_path(work.name, work.namespace)
    found = await read(world, path, VirtualMachineSnapshot)
    changed = found is None
    if found is None:
        await _must_be_possible(work, world)
        try:
            await write(
                world,
                lambda: world.client.create(
                    SNAPSHOTS.collection(work.namespace),
                    _body(work, world.left_s()),
                    None,
                    timeout_s=REQUEST_TIMEOUT_S,
                ),
            )
        except AlreadyExistsError:
            changed = False  # our own request, whose answer was lost
    return await _follow(work, world, path, changed=changed)


async def _must_be_possible(work: Snapshot, world: World) -> None:
    """Raise SparedError where KubeVirt says that a disk of it supports no snapshots."""
    path = VIRTUAL_MACHINES.object_path(work.vm, work.namespace)
    vm = await read(world, path, VirtualMachineStorage)
    if vm is None:
        raise SparedError("the VM is gone")
    against = [f"{each.name} ({each.reason})" for each in vm.unkept]
    if against:
        raise SparedError(f"its storage makes no snapshots of {', '.join(against)}")


def _body(work: Snapshot, left_s: float) -> dict[str, Any]:
    return {
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineSnapshot",
        "metadata": {
            "name": work.name,
            "namespace": work.namespace,
            "labels": {INCIDENT_LABEL: work.name.removeprefix("remediator-")},
        },
        "spec": {
            "source": {
                "apiGroup": "kubevirt.io",
                "kind": "VirtualMachine",
                "name": work.vm,
            },
            # KubeVirt gives it up by itself when nobody follows it any more.
            "failureDeadline": f"{max(1, int(left_s))}s",
        },
    }


async def _follow(work: Snapshot, world: World, path: str, *, changed: bool) -> Result:
    while True:
        found = await read(world, path, VirtualMachineSnapshot)
        if found is None:
            return failed(f"snapshot {work.name} was deleted", changed=changed)
        if found.source != work.vm:
            return failed(f"{work.name} is a snapshot of {found.source}, not of this VM")
        if found.ready:
            return succeeded(f"snapshot {work.name} is ready to use", changed=changed)
        if found.phase == "Failed":
            return failed(f"snapshot {work.name} failed: {found.error}", changed=changed)
        if world.left_s() <= _MARGIN_S:
            said = f"; {found.error}" if found.error else ""
            why = f"snapshot {work.name} is not ready in time: {found.phase or 'new'}{said}"
            return failed(why, changed=changed)
        await _host_must_answer(work, world)
        await asyncio.sleep(_READ_BACK_S)


async def _host_must_answer(work: Snapshot, world: World) -> None:
    """Raise SparedError where the host fell silent: its own incident must not wait for this."""
    vmi = await read_instance(world, work.namespace, work.vm)
    node = vmi.node_name if vmi is not None else ""
    beat = world.last_beat(node) if node else None
    if beat is not None and beat[1] and world.clock.now() - beat[1] > _ANSWERS_WITHIN_S:
        raise SparedError(f"its host {node} does not answer any more")
