"""From a matched policy to what is done about one VM: the plan, and what each step means now.

The steps stand in the policy's order, each stronger than the one before. What a step means depends
on the run strategy and on what is left of the VM, so it is settled just before the step is begun.
"""

from __future__ import annotations

from collections.abc import Sequence

from remediator.engine.chain import Plan, VmPlan
from remediator.engine.context import Context
from remediator.engine.incidents import VmIncident
from remediator.engine.inventory import Inventory
from remediator.engine.model import (
    KillPod,
    PodFacts,
    RemedyWork,
    RestartVm,
    RunStrategy,
    Snapshot,
    SoftReboot,
    StartVm,
    Subject,
    Unpause,
    VmFacts,
    VmiFacts,
)
from remediator.engine.planner import Treatment
from remediator.engine.rules import OnFailure, Policy, StepOptions
from remediator.engine.vm_values import FINAL_PHASES, ending

STEPS = ("soft-reboot", "restart", "force-stop", "unpause", "snapshot", "notify", "hold")

# A pod that does not end in its own time is given this: the shortest that KubeVirt itself gives,
# and never 0, which would remove the object while the guest may still write.
SHORTEST_GRACE_S = 1

# How often a step is tried, where the policy does not say. The first force-stop asks KubeVirt, the
# second the kubelet.
_TRIES = {"force-stop": 2}

_BY_STRATEGY: dict[RunStrategy, tuple[Treatment, str]] = {
    RunStrategy.ALWAYS: (Treatment.RESTART, "Always: KubeVirt makes a new VMI"),
    RunStrategy.RERUN_ON_FAILURE: (
        Treatment.RESTART,
        "RerunOnFailure: KubeVirt restarts it, by the start request that a restart leaves",
    ),
    RunStrategy.MANUAL: (
        Treatment.RESTART,
        "Manual: restarted while it runs; once it has ended only a person starts it",
    ),
    RunStrategy.ONCE: (
        Treatment.LEAVE_STOPPED,
        "Once: it is to have one run, and KubeVirt refuses to restart it",
    ),
    RunStrategy.HALTED: (Treatment.LEAVE_STOPPED, "Halted: its owner wants it stopped"),
    RunStrategy.WAIT_AS_RECEIVER: (
        Treatment.LEAVE_STOPPED,
        "WaitAsReceiver: it waits for an incoming migration",
    ),
    RunStrategy.NONE: (
        Treatment.LEAVE_STOPPED,
        "no VirtualMachine owns it: nobody would make it anew",
    ),
}


def make_plan(inventory: Inventory, policy: Policy, subject: Subject) -> Plan:
    """Return the plan that ``policy`` yields for one VM now."""
    vm, vmi = inventory.vm(subject), inventory.vmi(subject)
    strategy = vm.run_strategy if vm is not None else RunStrategy.NONE
    treatment, why = _BY_STRATEGY[strategy]
    if strategy is RunStrategy.MANUAL and policy.start_manual:
        treatment = Treatment.RESTART_BY_START
        why = f"Manual: policy {policy.name} starts it (startManual)"
    one = VmPlan(
        vm=subject,
        vmi_uid=vmi.uid if vmi is not None else "",
        run_strategy=strategy.value,
        treatment=treatment,
        why=why,
        claims=vmi.claims if vmi is not None else (),
    )
    return Plan(
        policy=policy.name,
        policy_hash=policy.content_hash,
        verdicts=policy.verdicts,
        steps=policy.steps,
        required_proof=(),
        fence_method="",
        vms=(one,),
    )


# --- how a step is tried --------------------------------------------------------------------------


def options(policy: Policy | None, step: str) -> StepOptions:
    """Return how this step is to be tried: the next one follows, where the policy does not say."""
    if policy is not None and step in policy.step_options:
        return policy.step_options[step]
    return StepOptions(on_failure=OnFailure.NEXT)


def tries(policy: Policy | None, step: str) -> int:
    """Return how often a step is to take effect before the next one follows."""
    return options(policy, step).attempts or _TRIES.get(step, 1)


def failures(context: Context, policy: Policy | None, step: str) -> int:
    """Return how many tries of a step may fail to take effect at all."""
    if step == "snapshot":
        return tries(policy, step)  # one takes minutes, and the VM is down all the while
    return max(context.settings.steps.attempts, tries(policy, step))


def timeout_s(context: Context, policy: Policy | None, step: str) -> float:
    """Return how long the VM is given to be well again after a step."""
    asked_s = options(policy, step).timeout_s
    remedies = context.settings.remedies
    defaults = {
        "soft-reboot": remedies.soft_reboot_s,
        "restart": remedies.restart_s,
        "force-stop": remedies.force_stop_s,
        "unpause": remedies.unpause_s,
        "snapshot": remedies.snapshot_s,
    }
    return asked_s if asked_s is not None else defaults.get(step, 0.0)


def deadline_s(context: Context, policy: Policy | None, step: str) -> float:
    """Return how long the action of a step may take."""
    if step == "snapshot":
        return timeout_s(context, policy, step)
    return context.settings.remedies.call_deadline_s


# --- what a step means now ------------------------------------------------------------------------


