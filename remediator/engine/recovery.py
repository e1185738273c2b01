"""Bringing the VMs of a proven dead node back, one launcher pod at a time.

Which of them is next, and when, ``pacing`` says.
"""

from __future__ import annotations

from remediator.engine import fencing, safeguards
from remediator.engine.chain import DecisionKind, VmPlan
from remediator.engine.context import Context
from remediator.engine.incidents import (
    BOOTING_STAGES,
    DONE_STAGES,
    Incident,
    InvariantError,
    Stage,
    Trigger,
    VmProgress,
)
from remediator.engine.inventory import vm_of
from remediator.engine.model import (
    Action,
    ForceStop,
    PodFacts,
    RunStrategy,
    StartVm,
    Subject,
    VmiFacts,
    Work,
)
from remediator.engine.planner import Treatment, plan_vm, recoverable
from remediator.engine.start_queue import retry_delay_s


def follow(context: Context, incident: Incident) -> None:
    """Note how far each VM has come. Reads the picture only, so it also runs while in doubt."""
    if not _is_back(context, incident):
        _adopt_late_pods(context, incident)
    for progress in list(incident.vms.values()):
        _follow_one(context, incident, progress)


def go_on(context: Context, incident: Incident) -> None:
    """Do what needs no place; end the incident when every VM has come to its end."""
    context.pace.due = True
    for progress in incident.vms.values():
        stopped = progress.plan.treatment == Treatment.LEAVE_STOPPED
        if stopped and progress.stage is Stage.WAITING and _may_start(context, progress):
            _stop(context, incident, progress)  # boots nothing
    for progress in incident.vms.values():
        if _wants_start(progress) and _may_start(context, progress):
            _start_vm(context, incident, progress)
    if all(progress.stage in DONE_STAGES for progress in incident.vms.values()):
        _resolve(context, incident)


def waiting(context: Context, incident: Incident) -> list[tuple[VmProgress, PodFacts]]:
    """Return the VMs that wait for their turn, each with the dead launcher pod that holds it.

    None of an incident that a person has paused or cancelled, nor a VM that is paused itself.
    """
    found: list[tuple[VmProgress, PodFacts]] = []
    if safeguards.held(context, incident):
        return found
    for progress in incident.vms.values():
        if progress.stage is not Stage.WAITING or str(progress.plan.vm) in context.state.busy:
            continue
        if safeguards.paused(context, progress.plan.vm):
            continue
        if progress.plan.treatment != Treatment.LEAVE_STOPPED:
            pods = _old_pods(context, incident, progress)
            if pods:
                found.append((progress, pods[0]))
    return found


def start(context: Context, incident_id: str, vm: Subject, why: str) -> bool:
    """Start a VM whose turn has come: delete its dead pod. False where that is over by now."""
    incident = context.state.incidents.get(incident_id)
    progress = incident.vms.get(str(vm)) if incident is not None else None
    if incident is None or progress is None or progress.stage is not Stage.WAITING:
        return False
    return _stop(context, incident, progress, why)


def _may_start(context: Context, progress: VmProgress) -> bool:
    if str(progress.plan.vm) in context.state.busy:
        return False
    if safeguards.paused(context, progress.plan.vm):
        return False  # it, or its namespace: a pause of its host holds the whole incident
    if context.now < progress.retry_at:
        context.wake_at(progress.retry_at)
        return False
    return True


def _not_ours(context: Context, progress: VmProgress) -> tuple[Stage, str] | None:
    """Leave a VM that somebody has declared not to be ours, where nothing was begun yet."""
    vm = progress.plan.vm
    why = safeguards.ignored(context, vm) or safeguards.vm_hands_off(context, vm)
    return (Stage.LEFT, f"left as it is: {why}") if why and not progress.started_at else None


def _adopt_late_pods(context: Context, incident: Incident) -> None:
    """Take in launcher pods that were bound to the dead node after the plan was made."""
    for pod in context.inventory.pods_on(incident.subject.name):
        subject = vm_of(pod)
        if not recoverable(context.inventory, pod) or str(subject) in incident.vms:
            continue
        vmi = context.inventory.vmi(subject)
        vm = plan_vm(context.inventory, None, subject, vmi, incident.subject.name)
        why, stage = "recovered too", Stage.WAITING
        if not _proof_covers(context, incident, vm):
            why, stage = "the policy does not take this proof for its disks: left", Stage.LEFT
        context.record(
            DecisionKind.PROGRESS,
            subject,
            f"pod {pod.name} was bound to the dead node late: {why}",
            incident=incident,
            vm=vm,
            stage=stage,
        )


