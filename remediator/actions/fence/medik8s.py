"""Fence by another remediator: create its remediation object from a template and follow it.

The contract is medik8s', as Node Healthcheck Operator keeps it: kind and specification come from
the template, name and annotations tell the node, the conditions Processing and Succeeded tell how
it goes, the annotation nhc-timed-out asks it to stop, and its finalizers end its work. Only an
object of ours for this very incident counts: a success from before proves nothing about now.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.objects import (
    ACTION_ANNOTATION,
    BOOT_ANNOTATION,
    POLL_S,
    Kind,
    Objects,
    ObjectsError,
    Tree,
    annotation,
    condition,
    is_ours,
    marks,
)
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import Medik8sFence
from remediator.kube.errors import ConflictError
from remediator.kube.metadata import format_time
from remediator.power import PowerReading

_PREFIX: Final = "remediation.medik8s.io/"
NODE_NAME: Final = _PREFIX + "node-name"
TEMPLATE_NAME: Final = _PREFIX + "template-name"
TIMED_OUT: Final = _PREFIX + "nhc-timed-out"
MULTIPLE_TEMPLATES: Final = _PREFIX + "multiple-templates-support"
CONTROL_PLANE: Final = _PREFIX + "isControlPlaneNode"

# Self Node Remediation needs 180 s and more until it may assume a reboot; NHC's own default
# timeout of a remediation is 10 minutes.
DEFAULT_TIMEOUT_S: Final = 300.0


class Medik8sDriver:
    """Follows one template's remediations."""

    proof = ProofKind.REMEDIATOR_SUCCEEDED
    tells_power = False
    leaves_objects = True

    def __init__(self, settings: Medik8sFence, objects: Objects) -> None:
        self._settings = settings
        self._objects = objects

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        return self._settings.name

    @property
    def timeout_s(self) -> float:
        """How long the remediator may need."""
        return self._settings.timeout_s or DEFAULT_TIMEOUT_S

    def source(self, node: str) -> str:
        """Kind and template, and the node it is for."""
        template = self._settings.template
        return f"{self._kind_name} of template {template.namespace}/{template.name} for {node}"

    async def check(self, target: Target) -> Checked:
        """See that the template and its kind are there; a remediator tells no power state."""
        power = PowerReading(
            reading=Reading.UNKNOWN, source=self.source(target.node), detail="tells no power state"
        )
        try:
            await self._template()
            await self._kind()
        except ObjectsError as error:
            return Checked(power=power, fault=str(error))
        return Checked(power=power)

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """Create the remediation, or go on with the one of this boot, until it has succeeded."""
        source = self.source(target.node)
        try:
            kind = await self._kind()
            template = await self._template()
            found = await self._current(kind, target, order)
            if isinstance(found, str):
                return NotDown(source=source, detail=found)
            created = found is None
            if found is None:
                await order.last_look()
                found = await self._create(kind, template, target, order)
            return await self._follow(kind, found, order, source, created=created)
        except ConflictError as error:
            return NotDown(source=source, detail=f"somebody else took its name meanwhile: {error}")
        except ObjectsError as error:
            return NotDown(source=source, detail=str(error))

    async def bring_up(self, target: Target, order: Order) -> str:
        """Nothing to do: a remediator restarts its node by itself."""
        del target, order
        return ""

    async def take_back(self, target: Target) -> str:
        """Delete our remediations of this node; say what is left while finalizers hold them."""
        try:
            kind = await self._kind()
            left = await self._objects.ours(kind, target.node, self._namespace)
            for tree in left:
                if "deletionTimestamp" not in tree["metadata"]:
                    await self._objects.delete(kind, tree)
            left = await self._objects.ours(kind, target.node, self._namespace)
        except ObjectsError as error:
            return str(error)
        return ", ".join(_held(self._kind_name, tree) for tree in left)

    async def close(self) -> None:
        """Nothing is held open."""

    # --- steps ------------------------------------------------------------------------------------

    @property
    def _namespace(self) -> str:
        return self._settings.template.namespace

    @property
    def _kind_name(self) -> str:
        return self._settings.template.kind.removesuffix("Template")

    async def _kind(self) -> Kind:
        return await self._objects.kind(self._settings.template.api_version, self._kind_name)

    async def _template(self) -> Tree:
        ref = self._settings.template
        kind = await self._objects.kind(ref.api_version, ref.kind)
        tree = await self._objects.read(kind, ref.name, ref.namespace)
        where = f"{ref.kind} {ref.namespace}/{ref.name}"
        if tree is None:
            raise ObjectsError(f"{where} does not exist")
        if not isinstance(((tree.get("spec") or {}).get("template") or {}).get("spec"), dict):
            raise ObjectsError(f"{where} has no spec.template.spec")
        return tree

    async def _current(self, kind: Kind, target: Target, order: Order) -> Tree | str | None:
        """Return our remediation of this incident, None, or why none may be made.

        One of an earlier incident or boot, or one that was given up, is removed first: its
        finalizers undo what it did, and its success would prove nothing.
        """
        for tree in await self._objects.ours(kind, target.node, self._namespace):
            if self._stands(tree, target, order):
                return tree
            if "deletionTimestamp" not in tree["metadata"]:
                await self._objects.delete(kind, tree)
        left = await self._objects.ours(kind, target.node, self._namespace)
        if left:
            return f"an earlier one is still being removed: {_held(self._kind_name, left[0])}"
        foreign = await self._objects.read(kind, target.node, self._namespace)
        if foreign is not None and not is_ours(foreign):
            return f"{self._kind_name} {target.node} is somebody else's: left alone"
        return None

    def _stands(self, tree: Tree, target: Target, order: Order) -> bool:
        return (
            annotation(tree, BOOT_ANNOTATION) == target.boot_id
            and _incident(annotation(tree, ACTION_ANNOTATION) or "") == _incident(order.action_id)
            and annotation(tree, TIMED_OUT) is None
            and "deletionTimestamp" not in tree["metadata"]
            and condition(tree, "Succeeded")[0] != "False"
        )

    async def _create(self, kind: Kind, template: Tree, target: Target, order: Order) -> Tree:
        ref = self._settings.template
        metadata: dict[str, Any] = marks(target.node, target.boot_id, order.action_id)
        metadata["annotations"] |= {NODE_NAME: target.node, TEMPLATE_NAME: ref.name}
        if target.control_plane:
            metadata["labels"][CONTROL_PLANE] = ""
        if annotation(template, MULTIPLE_TEMPLATES) == "true":
            metadata["generateName"] = f"{target.node}-"
        else:
            metadata["name"] = target.node
        metadata["namespace"] = ref.namespace
        tree = {
            "apiVersion": ref.api_version,
            "kind": self._kind_name,
            "metadata": metadata,
            "spec": template["spec"]["template"]["spec"],
        }
        return await self._objects.create(kind, tree, ref.namespace)

    async def _follow(
        self, kind: Kind, tree: Tree, order: Order, source: str, *, created: bool
    ) -> Down | NotDown:
        """Wait for Succeeded. At the deadline the remediator is asked to stop."""
        uid, name = tree["metadata"]["uid"], tree["metadata"]["name"]
        clock = self._objects.clock
        last = "it has said nothing"
        while True:
            now_there = await self._read(kind, name)
            if now_there is not None:
                if now_there.get("metadata", {}).get("uid") != uid:
                    return NotDown(source=source, detail=f"{name} was deleted while it worked")
                status, why = condition(now_there, "Succeeded")
                if status == "True":
                    detail = f"{name}: {why or 'Succeeded'}"
                    return Down(at=clock.now(), source=source, detail=detail, ordered=created)
                if status == "False":
                    return NotDown(source=source, detail=f"{name} failed: {why or 'no reason'}")
                processing, said = condition(now_there, "Processing")
                last = f"Processing is {processing or 'not said'} {said}".rstrip()
            if clock.now() + POLL_S >= order.deadline_at:
                await self._ask_to_stop(kind, name)
                return NotDown(source=source, detail=f"{name} has not succeeded in time: {last}")
            await asyncio.sleep(POLL_S)

    async def _read(self, kind: Kind, name: str) -> Tree | None:
        """Return the object, an empty tree where it is gone, None where nobody answered."""
        try:
            return await self._objects.read(kind, name, self._namespace) or {}
        except ObjectsError:
            return None

    async def _ask_to_stop(self, kind: Kind, name: str) -> None:
        stamp = format_time(self._objects.clock.now())
        patch = {"metadata": {"annotations": {TIMED_OUT: stamp}}}
        try:
            await self._objects.patch(kind, name, patch, self._namespace)
        except ObjectsError:
            return  # the next attempt finds it without the stamp and goes on with it


def _incident(action_id: str) -> str:
    """Return the part of an action's id that its repeats share: "inc-7/fence/2" -> "inc-7"."""
    return action_id.partition("/")[0]


def _held(kind: str, tree: Tree) -> str:
    metadata = tree["metadata"]
    finalizers = ", ".join(metadata.get("finalizers") or ()) or "nothing"
    action = (metadata.get("annotations") or {}).get(ACTION_ANNOTATION, "")
    return f"{kind} {metadata['name']} ({action}) is held by {finalizers}"
