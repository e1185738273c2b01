"""The VMs of a node that is being emptied, one by one: watched, given up, taken back."""

from __future__ import annotations

from remediator.engine import evacuation_moves, evacuation_plan
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.flights import Flight
from remediator.engine.incidents import DONE_STAGES, Incident, Residue, Stage, VmProgress
from remediator.engine.model import Action, CancelMigration, NodeFacts

# The end of a migration and the VMI's new node come by two watches: so long they may be apart.
_SETTLE_S = 5.0
_OURS_IN_FLIGHT = (Stage.MIGRATING, Stage.CANCELLING)


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
            evacuation_moves.note(context, incident, progress, *found)


def _adopt(context: Context, incident: Incident, node: NodeFacts) -> None:
    policy = evacuation_moves.policy_of(context, incident)
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
        if progress.stage is Stage.WAITING and evacuation_moves.may_act(context, progress):
            evacuation_moves.begin(context, incident, node, progress)


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
    if progress.stage is Stage.CANCELLING and evacuation_moves.may_act(context, progress):
        _cancel(context, incident, progress, "its migration is still there")
    elif progress.stage is Stage.MIGRATING:
        flight = _flight(context, progress)
        copying = flight is not None and flight.stretch == "copying"
        why = _given_up(context, incident, progress)
        if asleep and not copying:
            why = asleep  # it would hold one of KubeVirt's few places for ever
        if why:
            _take_back(context, incident, progress, why)


def _flight(context: Context, progress: VmProgress) -> Flight | None:
    """Return the migration of a VM that is in flight now."""
    vm = progress.plan.vm
    flight = context.flights.of(vm)
    if flight is None or not context.inventory.migrations_of((vm.namespace, vm.name)):
        return None
    return flight


def _given_up(context: Context, incident: Incident, progress: VmProgress) -> str:
    """Return why a migration is to be ended, or has ended without moving the VM; "" where not."""
    settings, policy = context.settings.evacuation, evacuation_moves.policy_of(context, incident)
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
        evacuation_moves.note(context, incident, progress, Stage.WAITING, why)
    else:
        _cancel(context, incident, progress, why)


def _cancel(context: Context, incident: Incident, progress: VmProgress, why: str) -> None:
    vm = progress.plan.vm
    flight, vmi = _flight(context, progress), context.inventory.vmi(vm)
    work = CancelMigration(
        node=incident.subject.name,
        namespace=vm.namespace,
        vmi=vm.name,
        # Not the plan's: its guest may run in another instance since.
        vmi_uid=vmi.uid if vmi is not None else progress.plan.vmi_uid,
        migration=flight.name if flight is not None else "",
        migration_uid=flight.uid if flight is not None else "",
    )
    attempt = progress.cancels + 1
    # One VM may be migrated several times, each with its own cancelling.
    step = f"cancel-migration-{progress.earlier + progress.attempts}"
    evacuation_moves.start(context, incident, vm, work, why, step=step, attempt=attempt)


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
