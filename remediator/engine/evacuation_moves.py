"""What is begun for one VM of a node that is being emptied: a migration, a restart, or nothing."""

from __future__ import annotations

from remediator.engine import evacuation_limits, evacuation_plan, safeguards
from remediator.engine.chain import DecisionKind, VmPlan
from remediator.engine.context import Context
from remediator.engine.evacuation_plan import Move
from remediator.engine.incidents import Incident, Stage, VmProgress
from remediator.engine.model import Action, Migrate, NodeFacts, RestartVm, Subject, VmiFacts, Work
from remediator.engine.rules import Policy

# Before the next migration of a VM: KubeVirt's own back-off, 20 s doubling.
_RETRY_S, _RETRY_CAP_S = 20.0, 300.0


def policy_of(context: Context, incident: Incident) -> Policy | None:
    """Return the policy of the plan, as it reads now; None where it was taken away."""
    name = incident.plan.policy if incident.plan is not None else ""
    return next((each for each in context.policies if each.name == name), None)


def note(
    context: Context, incident: Incident, progress: VmProgress, stage: Stage, why: str
) -> None:
    """Record how far a VM has come."""
    context.record(DecisionKind.PROGRESS, progress.plan.vm, why, incident=incident, stage=stage)


def may_act(context: Context, progress: VmProgress) -> bool:
    """Whether something may be begun for a VM now: nothing is under way, no wait is left."""
    if str(progress.plan.vm) in context.state.busy:
        return False
    until = progress.retry_at
    if progress.stage is Stage.WAITING and progress.attempts:
        delay_s = min(_RETRY_CAP_S, _RETRY_S * 2.0 ** (progress.attempts - 1))
        until = max(until, progress.since_at + delay_s)
    if context.now < until:
        context.wake_at(until)
        return False
    return True


def begin(context: Context, incident: Incident, node: NodeFacts, progress: VmProgress) -> None:
    """Migrate a VM, or do what the policy says where that cannot be."""
    policy, vm = policy_of(context, incident), progress.plan.vm
    if _others_move_it(context, vm):
        return
    if progress.restarts:
        _leave(context, incident, progress, "its restart failed")
        return
    plan = evacuation_plan.plan_vm(context, policy, node, vm)
    tried = progress.attempts >= _attempts(context, policy)
    if plan.treatment == Move.MIGRATE and not tried:
        if evacuation_limits.load(context, node.name).places and _granted(
            context, incident, node, progress
        ):
            _migrate(context, incident, node, progress)
        return
    why = plan.why
    if tried:
        why = failures(progress)
        if policy is not None and evacuation_plan.restarts(policy):
            refusal = evacuation_plan.why_not_restarted(context, vm)
            if not refusal:
                plan = _restarted(plan, f"{why}: it is restarted elsewhere")
            else:
                why = f"{why}; {refusal}"
    if _waits(context, node, progress):
        return
    if plan.treatment == Move.RESTART:
        if _granted(context, incident, node, progress):
            _restart(context, incident, progress, plan.why)
        return
    _leave(context, incident, progress, why)


def failures(progress: VmProgress) -> str:
    """Say how often a VM could not be moved, and why the last time."""
    many = f"{progress.attempts} migration{'s' * (progress.attempts > 1)} of it failed"
    return f"{many}, last: {progress.last}" if progress.last else many


def _restarted(plan: VmPlan, why: str) -> VmPlan:
    return VmPlan(
        vm=plan.vm,
        vmi_uid=plan.vmi_uid,
        run_strategy=plan.run_strategy,
        treatment=Move.RESTART,
        why=why,
        claims=plan.claims,
    )


def _attempts(context: Context, policy: Policy | None) -> int:
    asked = policy.options("migrate").attempts if policy is not None else None
    return context.settings.evacuation.attempts if asked is None else asked


def _others_move_it(context: Context, vm: Subject) -> bool:
    """Whether somebody else's migration of it is under way: its end is waited for."""
    return bool(context.inventory.migrations_of((vm.namespace, vm.name)))


