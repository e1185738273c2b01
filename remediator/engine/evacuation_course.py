"""The VMs of a node that is being emptied, one by one: begun, watched, given up, left."""

from __future__ import annotations

from remediator.engine import evacuation_limits, evacuation_plan, safeguards
from remediator.engine.chain import DecisionKind, VmPlan
from remediator.engine.context import Context
from remediator.engine.evacuation_plan import Move
from remediator.engine.flights import Flight
from remediator.engine.incidents import DONE_STAGES, Incident, Residue, Stage, VmProgress
from remediator.engine.model import (
    Action,
    CancelMigration,
    Migrate,
    NodeFacts,
    RestartVm,
    Subject,
    VmiFacts,
    Work,
)
from remediator.engine.rules import Policy

# The end of a migration and the VMI's new node come by two watches: so long they may be apart.
_SETTLE_S = 5.0
# Before the next migration of a VM: KubeVirt's own back-off, 20 s doubling.
_RETRY_S, _RETRY_CAP_S = 20.0, 300.0
_OURS_IN_FLIGHT = (Stage.MIGRATING, Stage.CANCELLING)


def policy_of(context: Context, incident: Incident) -> Policy | None:
    """Return the policy of the plan, as it reads now; None where it was taken away."""
    name = incident.plan.policy if incident.plan is not None else ""
    return next((each for each in context.policies if each.name == name), None)


# --- what the picture shows -----------------------------------------------------------------------


def follow(context: Context, incident: Incident, node: NodeFacts | None) -> None:
    """Note how far each VM has come, and take in those that came after the plan was made."""
    if node is not None:
        _adopt(context, incident, node)
    for progress in list(incident.vms.values()):
        if progress.stage in DONE_STAGES or str(progress.plan.vm) in context.state.busy:
            continue
        found = _observe(context, incident, progress)
        if found is not None and found[0] is not progress.stage:
            _note(context, incident, progress, *found)


def _note(
    context: Context, incident: Incident, progress: VmProgress, stage: Stage, why: str
) -> None:
    context.record(DecisionKind.PROGRESS, progress.plan.vm, why, incident=incident, stage=stage)


def _adopt(context: Context, incident: Incident, node: NodeFacts) -> None:
    policy = policy_of(context, incident)
    for vm in evacuation_plan.vms_on(context.inventory, node.name):
        known = incident.vms.get(str(vm))
        if known is not None and known.stage not in (Stage.MOVED, Stage.UP, Stage.GONE):
            continue
        context.record(
            DecisionKind.PROGRESS,
            vm,
            "found on the node after the plan was made",
            incident=incident,
            vm=evacuation_plan.plan_vm(context, policy, node, vm),
            stage=Stage.WAITING,
        )


def _observe(
    context: Context, incident: Incident, progress: VmProgress
) -> tuple[Stage, str] | None:
    """Return the stage that the picture shows for a VM, and the sentence for it, if any."""
    vm, here, inventory = progress.plan.vm, incident.subject.name, context.inventory
    vmi = inventory.vmi(vm)
    restarted = progress.stage is Stage.STARTING
    if vmi is not None and vmi.node not in ("", here) and vmi.phase == "Running":
        return (Stage.UP if restarted else Stage.MOVED), f"runs on {vmi.node}"
    if vmi is None and inventory.vm(vm) is None and not inventory.pods_of(vm):
        return Stage.GONE, "it was deleted by its owner"
    if restarted:
        limit_s = context.settings.evacuation.restarted_within_s
        if context.now < progress.since_at + limit_s:
            context.wake_at(progress.since_at + limit_s)
            return None
        return Stage.LEFT, f"restarted, and not running elsewhere after {limit_s:g} s"
    if vm not in evacuation_plan.vms_on(inventory, here) and vmi is None:
        return Stage.GONE, "it does not run any more"
    return None


# --- what is to be done ---------------------------------------------------------------------------


def go_on(context: Context, incident: Incident, node: NodeFacts) -> None:
    """Give up what takes too long; begin what the limits allow; leave what cannot be moved."""
    for progress in list(incident.vms.values()):
        _attend(context, incident, progress, evacuation_plan.source_asleep(context, node))
    for progress in list(incident.vms.values()):
        if progress.stage is Stage.WAITING and _may_act(context, progress):
            _begin(context, incident, node, progress)


def wind_down(context: Context, incident: Incident) -> bool:
    """Take back what has not begun to copy, see the rest to its end; True when nothing is left."""
    left = False
    for progress in list(incident.vms.values()):
        if str(progress.plan.vm) in context.state.busy:
            left = True
        elif progress.stage in _OURS_IN_FLIGHT:
            left = True
            flight = _flight(context, progress)
            copying = flight is not None and flight.stretch == "copying"
            if progress.stage is Stage.MIGRATING and not copying:
                _take_back(context, incident, progress, "it is not needed any more")
            else:
                _attend(context, incident, progress)
    return not left


def _attend(context: Context, incident: Incident, progress: VmProgress, asleep: str = "") -> None:
    """Look after a migration of ours: end it where it takes too long, or note that it failed."""
    if str(progress.plan.vm) in context.state.busy:
        return
    if progress.stage is Stage.CANCELLING and _may_act(context, progress):
        _cancel(context, incident, progress, "its migration is still there")
    elif progress.stage is Stage.MIGRATING:
        flight = _flight(context, progress)
        copying = flight is not None and flight.stretch == "copying"
        why = _given_up(context, incident, progress)
        if asleep and not copying:
            why = asleep  # it would hold one of KubeVirt's few places for ever
        if why:
            _take_back(context, incident, progress, why)


def _may_act(context: Context, progress: VmProgress) -> bool:
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