def _proof_covers(context: Context, incident: Incident, vm: VmPlan) -> bool:
    """Whether the policy of the plan takes the incident's proof for the disks of this VM, too."""
    plan, proof = incident.plan, incident.proof
    policy = next((each for each in context.policies if plan and each.name == plan.policy), None)
    if policy is None or proof is None:
        return True  # the policy is gone since; the plan was made by what it said
    return proof.kind in fencing.required_proof(context.inventory, policy, (vm,))


def _is_back(context: Context, incident: Incident) -> bool:
    """Whether the host runs another boot by now, or another machine has taken its name.

    Then its kubelet ends the old pods by itself, and its pods must not be touched any more: one
    that was bound before our taint may run there now.
    """
    node = context.inventory.nodes.get(incident.subject.name)
    if node is None:
        return False
    return node.uid != incident.node_uid or node.boot_id not in ("", incident.boot_id)


def _old_pods(context: Context, incident: Incident, progress: VmProgress) -> list[PodFacts]:
    """Return the VM's launcher pods on the dead node that were not deleted yet."""
    if _is_back(context, incident):
        return []
    return [
        pod
        for pod in context.inventory.pods_of(progress.plan.vm)
        if pod.node == incident.subject.name
        and recoverable(context.inventory, pod)
        and pod.uid not in progress.stopped
    ]


def _follow_one(context: Context, incident: Incident, progress: VmProgress) -> None:
    if progress.stage in DONE_STAGES or str(progress.plan.vm) in context.state.busy:
        return
    stage, why = _not_ours(context, progress) or _observe(context, incident, progress)
    if stage is progress.stage or (progress.stage is Stage.STUCK and stage not in DONE_STAGES):
        return
    decision = context.record(
        DecisionKind.PROGRESS,
        progress.plan.vm,
        why,
        incident=incident,
        stage=stage,
        retry_at=context.now + _next_try_s(context, progress) if stage is Stage.FAILED else None,
    )
    if stage is Stage.STUCK:
        context.notice(decision)


def _observe(context: Context, incident: Incident, progress: VmProgress) -> tuple[Stage, str]:
    """Return the stage that the picture shows for this VM, and the sentence for the record."""
    plan, inventory = progress.plan, context.inventory
    vm, vmi = inventory.vm(plan.vm), inventory.vmi(plan.vm)
    if plan.run_strategy and vm is None and vmi is None:
        return Stage.GONE, "its VirtualMachine was deleted by its owner"
    if progress.stage is Stage.WAITING and _is_back(context, incident):
        return Stage.LEFT, "the host is back before its turn: Kubernetes restarts it by itself"
    if _old_pods(context, incident, progress):
        return Stage.WAITING, "a launcher pod of it is still on the dead node"
    if plan.treatment == Treatment.LEAVE_STOPPED:
        return Stage.LEFT, f"left stopped, {plan.why}"
    if vm is not None and vm.run_strategy is RunStrategy.HALTED:
        return Stage.LEFT, "its owner has stopped it meanwhile"
    return _observe_again(context, incident, progress, vmi)


def _observe_again(
    context: Context, incident: Incident, progress: VmProgress, vmi: VmiFacts | None
) -> tuple[Stage, str]:
    """Return how far a VM is whose dead pods are gone, and which is to run again."""
    plan = progress.plan
    if progress.stage is Stage.FAILED and not _tries_again(context, plan.vm, vmi):
        return Stage.FAILED, "waits for its next try"
    if vmi is not None and _elsewhere(vmi, plan, incident):
        return _observe_moved(context, incident, progress, vmi)
    stopped = plan.run_strategy == RunStrategy.RERUN_ON_FAILURE and vmi is None
    if stopped and _is_late(context, progress):
        return Stage.LEFT, "KubeVirt made no new VMI: it was stopped meanwhile, by its owner"
    return _timed(context, progress, _at_least_stopped(progress), "its old pod is gone")


