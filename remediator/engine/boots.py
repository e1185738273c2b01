"""Which VMs boot now, whoever started them: each of them holds a place in the pace.

Told from the objects alone, so a new leader knows it as soon as it has its picture; only since when
a VM boots is a cache, which a new leader begins anew.
"""

from __future__ import annotations

from remediator.engine.context import Boot, Context
from remediator.engine.inventory import Key
from remediator.engine.model import PodFacts, Subject, VmiFacts, vm_subject

BEFORE_RUNNING = frozenset({"", "Pending", "Scheduling", "Scheduled"})


def booting(context: Context) -> set[Subject]:
    """Return the VMs that boot as their objects show it, from the start of a pod on."""
    return {vm_subject(*key) for key, boot in context.boots.items() if _holds(boot)}


def expects_agent(context: Context, vm: Subject) -> bool:
    """Whether the guest agent of a VM that is being brought back answered before its host was lost.

    Then it is up when the agent answers again; that it runs for a while says little in a storm.
    """
    found = (incident.vms.get(str(vm)) for incident in context.state.incidents.values())
    return any(progress is not None and progress.plan.agent for progress in found)


def follow(context: Context) -> None:
    """Look at every VM that is on its way up, and forget those that are there."""
    for key, vmi in context.inventory.vmis.items():
        if vmi.phase in BEFORE_RUNNING and key not in context.boots:
            context.boots[key] = Boot(vmi_uid=vmi.uid)
    for key in list(context.boots):
        look(context, key)


def look(context: Context, key: Key) -> bool:
    """Look at one VM; True where it has just given its place back."""
    boot, vmi = context.boots.get(key), context.inventory.vmis.get(key)
    if (
        vmi is not None
        and vmi.phase in BEFORE_RUNNING
        and (boot is None or boot.vmi_uid != vmi.uid)
    ):
        boot = context.boots[key] = Boot(vmi_uid=vmi.uid)
    if boot is None:
        return False
    held = _holds(boot)
    if vmi is None or vmi.uid != boot.vmi_uid or _is_over(context, vmi, boot):
        del context.boots[key]
        return held
    starts = vmi.phase == "Running" or _pod_starts(context, key, vmi)
    if starts and not boot.since_at:
        boot.since_at = context.now
    elif not starts:
        boot.since_at, boot.late = 0.0, False
    elif _has_had_its_time(context, boot):
        boot.late = True
    if vmi.phase == "Running" and not boot.running_at:
        boot.running_at = context.now
    _wake(context, boot)
    return held and not _holds(boot)


def _holds(boot: Boot) -> bool:
    return bool(boot.since_at) and not boot.late


def _is_over(context: Context, vmi: VmiFacts, boot: Boot) -> bool:
    limits = context.settings.pacing
    if vmi.phase in ("Failed", "Succeeded") or vmi.agent_connected:
        return True
    settled = boot.running_at and context.now >= boot.running_at + limits.settle_s
    if settled and not expects_agent(context, vm_subject(vmi.namespace, vmi.name)):
        return True
    # One that does not even run yet stays known, as late: forgotten, it would be found anew.
    return vmi.phase not in BEFORE_RUNNING and _has_had_its_time(context, boot)


def _has_had_its_time(context: Context, boot: Boot) -> bool:
    timeout_s = context.settings.pacing.start_timeout_s
    return bool(boot.since_at) and context.now >= boot.since_at + timeout_s


def _pod_starts(context: Context, key: Key, vmi: VmiFacts) -> bool:
    """Whether a pod of this VM is on its way: none that waits for a gate, a node or an image."""
    return any(
        pod.vmi_uid in ("", vmi.uid)
        and not pod.deleting
        and not pod.migration_target
        and not pod.unschedulable
        and not pod.waiting
        and not _held(context, pod)
        for pod in context.inventory.pods_under(key)
    )


def _held(context: Context, pod: PodFacts) -> bool:
    """Whether its gate keeps it; one that is being opened does not any more."""
    if not pod.gated or pod.uid in context.gates_opened:
        return False
    return str(vm_subject(pod.namespace, pod.vmi)) not in context.state.busy


def _wake(context: Context, boot: Boot) -> None:
    limits = context.settings.pacing
    if boot.running_at and context.now < boot.running_at + limits.settle_s:
        context.wake_at(boot.running_at + limits.settle_s)
    if _holds(boot):
        context.wake_at(boot.since_at + limits.start_timeout_s)