def _flight(context: Context, progress: VmProgress) -> Flight | None:
    """Return the migration of a VM that is in flight now."""
    vm = progress.plan.vm
    flight = context.flights.of(vm)
    if flight is None or not context.inventory.migrations_of((vm.namespace, vm.name)):
        return None
    return flight


def _given_up(context: Context, incident: Incident, progress: VmProgress) -> str:
    """Return why a migration is to be ended, or has ended without moving the VM; "" where not."""
    settings, policy = context.settings.evacuation, policy_of(context, incident)
    total_s = policy.options("migrate").timeout_s if policy is not None else None
    if total_s is not None and context.now >= progress.since_at + total_s:
        return f"not moved within {total_s:g} s, as the policy asks"
    flight = _flight(context, progress)
    if flight is not None:
        limits = {
            "queued": (settings.queued_s, "KubeVirt had no place for it"),
            "preparing": (settings.prepare_s, f"its copy did not begin ({flight.phase})"),
            "copying": (settings.copy_s, "its copy does not end"),
        }
        limit_s, what = limits[flight.stretch]
        until = max(flight.since_at, progress.since_at) + limit_s
        why = f"{what} within {limit_s:g} s"
    else:
        past = context.flights.of(progress.plan.vm)
        mine = past is not None and past.seen_at >= progress.since_at
        quiet_since = past.seen_at if past is not None and mine else progress.since_at
        # An evacuation is begun anew by KubeVirt itself; a migration of our own is not.
        again = _is_evacuated(context, incident, progress)
        limit_s = settings.accepted_within_s if again or not mine else _SETTLE_S
        until = quiet_since + limit_s
        why = "its migration failed" if mine else f"KubeVirt began no migration in {limit_s:g} s"
    if context.now >= until:
        return why
    context.wake_at(until if total_s is None else min(until, progress.since_at + total_s))
    return ""


def _is_evacuated(context: Context, incident: Incident, progress: VmProgress) -> bool:
    """Whether KubeVirt was told to move this VM off the node, and still would."""
    vmi = context.inventory.vmi(progress.plan.vm)
    return vmi is not None and vmi.evacuating_from == incident.subject.name


def _take_back(context: Context, incident: Incident, progress: VmProgress, why: str) -> None:
    """End the attempt: cancel what is left of it, or note that nothing is."""
    if _flight(context, progress) is None and not _is_evacuated(context, incident, progress):
        _note(context, incident, progress, Stage.WAITING, why)
    else:
        _cancel(context, incident, progress, why)


def _cancel(context: Context, incident: Incident, progress: VmProgress, why: str) -> None:
    vm = progress.plan.vm
    flight = _flight(context, progress)
    work = CancelMigration(
        node=incident.subject.name,
        namespace=vm.namespace,
        vmi=vm.name,
        vmi_uid=progress.plan.vmi_uid,
        migration=flight.name if flight is not None else "",
        migration_uid=flight.uid if flight is not None else "",
    )
    attempt = progress.cancels + 1
    # One VM may be migrated several times, each with its own cancelling.
    step = f"cancel-migration-{progress.attempts}"
    _start(context, incident, vm, work, why, step=step, attempt=attempt)


def call_back(context: Context, residue: Residue) -> bool:
    """Take back what KubeVirt still does on our word to empty a node that is well; True if any.

    Such things are left where the node was taken for dead in the middle of it.
    """
    found = False
    for vm in residue.evicted:
        vmi = context.inventory.vmi(vm)
        if vmi is None or vmi.node != residue.node or vmi.evacuating_from != residue.node:
            continue
        found = True
        if str(vm) in context.state.busy:
            continue
        flights = context.inventory.migrations_of((vm.namespace, vm.name))
        work = CancelMigration(
            node=residue.node,
            namespace=vm.namespace,
            vmi=vm.name,
            vmi_uid=vmi.uid,
            migration=flights[0].name if flights else "",
            migration_uid=flights[0].uid if flights else "",
        )
        attempt = residue.attempts + 1
        action = Action(
            id=f"{residue.incident}/call-back/{vm.namespace}/{vm.name}/{attempt}",
            incident=residue.incident,
            subject=vm,
            attempt=attempt,
            deadline_s=context.settings.evacuation.deadline_s,
            work=work,
        )
        context.start(action, f"{residue.node} is well: it stays where it is")
    return found


# --- what is begun --------------------------------------------------------------------------------


def _begin(context: Context, incident: Incident, node: NodeFacts, progress: VmProgress) -> None:
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
    _note(context, incident, progress, Stage.LEFT, f"it stays: {why}")


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
        migration=f"remediator-{incident.id}-{attempt}-{vm.name}",
        target=target,
    )
    why = f"move it off {node.name} while it runs"
    if target:
        why += f", to {target}, which has its data at hand"
    _start(context, incident, vm, work, why, step="migrate", attempt=attempt)


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
    _start(context, incident, vm, work, why, step="restart", attempt=progress.restarts + 1)


def _restart_work(vm: Subject, vm_uid: str, vmi: VmiFacts, incident: Incident) -> RestartVm:
    return RestartVm(
        namespace=vm.namespace,
        vm=vm.name,
        vm_uid=vm_uid,
        vmi_uid=vmi.uid,
        node=incident.subject.name,
    )


def _start(
    context: Context,
    incident: Incident,
    vm: Subject,
    work: Work,
    why: str,
    *,
    step: str,
    attempt: int,
) -> None:
    action = Action(
        id=f"{incident.id}/{step}/{vm.namespace}/{vm.name}/{attempt}",
        incident=incident.id,
        subject=vm,
        attempt=attempt,
        deadline_s=context.settings.evacuation.deadline_s,
        work=work,
    )
    context.start(action, why)
