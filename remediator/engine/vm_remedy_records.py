"""What is recorded of a VM's remedy besides its actions, and who is told."""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine import safeguards
from remediator.engine.chain import DecisionKind, GuardRow
from remediator.engine.context import Context
from remediator.engine.incidents import Trigger, VmIncident
from remediator.engine.inputs import Inputs
from remediator.engine.model import RemedyWork, StartVm

# What a record says after the last step: the plan is begun anew (``vm_state``).
EXHAUSTED = "exhausted:"

# Guards that count disruptions. What goes on with a stop of ours was counted when that was begun: a
# VM that is half stopped must not be left so.
COUNTING = frozenset({"crash-loop", "disruptions-at-once", "disruptions-per-hour", "policy-limits"})

# A hold for one of these is ordinary; any other is worth a human's attention at once.
_QUIET_GUARDS = frozenset(
    {"mode", "inventory", "paused", "cancelled", "replicated-app", "disruptions-at-once"}
)


def move_on(context: Context, incident: VmIncident, why: str) -> None:
    """Go on with the next step of the plan."""
    context.record(
        DecisionKind.MOVED_ON,
        incident.subject,
        why,
        incident=incident,
        stage=incident.next_step,
    )


def notify(context: Context, incident: VmIncident) -> None:
    """Tell a human, as a step of the plan, and go on with the next one."""
    decision = context.record(
        DecisionKind.MOVED_ON,
        incident.subject,
        f"notify: {incident.subject} is {incident.verdict} ({incident.row})",
        incident=incident,
        stage="notify",
    )
    context.notice(decision)


def tell_and_retry(context: Context, incident: VmIncident, why: str, stage: str) -> None:
    """Ask a human, and try again much later."""
    follow_up_s = context.settings.remedies.follow_up_s
    retry_at = context.now + follow_up_s
    tell(context, incident, f"{why}; tried again in {follow_up_s:g} s", stage, retry_at)
    context.wake_at(retry_at)


def tell(
    context: Context, incident: VmIncident, why: str, stage: str, retry_at: float | None
) -> None:
    """Ask a human. ``stage`` says what becomes of the plan (``vm_state``)."""
    decision = context.record(
        DecisionKind.ESCALATED,
        incident.subject,
        why,
        incident=incident,
        trigger=Trigger.EXHAUSTED,
        verdict=incident.verdict,
        row=incident.row,
        stage=stage,
        retry_at=retry_at,
    )
    context.notice(decision)


def withhold(
    context: Context,
    incident: VmIncident,
    rows: tuple[GuardRow, ...],
    inputs: Callable[[], Inputs],
) -> None:
    """Record a refusal, once for each set of guards that withhold."""
    against = safeguards.withheld(rows)
    names = [row.guard for row in against]
    key = safeguards.refusal_key(rows)
    if incident.answered == key:
        return
    for_good = any(row.answer == safeguards.REFUSE and row.guard != "mode" for row in against)
    decision = context.record(
        DecisionKind.ESCALATED if for_good else DecisionKind.REFUSED,
        incident.subject,
        "; ".join(f"{row.guard}: {row.why}" for row in against),
        incident=incident,
        trigger=Trigger.EXHAUSTED if for_good else Trigger.WITHHELD,
        guards=rows,
        verdict=incident.verdict,
        row=incident.row,
        stage=key,
        inputs=inputs(),
    )
    if not set(names) <= _QUIET_GUARDS:
        context.notice(decision)


def why(step: str, work: RemedyWork | StartVm) -> str:
    """Return what is begun, in one sentence."""
    tag = str(type(work).__struct_config__.tag)
    said = {
        "soft-reboot": "ask the guest to reboot itself",
        "restart": "ask KubeVirt to stop it in order and start it anew",
        "start": "ask KubeVirt to start it: nothing else would",
        "kill-pod": "its launcher pod does not end: have the kubelet end it",
        "unpause": "let the guest go on",
        "snapshot": "keep its disks as they are before anything else is done",
    }[tag]
    if step == "force-stop" and tag == "restart":
        said = "ask KubeVirt to stop it with the shortest grace, and start it anew"
    return said
