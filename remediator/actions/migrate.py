"""Move one VM off a node that lives, while it runs.

Where no better node is known, its launcher pod is evicted: KubeVirt refuses that with a 429, notes
the node on the VMI, and makes a migration of a priority that only it may give (facts: KubeVirt
5.5, 5.6; lab section 5). A 429 has several meanings, told apart by its words. An eviction that
would be granted (no eviction strategy) would stop the VM: so each is first asked for as a dry run,
and a migration is made in its place.
"""

from __future__ import annotations

import re
from typing import Any, Final

from remediator.actions import marks
from remediator.actions.live import REQUEST_TIMEOUT_S, read, read_node, write
from remediator.actions.world import Result, SparedError, World, failed, succeeded
from remediator.engine.model import Migrate
from remediator.kube.errors import AlreadyExistsError, BadRequestError, TooManyRequestsError
from remediator.kube.objects import (
    MIGRATIONS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    Pod,
    VirtualMachineInstance,
    VirtualMachineInstanceMigration,
)

INCIDENT_LABEL: Final = "remediator.io/incident"  # on migrations that we make
_HOSTNAME: Final = "kubernetes.io/hostname"
# virt-api's words for "refused, because it is moved instead". The name of a pod may hold the word.
_ACCEPTED: Final = re.compile(r"triggered evacuation of VMI|evacuation in progress", re.IGNORECASE)
_BUDGET: Final = re.compile(r"disruption budget", re.IGNORECASE)


async def migrate(work: Migrate, world: World) -> Result:
    """Ask for the migration, and see that KubeVirt has taken it up. Raises SparedError."""
    node = await read_node(world, work.node)
    if node is None:
        raise SparedError("the node object is gone")
    refusal = marks.why_not(node, work.node_uid)
    if refusal:
        raise SparedError(refusal)
    vmi = await _read_vmi(work, world)
    if vmi is None or vmi.uid != work.vmi_uid or vmi.deleting:
        raise SparedError("its instance is gone, or was created anew")
    if vmi.node_name != work.node:
        return succeeded(f"it runs on {vmi.node_name} already", changed=False)
    if vmi.phase != "Running":
        raise SparedError(f"its instance is {vmi.phase or 'new'}, not Running")
    if vmi.live_migratable is False:
        raise SparedError(f"it cannot move while it runs: {vmi.not_migratable_why}")
    if vmi.migration is not None and vmi.migration.migration_uid and vmi.migration.in_flight:
        return succeeded("a migration of it is under way already", changed=False)
    if _told(vmi, work):
        return succeeded("KubeVirt was told already to move it off", changed=False)
    if work.target:
        return await _create(work, world)
    return await _evict(work, world)


async def _read_vmi(work: Migrate, world: World) -> VirtualMachineInstance | None:
    path = VIRTUAL_MACHINE_INSTANCES.object_path(work.vmi, work.namespace)
    return await read(world, path, VirtualMachineInstance)


def _told(vmi: VirtualMachineInstance, work: Migrate) -> bool:
    return vmi.status is not None and vmi.status.evacuation_node_name == work.node


async def _evict(work: Migrate, world: World) -> Result:
    """Ask what an eviction would do; evict where that means a migration."""
    pod = await read(world, PODS.object_path(work.pod, work.namespace), Pod)
    if pod is None or pod.uid != work.pod_uid or pod.node_name != work.node:
        raise SparedError("its launcher pod is gone, or another has its name")
    said = await _post_eviction(work, world, dry=True)
    if said is None:  # it would be granted, and the VM would stop
        return await _create(work, world)
    if not _ACCEPTED.search(said):
        return failed(_refusal(said))
    said = await _post_eviction(work, world, dry=False)
    if said is None:
        return failed("its eviction was granted, though refused a moment before", changed=True)
    if not _ACCEPTED.search(said):
        return failed(_refusal(said))
    vmi = await _read_vmi(work, world)
    if vmi is None or vmi.uid != work.vmi_uid:
        return failed("the eviction was accepted, and its instance is gone", changed=True)
    if _told(vmi, work) or vmi.node_name != work.node:
        return succeeded(
            "KubeVirt moves it off: its eviction triggered an evacuation", changed=True
        )
    return failed("the eviction was accepted, but KubeVirt has not noted it", changed=True)


def _refusal(said: str) -> str:
    if _BUDGET.search(said):
        return f"a PodDisruptionBudget forbids its eviction: {said}"
    return f"its eviction was refused: {said}"


async def _post_eviction(work: Migrate, world: World, *, dry: bool) -> str | None:
    """POST the eviction; return the words of its refusal, None where it was granted.

    Never repeated: a 429 is an answer here, not a wish to be asked again. Raises SparedError,
    ApiError, TransportError.
    """
    options: dict[str, Any] = {"preconditions": {"uid": work.pod_uid}}
    if dry:
        options["dryRun"] = ["All"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": work.pod, "namespace": work.namespace},
        "deleteOptions": options,
    }
    path = PODS.object_path(work.pod, work.namespace, subresource="eviction")
    world.must_lead()
    try:
        await world.client.create(
            path, body, query=[("dryRun", "All")] if dry else [], timeout_s=REQUEST_TIMEOUT_S
        )
    except TooManyRequestsError as error:
        return error.message.partition(": ")[2] or error.message  # without the path of the request
    return None


async def _create(work: Migrate, world: World) -> Result:
    """Make the migration under its own name, so that a repeat finds it."""
    spec: dict[str, Any] = {"vmiName": work.vmi}
    if work.target:
        spec["addedNodeSelector"] = {_HOSTNAME: work.target}
    body = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {
            "name": work.migration,
            "namespace": work.namespace,
            "labels": {INCIDENT_LABEL: world.action_id.partition("/")[0]},
        },
        "spec": spec,
    }
    path = MIGRATIONS.collection(work.namespace)
    try:
        await write(world, lambda: world.client.create(path, body, timeout_s=REQUEST_TIMEOUT_S))
    except AlreadyExistsError:
        pass  # a repeat: read back below
    except BadRequestError as error:
        return failed(f"KubeVirt refuses to migrate it: {error.message.partition(': ')[2]}")
    made = await read(
        world,
        MIGRATIONS.object_path(work.migration, work.namespace),
        VirtualMachineInstanceMigration,
    )
    if made is None:
        return failed("the migration was made, and is gone again", changed=True)
    if made.vmi_name != work.vmi:
        return failed(f"{work.migration} is a migration of another VM")
    if made.ended:
        return failed(f"its migration has ended: {made.phase}", changed=True)
    where = f" to {work.target}" if work.target else ""
    return succeeded(f"a migration{where} was made: {work.migration}", changed=True)
