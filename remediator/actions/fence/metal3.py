"""Fence a Metal3 host: an annotation asks the Bare Metal Operator to power it off and keep it off.

``reboot.metal3.io/KEY`` with a key of our own keeps the host off until it is removed, as Cluster
API's Metal3 remediation does it. Proof is ``status.poweredOn`` turning false, read after the order:
the operator asks the BMC once a minute in peace, so a false that stood there before may be old.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.objects import POLL_S, Kind, Objects, ObjectsError, Tree, annotation
from remediator.actions.fence.verify import OFF_FOR_S
from remediator.clock import Clock
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import Metal3Fence
from remediator.power import PowerReading

GROUP: Final = "metal3.io"
ANNOTATION: Final = "reboot.metal3.io/remediator"
_HARD: Final = json.dumps({"mode": "hard"})
# On Machines of both kinds: "namespace/name" of the host (cluster-api-provider-metal3).
HOST_ANNOTATION: Final = "metal3.io/BareMetalHost"
_READINGS: Final = {True: Reading.UP, False: Reading.DOWN, None: Reading.UNKNOWN}
# In any other state the operator ignores the annotation (manageHostPower).
_PROVISIONED: Final = frozenset({"provisioned", "externally provisioned"})
# The Bare Metal Operator looks at a host in peace once a minute (its steady state result).
STEADY_S: Final = 60.0
# Ironic needs ten seconds to a minute for a hard power off, the operator half a minute to notice.
DEFAULT_TIMEOUT_S: Final = 180.0


class Metal3Driver:
    """Powers BareMetalHosts off by annotation."""

    proof = ProofKind.POWER_OFF_VERIFIED
    tells_power = True
    leaves_objects = True

    def __init__(self, settings: Metal3Fence, objects: Objects, clock: Clock) -> None:
        self._settings = settings
        self._objects = objects
        self._clock = clock

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        return self._settings.name

    @property
    def timeout_s(self) -> float:
        """How long the operator and Ironic may need."""
        return self._settings.timeout_s or DEFAULT_TIMEOUT_S

    def source(self, node: str) -> str:
        """Name the host as it is configured."""
        host = self._settings.host.replace("{node}", node)
        return f"BareMetalHost {host}" if host else f"BareMetalHost of {node}"

    async def check(self, target: Target) -> Checked:
        """Read the host's power and whether it is the node's own machine."""
        source = self.source(target.node)
        try:
            found = await self._find(target)
        except ObjectsError as error:
            found = str(error)
        if isinstance(found, str):
            power = PowerReading(reading=Reading.UNKNOWN, source=source, detail=found)
            return Checked(power=power, fault=found)
        _, tree = found
        powered = _powered(tree)
        reading = _READINGS[powered]
        power = PowerReading(reading=reading, source=source, detail=f"poweredOn is {powered}")
        return Checked(power=power, fault=_unfit(tree))

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """Annotate the host, and wait until the operator says that it is off."""
        source = self.source(target.node)
        try:
            found = await self._find(target)
            if isinstance(found, str):
                return NotDown(source=source, detail=found)
            kind, tree = found
            unfit = _unfit(tree)
            if unfit:
                return NotDown(source=source, detail=unfit)
            # Also where our annotation stands already: a crash may lie between it and this look.
            was_off = _powered(tree) is False
            await order.last_look()
            patch = {"metadata": {"annotations": {ANNOTATION: _HARD}}}
            metadata = tree["metadata"]
            await self._objects.patch(kind, metadata["name"], patch, metadata["namespace"])
            return await self._follow(kind, tree, order, source, was_off=was_off)
        except ObjectsError as error:
            return NotDown(source=source, detail=str(error))

    async def bring_up(self, target: Target, order: Order) -> str:
        """Take our annotation off: the operator then powers the host on."""
        await order.last_look()
        return await self.take_back(target)

    async def take_back(self, target: Target) -> str:
        """Take our annotation off."""
        try:
            found = await self._find(target)
            if isinstance(found, str):
                return ""  # no host, no annotation
            kind, tree = found
            if annotation(tree, ANNOTATION) is not None:
                patch = {"metadata": {"annotations": {ANNOTATION: None}}}
                metadata = tree["metadata"]
                await self._objects.patch(kind, metadata["name"], patch, metadata["namespace"])
        except ObjectsError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        """Nothing is held open."""

    async def _find(self, target: Target) -> tuple[Kind, Tree] | str:
        """Return the node's host: as configured, by its provider id, or by its Machine."""
        kind = await self._objects.preferred(GROUP, "BareMetalHost")
        place = await self._place(target)
        if not place:
            return f"which BareMetalHost {target.node} is cannot be told"
        namespace, _, name = place.partition("/")
        tree = await self._objects.read(kind, name, namespace)
        return (kind, tree) if tree is not None else f"there is no BareMetalHost {place}"

    async def _place(self, target: Target) -> str:
        if self._settings.host:
            host = self._settings.host.replace("{node}", target.node)
            return f"{self._settings.namespace}/{host}"
        scheme, _, rest = target.provider_id.partition("://")
        if scheme in ("baremetalhost", "metal3"):
            parts = rest.strip("/").split("/")
            if len(parts) >= 2:
                return f"{parts[0]}/{parts[1]}"
        namespace, _, name = target.machine.partition("/")
        if not (name and target.machine_group):
            return ""
        machines = await self._objects.preferred(target.machine_group, "Machine")
        machine = await self._objects.read(machines, name, namespace)
        return (annotation(machine, HOST_ANNOTATION) or "") if machine is not None else ""

    async def _follow(
        self, kind: Kind, tree: Tree, order: Order, source: str, *, was_off: bool
    ) -> Down | NotDown:
        metadata = tree["metadata"]
        off_for_s = STEADY_S + OFF_FOR_S if was_off else 0.0
        off_since: float | None = None
        last = "poweredOn was not read"
        while True:
            try:
                there = await self._objects.read(kind, metadata["name"], metadata["namespace"])
            except ObjectsError as error:
                last, off_since = str(error), None
            else:
                if there is None or there["metadata"]["uid"] != metadata["uid"]:
                    return NotDown(source=source, detail="the host was deleted meanwhile")
                if annotation(there, ANNOTATION) is None:
                    return NotDown(source=source, detail="somebody took our annotation off")
                now, powered = self._clock.now(), _powered(there)
                last = f"poweredOn is {powered}"
                off_since = (off_since or now) if powered is False else None
                if off_since is not None and now - off_since >= off_for_s:
                    how = "was off before" if was_off else "was on, asked to go off"
                    detail = f"{how}, then poweredOn is false"
                    return Down(at=now, source=source, detail=detail, ordered=not was_off)
            if self._clock.now() + POLL_S >= order.deadline_at:
                return NotDown(source=source, detail=f"not off in time: {last}")
            await asyncio.sleep(POLL_S)


def _powered(tree: Tree) -> bool | None:
    said = (tree.get("status") or {}).get("poweredOn")
    return said if isinstance(said, bool) else None


def _unfit(tree: Tree) -> str:
    """Say why the operator would not power this host off; empty where it would."""
    spec, status = tree.get("spec") or {}, tree.get("status") or {}
    if not spec.get("online", False):
        return "spec.online is false: the host is meant to be off, the operator takes no order"
    if spec.get("disablePowerOff", False):
        return "spec.disablePowerOff is set: the operator would reboot it, which proves nothing"
    state = (status.get("provisioning") or {}).get("state", "")
    if state not in _PROVISIONED:
        return (
            f"it is {state or 'in no known state'}: the operator takes no order before provisioned"
        )
    if status.get("errorType") == "power management error":
        return f"the operator cannot manage its power: {status.get('errorMessage', '')}"[:200]
    return ""