def work_for(
    context: Context, incident: VmIncident, step: str, policy: Policy
) -> RemedyWork | StartVm | str:
    """Return what a step does about this VM as it is now, or why it does not apply."""
    inventory, subject = context.inventory, incident.subject
    vm, vmi = inventory.vm(subject), inventory.vmi(subject)
    match step:
        case "soft-reboot":
            return _soft_reboot(incident, vmi)
        case "unpause":
            return _unpause(vmi)
        case "snapshot":
            return _snapshot(incident, vm, vmi)
        case "restart":
            return _restart(vm, vmi, policy, forced=False)
        case "force-stop":
            pods = inventory.pods_of(subject)
            return _kill(incident, vmi, pods) or _force(vm, vmi, policy)
        case _:
            return f"{step} is nothing that can be done about a VM"


def ends_own_stop(context: Context, incident: VmIncident, policy: Policy) -> bool:
    """Whether the step that is due only brings a stop to its end that we have asked for."""
    step, vmi = incident.next_step, context.inventory.vmi(incident.subject)
    if step != "force-stop" or vmi is None or vmi.uid != incident.run_uid:
        return False
    if not (incident.done.get("restart") or incident.done.get(step)):
        return False
    return isinstance(work_for(context, incident, step, policy), KillPod)


def _soft_reboot(incident: VmIncident, vmi: VmiFacts | None) -> SoftReboot | str:
    if vmi is None or vmi.phase != "Running" or vmi.deleting:
        return "no guest runs that could obey"
    if vmi.paused:
        return f"the guest stands still ({vmi.paused}): it could not obey"
    return SoftReboot(
        namespace=vmi.namespace,
        vmi=vmi.name,
        vmi_uid=vmi.uid,
        node=vmi.node,
        agent_lost=incident.agent and not vmi.agent_connected,
    )


def _unpause(vmi: VmiFacts | None) -> Unpause | str:
    if vmi is None or not vmi.paused or vmi.deleting:
        return "it is not paused"
    if vmi.paused.startswith("PausedBy"):
        return f"somebody paused it ({vmi.paused})"
    return Unpause(
        namespace=vmi.namespace,
        vmi=vmi.name,
        vmi_uid=vmi.uid,
        node=vmi.node,
        reason=vmi.paused,
    )


def _snapshot(incident: VmIncident, vm: VmFacts | None, vmi: VmiFacts | None) -> Snapshot | str:
    if vm is None:
        return "no VirtualMachine owns it: KubeVirt makes snapshots of those only"
    if vmi is not None and not vmi.claims:
        return "it has no persistent disk: there is nothing to keep"
    number = incident.attempts.get("snapshot", 0) + 1
    # Two journals may both have an incident 7; no two VMs have the same beginning of a uid by
    # chance, and one VM has no two incidents at once.
    name = f"remediator-{vm.uid[:8]}-{incident.id}-{number}"
    node = vmi.node if vmi is not None else ""
    return Snapshot(namespace=vm.namespace, vm=vm.name, vm_uid=vm.uid, name=name, node=node)


def _restart(
    vm: VmFacts | None, vmi: VmiFacts | None, policy: Policy, *, forced: bool
) -> RestartVm | StartVm | str:
    if vm is None or _BY_STRATEGY[vm.run_strategy][0] is Treatment.LEAVE_STOPPED:
        return _BY_STRATEGY[vm.run_strategy if vm is not None else RunStrategy.NONE][1]
    if vm.deleting:
        return "its owner deletes it"
    if vmi is not None and vmi.deleting:
        return "it is being stopped already"
    ended = vmi is None or vmi.phase in FINAL_PHASES
    if ended and vm.run_strategy is RunStrategy.MANUAL:
        if policy.start_manual:
            return StartVm(namespace=vm.namespace, vm=vm.name, vm_uid=vm.uid)
        return "Manual: it has ended, and only a person starts it"
    if vmi is None:
        return f"nothing of it is left to restart; {_BY_STRATEGY[vm.run_strategy][1]}"
    return RestartVm(
        namespace=vm.namespace,
        vm=vm.name,
        vm_uid=vm.uid,
        vmi_uid=vmi.uid,
        node=vmi.node,
        forced=forced,
    )


def _force(vm: VmFacts | None, vmi: VmiFacts | None, policy: Policy) -> RestartVm | StartVm | str:
    if vmi is not None and vmi.deleting:
        return "no container of it runs any more: a finalizer holds what is left"
    return _restart(vm, vmi, policy, forced=True)


def _kill(incident: VmIncident, vmi: VmiFacts | None, pods: Sequence[PodFacts]) -> KillPod | None:
    """Return the end of a launcher pod whose VM is on its way out, and does not get there."""
    going = list(ending(list(pods), vmi))
    if not going and vmi is not None and vmi.deleting:
        going = [each for each in pods if each.phase not in FINAL_PHASES]
    if not going:
        return None
    pod = going[0]
    return KillPod(
        namespace=pod.namespace,
        vmi=incident.subject.name,
        pod=pod.name,
        pod_uid=pod.uid,
        node=pod.node,
        grace_s=SHORTEST_GRACE_S if pod.deleting else None,
    )
