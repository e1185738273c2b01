"""Fence by deleting the node's Machine (OpenShift or Cluster API), which ends its instance.

The Machine's finalizer is removed only when the infrastructure has let the instance go, so the
proof is that the object is gone, never that its deletion was accepted.
"""

from __future__ import annotations

import asyncio
from typing import Final

from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.objects import POLL_S, Kind, Objects, ObjectsError, Tree
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import MachineFence
from remediator.power import PowerReading

# Clouds need one to three minutes to end an instance.
DEFAULT_TIMEOUT_S: Final = 300.0


class MachineDriver:
    """Deletes Machines that a controller replaces."""

    proof = ProofKind.INSTANCE_GONE
    tells_power = False
    leaves_objects = False

    def __init__(self, settings: MachineFence, objects: Objects) -> None:
        self._settings = settings
        self._objects = objects

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        return self._settings.name

    @property
    def timeout_s(self) -> float:
        """How long the infrastructure may need."""
        return self._settings.timeout_s or DEFAULT_TIMEOUT_S

    def source(self, node: str) -> str:
        """Name what is deleted."""
        return f"Machine of {node}"

    async def check(self, target: Target) -> Checked:
        """See that the node has a Machine that may be deleted."""
        fault, owner = "", "unknown"
        try:
            found = await self._find(target)
            if isinstance(found, str):
                fault = found
            else:
                owner, why = _whose(found[1], target)
                fault = why or _unfit(found[1])
        except ObjectsError as error:
            fault = str(error)
        power = PowerReading(
            reading=Reading.UNKNOWN,
            source=self.source(target.node),
            detail=f"Machine {target.machine}" if target.machine else "no Machine",
        )
        return Checked(power=power, owner=owner, fault=fault)

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """Delete the Machine, and wait until it is gone."""
        source = self.source(target.node)
        try:
            found = await self._find(target)
            if isinstance(found, str):
                return NotDown(source=source, detail=found)
            kind, tree = found
            if tree is None:
                return self._gone(target, source, "was gone already", ordered=False)
            _, wrong = _whose(tree, target)
            unfit = wrong or _unfit(tree)
            if unfit:
                return NotDown(source=source, detail=unfit)
            ordered = "deletionTimestamp" not in tree["metadata"]
            if ordered:
                await order.last_look()
                await self._objects.delete(kind, tree)
            return await self._follow(kind, tree, target, order, ordered=ordered)
        except ObjectsError as error:
            return NotDown(source=source, detail=str(error))

    async def bring_up(self, target: Target, order: Order) -> str:
        """Nothing to do: its owner makes another Machine."""
        del target, order
        return ""

    async def take_back(self, target: Target) -> str:
        """Nothing is left behind."""
        del target
        return ""

    async def close(self) -> None:
        """Nothing is held open."""

    async def _find(self, target: Target) -> tuple[Kind, Tree | None] | str:
        namespace, _, name = target.machine.partition("/")
        if not (namespace and name and target.machine_group):
            return f"{target.node} names no Machine"
        kind = await self._objects.preferred(target.machine_group, "Machine")
        return kind, await self._objects.read(kind, name, namespace)

    async def _follow(
        self, kind: Kind, tree: Tree, target: Target, order: Order, *, ordered: bool
    ) -> Down | NotDown:
        metadata = tree["metadata"]
        clock, source = self._objects.clock, self.source(target.node)
        last = ""
        while True:
            try:
                there = await self._objects.read(kind, metadata["name"], metadata["namespace"])
            except ObjectsError as error:
                last = str(error)
            else:
                if there is None or there["metadata"]["uid"] != metadata["uid"]:
                    return self._gone(target, source, "deleted and gone", ordered=ordered)
                finalizers = ", ".join(there["metadata"].get("finalizers") or ())
                phase = (there.get("status") or {}).get("phase", "")
                last = f"phase {phase or 'unknown'}, held by {finalizers or 'nothing'}"
            if clock.now() + POLL_S >= order.deadline_at:
                return NotDown(source=source, detail=f"not gone in time: {last}")
            await asyncio.sleep(POLL_S)

    def _gone(self, target: Target, source: str, how: str, *, ordered: bool) -> Down:
        detail = f"Machine {target.machine} {how}"
        return Down(at=self._objects.clock.now(), source=source, detail=detail, ordered=ordered)


def _whose(tree: Tree | None, target: Target) -> tuple[str, str]:
    """Return ("matches" | "differs" | "unknown", what is wrong): an annotation may be a mistake.

    Both kinds of Machine name their Node and the instance behind it.
    """
    if tree is None:
        return "unknown", ""
    node = ((tree.get("status") or {}).get("nodeRef") or {}).get("name", "")
    if node and node != target.node:
        return "differs", f"WrongMachine: the Machine is {node}'s, not {target.node}'s"
    instance = (tree.get("spec") or {}).get("providerID") or ""
    if instance and target.provider_id and instance != target.provider_id:
        return "differs", f"WrongMachine: its instance is {instance}, not {target.provider_id}"
    return ("matches" if node or (instance and target.provider_id) else "unknown"), ""


def _unfit(tree: Tree | None) -> str:
    """Say why this Machine must not be deleted; empty where it may be."""
    if tree is None:
        return ""
    owners = tree["metadata"].get("ownerReferences") or ()
    if not any(owner.get("controller") for owner in owners):
        return "no controller owns its Machine: nobody would replace it"
    return ""
