"""The plan for a node that is to be emptied while it lives: each of its VMs, and what may be done.

1. ``cordon``   no new VM lands there while its own leave
2. ``migrate``  each VM, live, as far as KubeVirt, its disks and the other nodes allow it
3. ``restart``  where the policy says so: what cannot be moved live stops here, starts elsewhere

``notify`` and ``hold`` may stand anywhere among them.
"""

from __future__ import annotations

import enum

from remediator.engine import locality, placement
from remediator.engine.chain import Plan, VmPlan
from remediator.engine.context import Context
from remediator.engine.inventory import Inventory, vm_of
from remediator.engine.model import (
    NodeFacts,
    Record,
    RunStrategy,
    Subject,
    VmiFacts,
    vm_subject,
)
from remediator.engine.plane_values import SILENT
from remediator.engine.rules import OnFailure, Policy
from remediator.engine.verdicts import LIVING

STEPS = ("cordon", "migrate", "restart", "notify", "hold")
_OF_THE_DEAD = frozenset({"fence", "release", "recover"})
_FINAL_PHASES = frozenset({"Succeeded", "Failed"})
# A start that KubeVirt makes by itself once the old run has ended (virt-controller watch/vm).
_RESTARTABLE = frozenset({RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE, RunStrategy.MANUAL})


class Move(enum.StrEnum):
    """What is done for one VM of a node that is to be emptied: ``VmPlan.treatment``."""

    MIGRATE = "migrate"
    RESTART = "restart-elsewhere"
    STAY = "stay"


class Obstacle(Record, frozen=True, kw_only=True):
    """Why a VM cannot be moved live now. ``lasting``: waiting alone changes nothing."""

    why: str
    lasting: bool = True


def evacuates(plan: Plan | Policy) -> bool:
    """Whether this is about emptying a living node rather than about replacing a dead one."""
    if "migrate" in plan.steps:
        return True
    return not _OF_THE_DEAD & set(plan.steps) and LIVING.issuperset(plan.verdicts)


def make_plan(context: Context, policy: Policy, node: NodeFacts) -> Plan:
    """Return what ``policy`` would have done to empty ``node`` now."""
    return Plan(
        policy=policy.name,
        policy_hash=policy.content_hash,
        verdicts=policy.verdicts,
        steps=policy.steps,
        required_proof=(),
        fence_method="",
        vms=tuple(
            plan_vm(context, policy, node, vm) for vm in vms_on(context.inventory, node.name)
        ),
    )


def vms_on(inventory: Inventory, node: str) -> list[Subject]:
    """Return the VMs that are on a node, by name.

    Not one that has moved away and left its old pod behind, nor the target of a migration.
    """
    found = {vm_subject(vmi.namespace, vmi.name) for vmi in inventory.vmis_on(node)}
    for pod in inventory.pods_on(node):
        if pod.phase in _FINAL_PHASES or pod.migration_target:
            continue
        vmi = inventory.vmi(vm_of(pod))
        if vmi is None or vmi.node in ("", node):
            found.add(vm_of(pod))
    return sorted(found)


def plan_vm(context: Context, policy: Policy | None, node: NodeFacts, vm: Subject) -> VmPlan:
    """Return what may be done for one VM, and why."""
    inventory = context.inventory
    vmi, owner = inventory.vmi(vm), inventory.vm(vm)
    obstacle = obstacle_to(context, node, vm)
    steps = policy.steps if policy is not None else STEPS
    if "migrate" not in steps:
        obstacle = Obstacle(why="the policy moves no VM")
    if obstacle is None:
        treatment, why = Move.MIGRATE, "it can be moved while it runs"
    elif policy is not None and restarts(policy) and not why_not_restarted(context, vm):
        treatment, why = Move.RESTART, f"{obstacle.why}: it is restarted elsewhere"
    else:
        treatment, why = Move.STAY, obstacle.why
    return VmPlan(
        vm=vm,
        vmi_uid=vmi.uid if vmi is not None else "",
        run_strategy=owner.run_strategy.value if owner is not None else "",
        treatment=treatment,
        why=why,
        claims=vmi.claims if vmi is not None else (),
    )


