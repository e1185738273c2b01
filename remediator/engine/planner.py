"""From a matched policy to a plan: the steps, the fence method, and each VM's treatment.

The plan for a dead node, in this order, because each step makes the next one safe:

1. ``cordon``   our NoSchedule taint, or the new pods land on the dead node again
2. ``fence``    power off, and read back that it is off: the proof
3. ``release``  the out-of-service taint: volumes detach at once, also ReadWriteOnce
4. ``recover``  delete the launcher pods by UID, at a pace; KubeVirt then makes new VMIs
"""

from __future__ import annotations

import enum

from remediator.engine import evacuation_plan, fencing, locality
from remediator.engine.chain import Plan, VmPlan
from remediator.engine.context import Context
from remediator.engine.inventory import Inventory, vm_of
from remediator.engine.model import (
    NodeFacts,
    PodFacts,
    RunStrategy,
    Subject,
    VmFacts,
    VmiFacts,
    vm_subject,
)
from remediator.engine.rules import Policy


class Treatment(enum.StrEnum):
    """What is done for one VM of a dead node."""

    RESTART = "restart"  # delete the launcher pod; KubeVirt starts it again by itself
    RESTART_BY_START = "restart-by-start"  # delete the pod, then ask KubeVirt to start it
    LEAVE_STOPPED = "leave-stopped"  # delete the pod, so that it is truthfully stopped


# KubeVirt virt-controller watch/vm: what follows when the VMI fails because its pod is gone.
_BY_STRATEGY: dict[RunStrategy, tuple[Treatment, str]] = {
    RunStrategy.ALWAYS: (Treatment.RESTART, "Always: KubeVirt makes a new VMI"),
    RunStrategy.RERUN_ON_FAILURE: (Treatment.RESTART, "RerunOnFailure: a lost pod is a failure"),
    RunStrategy.MANUAL: (Treatment.LEAVE_STOPPED, "Manual: only a person starts it"),
    RunStrategy.ONCE: (Treatment.LEAVE_STOPPED, "Once: it has had its one run"),
    RunStrategy.HALTED: (Treatment.LEAVE_STOPPED, "Halted: its owner wants it stopped"),
    RunStrategy.WAIT_AS_RECEIVER: (
        Treatment.LEAVE_STOPPED,
        "WaitAsReceiver: it waits for an incoming migration",
    ),
    RunStrategy.NONE: (Treatment.LEAVE_STOPPED, "no VirtualMachine owns it: nobody recreates it"),
}


def make_plan(context: Context, policy: Policy, node: NodeFacts) -> Plan:
    """Return the plan that ``policy`` yields for ``node`` now."""
    if evacuation_plan.evacuates(policy):
        return evacuation_plan.make_plan(context, policy, node)
    vms = vm_plans(context.inventory, policy, node.name)
    required = fencing.required_proof(context.inventory, policy, vms)
    method = fencing.method_for(context, node.name)
    return Plan(
        policy=policy.name,
        policy_hash=policy.content_hash,
        verdicts=policy.verdicts,
        steps=policy.steps,
        required_proof=tuple(kind.value for kind in required),
        fence_method=method.name if method is not None else "",
        vms=vms,
        levels=fencing.usable_levels(method, required),
    )


def vm_plans(inventory: Inventory, policy: Policy | None, node: str) -> tuple[VmPlan, ...]:
    """Return how each VM that is on ``node`` would be treated, by name.

    A VM is on the node when its VMI says so or a launcher pod of it is bound there, other than as
    the target of a migration: then the source, elsewhere, still runs it.
    """
    found: dict[Subject, VmPlan] = {}
    for vmi in inventory.vmis_on(node):
        subject = vm_subject(vmi.namespace, vmi.name)
        found[subject] = plan_vm(inventory, policy, subject, vmi, node)
    for pod in inventory.pods_on(node):
        subject = vm_subject(pod.namespace, pod.vmi)
        if recoverable(inventory, pod) and subject not in found:
            found[subject] = plan_vm(inventory, policy, subject, inventory.vmi(subject), node)
    return tuple(found[subject] for subject in sorted(found))


def plan_vm(
    inventory: Inventory,
    policy: Policy | None,
    subject: Subject,
    vmi: VmiFacts | None,
    node: str,
) -> VmPlan:
    """Return the treatment of one VM by its run strategy and its disks."""
    vm = inventory.vm(subject)
    treatment, why = _treatment(vm, policy)
    pinned = _pinned(inventory, subject, vmi, node)
    if pinned and treatment is not Treatment.LEAVE_STOPPED:
        treatment = Treatment.LEAVE_STOPPED
        why = f"cannot move: the only copy of {pinned} is on this host; it starts when that is back"
    return VmPlan(
        vm=subject,
        vmi_uid=vmi.uid if vmi is not None else "",
        run_strategy=vm.run_strategy.value if vm is not None else "",
        treatment=treatment,
        why=why,
        claims=vmi.claims if vmi is not None else (),
        agent=vmi is not None and (vmi.agent_connected or vmi.agent_known),
    )


def _pinned(inventory: Inventory, subject: Subject, vmi: VmiFacts | None, node: str) -> str:
    """Return the volume of this VM whose only good copy is on this node, or ""."""
    claims = vmi.claims if vmi is not None else ()
    return locality.only_copy(inventory, subject.namespace, claims, node)


def recoverable(inventory: Inventory, pod: PodFacts) -> bool:
    """Whether this pod, on a dead node, is a copy whose deletion brings its VM back.

    Not one that has ended, such as the source that a finished migration leaves behind; nor the
    target of a migration under way, whose source runs elsewhere. Once the migration is finished the
    VMI is where its target is, though the pod keeps the label for ever.
    """
    if pod.phase in ("Succeeded", "Failed"):
        return False
    if not pod.migration_target:
        return True
    vmi = inventory.vmi(vm_of(pod))
    return vmi is not None and vmi.node == pod.node


def _treatment(vm: VmFacts | None, policy: Policy | None) -> tuple[Treatment, str]:
    strategy = vm.run_strategy if vm is not None else RunStrategy.NONE
    if vm is not None and vm.deleting:
        return Treatment.LEAVE_STOPPED, "its VirtualMachine is being deleted"
    if strategy is RunStrategy.MANUAL and policy is not None and policy.start_manual:
        return Treatment.RESTART_BY_START, f"Manual: policy {policy.name} starts it (startManual)"
    return _BY_STRATEGY[strategy]
