"""VMs and their instances, read fresh before and after something is asked of KubeVirt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remediator.actions import marks
from remediator.actions.live import REQUEST_TIMEOUT_S, read, write
from remediator.actions.world import SparedError, World
from remediator.kube.errors import ConflictError, NotFoundError
from remediator.kube.objects import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VirtualMachine,
    VirtualMachineInstance,
)


async def read_instance(world: World, namespace: str, name: str) -> VirtualMachineInstance | None:
    """GET a VMI; None where there is none. Raises ApiError, TransportError."""
    path = VIRTUAL_MACHINE_INSTANCES.object_path(name, namespace)
    return await read(world, path, VirtualMachineInstance)


async def same_instance(
    world: World, namespace: str, name: str, uid: str
) -> VirtualMachineInstance:
    """GET the VMI that was decided about. Raises SparedError where it is gone, or going."""
    vmi = await read_instance(world, namespace, name)
    if vmi is None or vmi.uid != uid:
        raise SparedError("its instance is gone, or was created anew")
    if vmi.deleting:
        raise SparedError("its instance is being stopped already")
    if marks.EXCLUDE_ANNOTATION in vmi.annotations:
        raise SparedError(f"annotation {marks.EXCLUDE_ANNOTATION} says hands off")
    return vmi


async def same_machine(world: World, namespace: str, name: str, uid: str) -> VirtualMachine:
    """GET the VirtualMachine that was decided about. Raises SparedError where it must be let be."""
    vm = await read(world, VIRTUAL_MACHINES.object_path(name, namespace), VirtualMachine)
    if vm is None or vm.uid != uid:
        raise SparedError("the VM is gone, or was created anew")
    if vm.deleting:
        raise SparedError("the VM is being deleted")
    if marks.EXCLUDE_ANNOTATION in vm.annotations:
        raise SparedError(f"annotation {marks.EXCLUDE_ANNOTATION} says hands off")
    return vm


async def put(world: World, path: str, body: Mapping[str, Any]) -> str:
    """PUT to a subresource; return "" where it was accepted, else why KubeVirt refused (409).

    Raises SparedError where there is no such VM any more; ApiError, TransportError.
    """
    try:
        await write(
            world, lambda: world.client.replace(path, dict(body), None, timeout_s=REQUEST_TIMEOUT_S)
        )
    except ConflictError as error:
        return error.message
    except NotFoundError as error:
        if error.reason != "NotFound":
            raise  # a proxy, or a KubeVirt without this subresource
        raise SparedError("it is gone, says KubeVirt") from error
    return ""