def restarts(policy: Policy) -> bool:
    """Whether VMs that cannot be moved live are restarted elsewhere."""
    if "restart" not in policy.steps:
        return False
    return "migrate" not in policy.steps or policy.options("migrate").on_failure is OnFailure.NEXT


def obstacle_to(context: Context, node: NodeFacts, vm: Subject) -> Obstacle | None:
    """Return why a VM cannot be moved off this node live now; None where nothing forbids it."""
    asleep = source_asleep(context, node)
    if asleep:
        return Obstacle(why=asleep, lasting=False)
    vmi = context.inventory.vmi(vm)
    if vmi is None or vmi.phase != "Running":
        phase = "not made yet" if vmi is None else vmi.phase or "new"
        return Obstacle(why=f"its instance is {phase}: only what runs is moved", lasting=False)
    if vmi.deleting:
        return Obstacle(why="its instance is being deleted", lasting=False)
    pinned = _pinned(context, vmi, node.name)
    if pinned:
        return Obstacle(why=f"cannot move: the only copy of {pinned} is on this host")
    if vmi.live_migratable is False:
        return Obstacle(why=_not_migratable(context, vmi))
    if vmi.live_migratable is None:
        return Obstacle(why="KubeVirt has not said yet whether it can be moved", lasting=False)
    found = placement.target(context, vm, exclude=(node.name,))
    if isinstance(found, placement.Unplaced):
        return Obstacle(why=f"no other node takes it: {found.why}", lasting=found.stays)
    return None


def better_node(context: Context, node: NodeFacts, vm: Subject) -> str:
    """Return the node that is better for a VM than any that KubeVirt might choose, or "".

    Only where its data is makes one node better than another; else the scheduler knows best.
    """
    want = placement.want_of(context, vm, away=frozenset({node.name}))
    if not any(disk.kind is locality.Kind.REPLICATED for disk in want.disks):
        return ""
    found = placement.target(context, vm, exclude=(node.name,))
    return found.node if isinstance(found, placement.Placement) else ""


def source_asleep(context: Context, node: NodeFacts) -> str:
    """Return why no migration off this node could ever begin, or "".

    The source's virt-handler starts the copy. Where it hangs, a migration waits for ever and holds
    one of KubeVirt's few places (facts/lab.md section 4).
    """
    values = context.evidence.values(node, context.now)
    if values.handler in ("silent", "down"):
        return f"virt-handler of {node.name} is {values.handler}: a migration would never begin"
    if values.lease in SILENT and values.handler != "up":
        return f"{node.name} is silent, and nothing shows that its virt-handler lives"
    return ""


def why_not_restarted(context: Context, vm: Subject) -> str:
    """Return why a VM must not be stopped here and started elsewhere, or ""."""
    inventory = context.inventory
    owner, vmi = inventory.vm(vm), inventory.vmi(vm)
    if owner is None:
        return "no VirtualMachine owns it: nobody would start it again"
    if owner.run_strategy not in _RESTARTABLE:
        return f"{owner.run_strategy}: KubeVirt refuses to restart it"
    if vmi is not None and _pinned(context, vmi, vmi.node):
        return "its only copy is on this host"
    return ""


def _pinned(context: Context, vmi: VmiFacts, node: str) -> str:
    for volume in context.inventory.volumes_of(vmi.namespace, vmi.claims):
        if volume.pinned_to == (node,):
            return volume.name
    return ""


def _not_migratable(context: Context, vmi: VmiFacts) -> str:
    """Say why KubeVirt will not move it, with the disk where that is the reason."""
    why = f"not live-migratable ({vmi.not_migratable_why or 'no reason given'})"
    for claim in vmi.claims:
        facts = context.inventory.claims.get((vmi.namespace, claim))
        modes = facts.access_modes if facts is not None else ()
        if modes and "ReadWriteMany" not in modes:
            return f"{why}: its disk {claim} is {', '.join(modes)}, not shared"
    return why