def _waits(context: Context, node: NodeFacts, progress: VmProgress) -> bool:
    """Whether what is in the way may pass by itself, and has not been waited for long enough."""
    obstacle = evacuation_plan.obstacle_to(context, node, progress.plan.vm)
    if obstacle is None or obstacle.lasting:
        return False
    until = progress.since_at + context.settings.evacuation.patience_s
    if context.now >= until:
        return False
    context.wake_at(until)
    return True


def _granted(context: Context, incident: Incident, node: NodeFacts, progress: VmProgress) -> bool:
    """Ask the guards of VMs; a refusal is recorded once."""
    policy, vm = policy_of(context, incident), progress.plan.vm
    rows = safeguards.ask_vm(context, vm, policy, incident.plan, node=node.name)
    against = safeguards.withheld(rows)
    if not against:
        return True
    key = f"guards:{','.join(row.guard for row in against)}"
    ends = [row.until for row in against if row.until is not None]
    if ends:
        context.wake_at(max(ends))
    if progress.answered != key:
        context.record(
            DecisionKind.REFUSED,
            vm,
            "; ".join(f"{row.guard}: {row.why}" for row in against),
            incident=incident,
            guards=rows,
            stage=key,
        )
    return False


def _leave(context: Context, incident: Incident, progress: VmProgress, why: str) -> None:
    note(context, incident, progress, Stage.LEFT, f"it stays: {why}")


def _migrate(context: Context, incident: Incident, node: NodeFacts, progress: VmProgress) -> None:
    vm = progress.plan.vm
    vmi = context.inventory.vmi(vm)
    pod = _source_pod(context, vm, node.name)
    if vmi is None or not pod[0]:
        return  # the picture is between two states: the next look is soon
    attempt = progress.attempts + 1
    # After a failure KubeVirt chooses: the node that we knew may have been the reason.
    target = evacuation_plan.better_node(context, node, vm) if attempt == 1 else ""
    work = Migrate(
        node=node.name,
        node_uid=node.uid,
        namespace=vm.namespace,
        vmi=vm.name,
        vmi_uid=vmi.uid,
        pod=pod[0],
        pod_uid=pod[1],
        # KubeVirt keeps those that have ended: under the name of one, none would be made.
        migration=f"remediator-{incident.id}-{progress.earlier + attempt}-{vm.name}",
        target=target,
    )
    why = f"move it off {node.name} while it runs"
    if target:
        why += f", to {target}, which has its data at hand"
    earlier = progress.earlier
    start(context, incident, vm, work, why, step="migrate", attempt=attempt, earlier=earlier)


def _source_pod(context: Context, vm: Subject, node: str) -> tuple[str, str]:
    """Return name and UID of the pod that runs a VM on this node; empty where none is known."""
    running = [
        pod
        for pod in context.inventory.pods_of(vm)
        if pod.node == node and pod.phase == "Running" and not pod.deleting
    ]
    return (running[0].name, running[0].uid) if len(running) == 1 else ("", "")


def _restart(context: Context, incident: Incident, progress: VmProgress, why: str) -> None:
    vm = progress.plan.vm
    owner, vmi = context.inventory.vm(vm), context.inventory.vmi(vm)
    if owner is None or vmi is None:
        return  # follow() notes it
    work = _restart_work(vm, owner.uid, vmi, incident)
    attempt, earlier = progress.restarts + 1, progress.earlier
    start(context, incident, vm, work, why, step="restart", attempt=attempt, earlier=earlier)


def _restart_work(vm: Subject, vm_uid: str, vmi: VmiFacts, incident: Incident) -> RestartVm:
    return RestartVm(
        namespace=vm.namespace,
        vm=vm.name,
        vm_uid=vm_uid,
        vmi_uid=vmi.uid,
        node=incident.subject.name,
    )


def start(
    context: Context,
    incident: Incident,
    vm: Subject,
    work: Work,
    why: str,
    *,
    step: str,
    attempt: int,
    earlier: int = 0,
) -> None:
    """Record that an action on a VM is begun, and ask for it.

    ``earlier``: how many of its kind plans before this one began; no two have one id.
    """
    action = Action(
        id=f"{incident.id}/{step}/{vm.namespace}/{vm.name}/{earlier + attempt}",
        incident=incident.id,
        subject=vm,
        attempt=attempt,
        deadline_s=context.settings.evacuation.deadline_s,
        work=work,
    )
    context.start(action, why)
