"""Fence at the storage: csi-addons' NetworkFence for the node's addresses.

The controller works on each change of the specification and writes ``status.result`` of its last
operation, so a result alone may be an older one's: its message tells which operation it was. And
deleting the object does not unfence (csi-addons networkfence_controller.go): it is set to Unfenced
first, and deleted when that has succeeded.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any, Final

from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.objects import (
    BOOT_ANNOTATION,
    POLL_S,
    Kind,
    Objects,
    ObjectsError,
    Tree,
    annotation,
    is_ours,
    marks,
)
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import NetworkFence
from remediator.kube.errors import ConflictError
from remediator.power import PowerReading

API: Final = "csiaddons.openshift.io/v1alpha1"
# csi-addons api/csiaddons/v1alpha1/networkfence_types.go
FENCED_MESSAGE: Final = "fencing operation successful"
UNFENCED_MESSAGE: Final = "unfencing operation successful"
# The controller gives each request to the driver 3 minutes (its flag --reclaim-space-timeout's
# kin); a blocklist entry in Ceph takes a second or two.
DEFAULT_TIMEOUT_S: Final = 60.0


class NetworkFenceDriver:
    """Blocks a node's addresses at the storage."""

    proof = ProofKind.STORAGE_FENCED
    tells_power = False
    leaves_objects = True

    def __init__(self, settings: NetworkFence, objects: Objects) -> None:
        self._settings = settings
        self._objects = objects

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        return self._settings.name

    @property
    def timeout_s(self) -> float:
        """How long the storage may need."""
        return self._settings.timeout_s or DEFAULT_TIMEOUT_S

    def source(self, node: str) -> str:
        """Name the object and what it speaks to."""
        by = self._settings.class_name or self._settings.driver
        return f"NetworkFence {_object_name(node)} ({by})"

    async def check(self, target: Target) -> Checked:
        """See that the kind is there and which addresses would be fenced."""
        source = self.source(target.node)
        try:
            await self._kind()
            cidrs = await self._cidrs(target)
        except ObjectsError as error:
            power = PowerReading(reading=Reading.UNKNOWN, source=source, detail=str(error))
            return Checked(power=power, fault=str(error))
        said = f"would fence {', '.join(cidrs)}" if cidrs else "no address to fence is known"
        power = PowerReading(reading=Reading.UNKNOWN, source=source, detail=said)
        return Checked(power=power, fault="" if cidrs else said)

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """Create the fence and wait until the storage has it."""
        source = self.source(target.node)
        try:
            kind = await self._kind()
            tree = await self._objects.read(kind, _object_name(target.node))
            if tree is not None and not is_ours(tree):
                return NotDown(source=source, detail="it is somebody else's: left alone")
            cidrs = await self._cidrs(target)
            if not cidrs:
                return NotDown(source=source, detail="no address of the node is known")
            if tree is not None and not _stands(tree, target, cidrs):
                left = await self._take_back(kind, tree, order.deadline_at)
                if left:
                    return NotDown(source=source, detail=left)
                tree = None
            created = tree is None
            if tree is None:
                await order.last_look()
                tree = await self._objects.create(kind, self._tree(target, order, cidrs))
            return await self._follow(kind, tree, order, source, created=created)
        except ConflictError as error:
            return NotDown(source=source, detail=f"somebody else took its name meanwhile: {error}")
        except ObjectsError as error:
            return NotDown(source=source, detail=str(error))

    async def bring_up(self, target: Target, order: Order) -> str:
        """Nothing to do: the host was never switched off."""
        del target, order
        return ""

    async def take_back(self, target: Target) -> str:
        """Unfence, and delete the object once the storage has done so."""
        try:
            kind = await self._kind()
            tree = await self._objects.read(kind, _object_name(target.node))
            if tree is None or not is_ours(tree):
                return ""
            return await self._take_back(kind, tree, self._objects.clock.now() + POLL_S * 5)
        except ObjectsError as error:
            return str(error)

    async def close(self) -> None:
        """Nothing is held open."""

    # --- steps ------------------------------------------------------------------------------------

    async def _kind(self) -> Kind:
        return await self._objects.kind(API, "NetworkFence")

    async def _cidrs(self, target: Target) -> tuple[str, ...]:
        """Return what is fenced: as configured, as the driver says, or the node's addresses."""
        if self._settings.cidrs:
            return self._settings.cidrs
        told = await self._told_by_driver(target.node)
        return told or tuple(_host_cidr(address) for address in target.addresses)

    async def _told_by_driver(self, node: str) -> tuple[str, ...]:
        """Return the addresses that the CSI driver itself says this node's client has."""
        if not self._settings.class_name:
            return ()
        try:
            kind = await self._objects.kind(API, "CSIAddonsNode")
            found = await self._objects.all_of(kind)
        except ObjectsError:
            return ()
        cidrs: list[str] = []
        for tree in found:
            spec, status = tree.get("spec") or {}, tree.get("status") or {}
            if (spec.get("driver") or {}).get("nodeID") != node:
                continue
            for client in status.get("networkFenceClientStatus") or ():
                if client.get("networkFenceClassName") == self._settings.class_name:
                    for detail in client.get("ClientDetails") or ():
                        cidrs += detail.get("cidrs") or ()
        return tuple(dict.fromkeys(cidrs))

    def _tree(self, target: Target, order: Order, cidrs: tuple[str, ...]) -> Tree:
        settings = self._settings
        spec: dict[str, Any] = {"fenceState": "Fenced", "cidrs": list(cidrs)}
        if settings.class_name:
            spec["networkFenceClassName"] = settings.class_name
        else:
            spec["driver"] = settings.driver
            if settings.secret is not None:
                secret = settings.secret
                spec["secret"] = {"name": secret.name, "namespace": secret.namespace}
            if settings.parameters:
                spec["parameters"] = dict(settings.parameters)
        metadata = marks(target.node, target.boot_id, order.action_id)
        metadata["name"] = _object_name(target.node)
        return {"apiVersion": API, "kind": "NetworkFence", "metadata": metadata, "spec": spec}

    async def _follow(
        self, kind: Kind, tree: Tree, order: Order, source: str, *, created: bool
    ) -> Down | NotDown:
        uid, clock = tree["metadata"]["uid"], self._objects.clock
        last = "the storage has said nothing"
        while True:
            try:
                tree = await self._objects.read(kind, tree["metadata"]["name"]) or {}
            except ObjectsError as error:
                last = str(error)
            else:
                if not tree or tree["metadata"]["uid"] != uid or _state(tree) != "Fenced":
                    return NotDown(source=source, detail="it was changed or deleted meanwhile")
                result, message = _result(tree)
                if result == "Succeeded" and message == FENCED_MESSAGE:
                    cidrs = ", ".join(tree["spec"]["cidrs"])
                    detail = f"{cidrs} fenced: {message}"
                    return Down(at=clock.now(), source=source, detail=detail, ordered=created)
                last = f"{result or 'no result'} {message}".rstrip()
            if clock.now() + POLL_S >= order.deadline_at:
                return NotDown(source=source, detail=f"not fenced in time: {last}")
            await asyncio.sleep(POLL_S)

    async def _take_back(self, kind: Kind, tree: Tree, deadline_at: float) -> str:
        name = tree["metadata"]["name"]
        if _state(tree) != "Unfenced":
            patch = {"spec": {"fenceState": "Unfenced"}}
            patched = await self._objects.patch(kind, name, patch)
            if patched is None:
                return ""
        while True:
            now_there = await self._objects.read(kind, name)
            if now_there is None:
                return ""
            result, message = _result(now_there)
            left = f"NetworkFence {name} is not unfenced yet: {result} {message}".rstrip()
            if result == "Succeeded" and message == UNFENCED_MESSAGE:
                if "deletionTimestamp" not in now_there["metadata"]:
                    await self._objects.delete(kind, now_there)
                    if await self._objects.read(kind, name) is None:
                        return ""
                left = f"NetworkFence {name} is deleted, but still held by a finalizer"
            if self._objects.clock.now() + POLL_S >= deadline_at:
                return left
            await asyncio.sleep(POLL_S)


def _object_name(node: str) -> str:
    return f"remediator-{node}"[:253]


def _stands(tree: Tree, target: Target, cidrs: tuple[str, ...]) -> bool:
    """Whether a fence of ours that is there already is the one that is wanted.

    Not one whose unfencing was broken off, nor one of an earlier boot that has other addresses. In
    the same boot its addresses stay: what the driver told of a dead node may be gone by now.
    """
    if _state(tree) == "Unfenced":
        return False
    fenced = (tree.get("spec") or {}).get("cidrs") or ()
    return annotation(tree, BOOT_ANNOTATION) == target.boot_id or set(cidrs) <= set(fenced)


def _state(tree: Tree) -> str:
    return str((tree.get("spec") or {}).get("fenceState", "Fenced"))


def _result(tree: Tree) -> tuple[str, str]:
    status = tree.get("status") or {}
    return str(status.get("result", "")), str(status.get("message", ""))


def _host_cidr(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    return f"{parsed}/{parsed.max_prefixlen}"
