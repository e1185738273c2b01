"""Guards that are asked before a VM is disrupted: restarted, stopped, or moved off a living host.

They fail closed, as those of nodes do. A VM of a host that is proven dead is not asked about here:
its host's guards were asked, and nothing is left of it to disrupt.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.guard_answers import ask as answer
from remediator.engine.incidents import Incident, VmIncident
from remediator.engine.model import Record, Subject, node_subject
from remediator.engine.rules import Policy
from remediator.engine.safeguards import approvals, claims, flapping, pauses, quotas, replicas
from remediator.engine.safeguards import node_rules as rules
from remediator.engine.safeguards.node_guards import inventory_seen

# Steps that interrupt no VM: of a plan that has no others, limits on disruption are not asked.
_GENTLE = frozenset({"notify", "hold", "unpause", "snapshot"})
_ALWAYS = frozenset({"mode", "inventory", "hands-off", "paused", "cancelled"})
_RESTARTING = frozenset({"soft-reboot", "restart", "force-stop"})


class VmQuestion(Record, frozen=True, kw_only=True):
    """What is to be done to which VM, by whose word."""

    vm: Subject
    policy: Policy | None
    plan: Plan | None
    node: str = ""  # the host that it is on
    incident: Incident | VmIncident | None = None


def ask_vm(
    context: Context,
    subject: Subject,
    policy: Policy | None,
    plan: Plan | None,
    *,
    node: str = "",
) -> tuple[GuardRow, ...]:
    """Ask every guard about disrupting one VM, in a fixed order; a person's approval last.

    Without a policy, a person has ordered it. Without ``node``, its host is looked up. The incident
    is the VM's own, or else that of its host.
    """
    if not node:
        vmi = context.inventory.vmi(subject)
        node = vmi.node if vmi is not None else ""
    own = context.state.vm_incident_on(subject)
    incident = own if own is not None else context.state.incident_on(node_subject(node))
    question = VmQuestion(vm=subject, policy=policy, plan=plan, node=node, incident=incident)
    gentle = plan is not None and set(plan.steps) <= _GENTLE
    answered = tuple(
        guard(context, question)
        for name, guard in VM_GUARDS_BY_NAME.items()
        if not gentle or name in _ALWAYS
    )
    return approvals.weigh(context, incident, policy, answered)


def _mode(context: Context, question: VmQuestion) -> GuardRow:
    policy, plan = question.policy, question.plan
    saw = rules.ModeSeen(
        enforce=context.enforce,
        policy=policy.name if policy is not None else "",
        policy_enforces=policy is None or policy.enforce,
        steps=plan.steps if plan is not None else (),
        what=str(question.vm),
    )
    return answer("mode", saw)


def _inventory(context: Context, _question: VmQuestion) -> GuardRow:
    return answer("inventory", inventory_seen(context))


def _hands_off(context: Context, question: VmQuestion) -> GuardRow:
    why = claims.vm_hands_off(context, question.vm)
    host = context.inventory.nodes.get(question.node)
    if host is not None:
        away = claims.hands_off(context, host)
        why = "; ".join(each for each in (why, f"{host.name}: {away}" if away else "") if each)
    return answer("hands-off", rules.HandsOffSeen(why=why))


def _paused(context: Context, question: VmQuestion) -> GuardRow:
    return pauses.paused_row(context, question.vm)


def _cancelled(context: Context, question: VmQuestion) -> GuardRow:
    return pauses.cancelled_row(context, question.incident)


def _replicated_app(context: Context, question: VmQuestion) -> GuardRow:
    return replicas.app_of_vm(context, question.vm)


def _crash_loop(context: Context, question: VmQuestion) -> GuardRow:
    plan = question.plan
    restarts = plan is None or bool(_RESTARTING & set(plan.steps))
    return flapping.crash_loop(context, question.vm, restarts=restarts)


def _storm(context: Context, _question: VmQuestion) -> GuardRow:
    return answer(flapping.STORM, flapping.storm_seen(context))


def _at_once(context: Context, question: VmQuestion) -> GuardRow:
    return quotas.vms_at_once(context, question.vm, question.node)


def _per_hour(context: Context, question: VmQuestion) -> GuardRow:
    return quotas.vms_per_hour(context, question.vm)


def _policy_limits(context: Context, question: VmQuestion) -> GuardRow:
    return quotas.policy_row(context, question.policy, question.vm)


VmGuard = Callable[[Context, VmQuestion], GuardRow]

# By the name that stands in the record.
VM_GUARDS_BY_NAME: dict[str, VmGuard] = {
    "mode": _mode,
    "inventory": _inventory,
    "hands-off": _hands_off,
    "paused": _paused,
    "cancelled": _cancelled,
    "replicated-app": _replicated_app,
    "crash-loop": _crash_loop,
    "storm-brake": _storm,
    "disruptions-at-once": _at_once,
    "disruptions-per-hour": _per_hour,
    "policy-limits": _policy_limits,
}
VM_GUARDS: tuple[VmGuard, ...] = tuple(VM_GUARDS_BY_NAME.values())