def _observe_moved(
    context: Context, incident: Incident, progress: VmProgress, vmi: VmiFacts
) -> tuple[Stage, str]:
    heir = context.state.incident_on(f"node/{vmi.node}")
    if heir is not None and heir is not incident and str(progress.plan.vm) in heir.vms:
        return Stage.GONE, f"its new host {vmi.node} was lost too: {heir.id} goes on with it"
    return _observe_new(context, progress, vmi)


def _observe_new(context: Context, progress: VmProgress, vmi: VmiFacts) -> tuple[Stage, str]:
    if vmi.phase == "Failed" and progress.stage not in (Stage.STUCK, Stage.WAITING):
        return _failed(context, progress)
    if vmi.phase in ("Failed", "Succeeded"):
        return _timed(context, progress, Stage.STOPPED, "its new VMI has ended: KubeVirt goes on")
    if vmi.phase != "Running" and _is_held(context, progress.plan.vm, vmi):
        return Stage.REQUESTED, "a new VMI was made"  # it cannot be late: we let it wait
    if vmi.phase != "Running":
        return _timed(context, progress, Stage.REQUESTED, "a new VMI was made")
    if vmi.agent_connected:
        return Stage.UP, f"up on {vmi.node}: its guest agent answers"
    if progress.stage is Stage.STUCK and vmi.ready:
        return Stage.UP, f"runs on {vmi.node} after all"
    if progress.stage is Stage.RUNNING and not progress.plan.agent:
        settled_at = progress.since_at + context.settings.pacing.settle_s
        if context.now >= settled_at:
            return Stage.UP, f"up on {vmi.node}: running for {context.settings.pacing.settle_s:g} s"
        context.wake_at(settled_at)
    return _timed(context, progress, Stage.RUNNING, f"runs on {vmi.node}; its guest boots")


def _failed(context: Context, progress: VmProgress) -> tuple[Stage, str]:
    pacing, failures = context.settings.pacing, progress.failures + 1
    if failures >= pacing.retries:
        return Stage.STUCK, f"its start failed {failures} times; still watched"
    delay_s = _next_try_s(context, progress)
    why = f"its new VMI has failed: its place is free, the next try is not before {delay_s:g} s"
    return Stage.FAILED, why


def _next_try_s(context: Context, progress: VmProgress) -> float:
    pacing = context.settings.pacing
    return retry_delay_s(progress.failures + 1, pacing.retry_after_s, pacing.retry_cap_s)


def _tries_again(context: Context, vm: Subject, vmi: VmiFacts | None) -> bool:
    """Whether a VM whose start has failed has a new VMI whose pod was let through."""
    if vmi is None or vmi.phase in ("Failed", "Succeeded"):
        return False
    return any(
        pod.vmi_uid in ("", vmi.uid) and not pod.gated and not pod.deleting
        for pod in context.inventory.pods_of(vm)
    )


def _is_held(context: Context, vm: Subject, vmi: VmiFacts) -> bool:
    """Whether a VM's new pod waits behind our gate."""
    pods = context.inventory.pods_of(vm)
    return any(pod.gated and pod.vmi_uid in ("", vmi.uid) for pod in pods)


def _elsewhere(vmi: VmiFacts, plan: VmPlan, incident: Incident) -> bool:
    """Whether this VMI is a new one, or the old one on another node after a migration."""
    return vmi.uid != plan.vmi_uid or vmi.node not in ("", incident.subject.name)


def _at_least_stopped(progress: VmProgress) -> Stage:
    return Stage.STARTING if progress.stage is Stage.STARTING else Stage.STOPPED


def _timed(context: Context, progress: VmProgress, stage: Stage, why: str) -> tuple[Stage, str]:
    """Return ``stage``, or STUCK when the restart has taken longer than it may."""
    timeout_s = context.settings.pacing.start_timeout_s
    if progress.started_at and progress.stage in BOOTING_STAGES:
        if _is_late(context, progress):
            why = f"not up {timeout_s:g} s after its restart began{_held_up(context, progress)}"
            return Stage.STUCK, f"{why}; still watched"
        context.wake_at(progress.started_at + timeout_s)
    return stage, why


def _is_late(context: Context, progress: VmProgress) -> bool:
    if not progress.started_at:
        return False
    return context.now >= progress.started_at + context.settings.pacing.start_timeout_s


def _held_up(context: Context, progress: VmProgress) -> str:
    """Say what visibly keeps a VM from starting: a volume that another node still holds."""
    inventory = context.inventory
    vmi = inventory.vmi(progress.plan.vm)
    names = {
        volume.name
        for volume in inventory.volumes_of(progress.plan.vm.namespace, progress.plan.claims)
        if volume.access_modes == ("ReadWriteOnce",)
    }
    for held in inventory.attachments.values():
        if held.volume in names and held.attached and (vmi is None or held.node != vmi.node):
            return f": its volume {held.volume} is still attached to {held.node}"
    return ""


def _stop(context: Context, incident: Incident, progress: VmProgress, turn: str = "") -> bool:
    """Delete the VM's old launcher pod; False where there is none left to delete."""
    pods = _old_pods(context, incident, progress)
    proof = incident.proof
    if not pods or proof is None:
        return False  # follow() notes it
    work = ForceStop(
        node=incident.subject.name,
        node_uid=incident.node_uid,
        namespace=pods[0].namespace,
        vmi=progress.plan.vm.name,
        pod=pods[0].name,
        pod_uid=pods[0].uid,
        proof=proof,
    )
    why = progress.plan.why
    if progress.plan.treatment == Treatment.LEAVE_STOPPED:
        why = f"only its dead pod is removed; {why}"
    elif turn:
        why = f"{why}; {turn}"
    _start(context, incident, progress, "force-stop", work, why)
    return True


def _wants_start(progress: VmProgress) -> bool:
    return progress.plan.treatment == Treatment.RESTART_BY_START and progress.stage is Stage.STOPPED


def _start_vm(context: Context, incident: Incident, progress: VmProgress) -> None:
    vm = context.inventory.vm(progress.plan.vm)
    if vm is None:
        return  # follow() notes it
    work = StartVm(namespace=vm.namespace, vm=vm.name, vm_uid=vm.uid, node=incident.subject.name)
    _start(context, incident, progress, "start", work, progress.plan.why)


def _start(
    context: Context,
    incident: Incident,
    progress: VmProgress,
    step: str,
    work: Work,
    why: str,
) -> None:
    steps, subject = context.settings.steps, progress.plan.vm
    attempt = progress.attempts + 1
    action = Action(
        id=f"{incident.id}/{step}/{subject.namespace}/{subject.name}/{attempt}",
        incident=incident.id,
        subject=subject,
        attempt=attempt,
        deadline_s=steps.force_stop_deadline_s if step == "force-stop" else steps.start_deadline_s,
        work=work,
    )
    context.start(action, why)


def _resolve(context: Context, incident: Incident) -> None:
    by_stage: dict[Stage, list[Subject]] = {stage: [] for stage in DONE_STAGES}
    for progress in incident.vms.values():
        by_stage[progress.stage].append(progress.plan.vm)
    if incident.proof is None:
        raise InvariantError(f"{incident.id} is recovered without proof")
    total = len(incident.vms)
    parts = [
        f"{len(by_stage[Stage.UP])} of {total} {_vms(total)} up again",
        f"{len(by_stage[Stage.LEFT])} left as their run strategy or owner says",
        f"{len(by_stage[Stage.GONE])} gone or recovered elsewhere",
    ]
    shown = [part for part in parts if not part.startswith("0 ")] or ["no VM was on it"]
    why = (
        f"{', '.join(shown)}, {context.now - incident.opened_at:.1f} s after the first suspicion; "
        f"{_what_of_the_node(context, incident)}"
    )
    context.record(
        DecisionKind.RESOLVED,
        incident.subject,
        why,
        incident=incident,
        trigger=Trigger.RECOVERED,
    )


def _vms(count: int) -> str:
    return "VM is" if count == 1 else "VMs are"


def _what_of_the_node(context: Context, incident: Incident) -> str:
    name = incident.subject.name
    if name not in context.inventory.nodes:
        return f"the Node object of {name} is gone"
    if name not in context.state.residues:
        return f"{name} is back and has lost its taints"
    if _is_back(context, incident):
        return f"{name} is back in another boot and loses its taints next"
    return f"{name} stays tainted until it is back in another boot"
