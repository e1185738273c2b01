"""Guards that are asked before a VM is disrupted: restarted, stopped, or moved off a living host.

They fail closed, as those of nodes do. A VM of a host that is proven dead is not asked about here:
its host's guards were asked, and nothing is left of it to disrupt.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.guard_answers import ask as answer
from remediator.engine.model import Record, Subject
from remediator.engine.rules import Policy
from remediator.engine.safeguards import claims, pauses
from remediator.engine.safeguards import node_rules as rules
from remediator.engine.safeguards.node_guards import inventory_seen


class VmQuestion(Record, frozen=True, kw_only=True):
    """What is to be done to which VM, by whose word."""

    vm: Subject
    policy: Policy | None
    plan: Plan | None
    node: str = ""  # the host that it is on


def ask_vm(
    context: Context,
    subject: Subject,
    policy: Policy | None,
    plan: Plan | None,
    *,
    node: str = "",
) -> tuple[GuardRow, ...]:
    """Ask every guard about disrupting one VM, in a fixed order.

    Without a policy, a person has ordered it. Without ``node``, its host is looked up.
    """
    if not node:
        vmi = context.inventory.vmi(subject)
        node = vmi.node if vmi is not None else ""
    question = VmQuestion(vm=subject, policy=policy, plan=plan, node=node)
    return tuple(guard(context, question) for guard in VM_GUARDS)


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
    why = pauses.paused(context, question.vm)
    until = pauses.lifted_at(context, question.vm) if why else None
    return answer("paused", rules.PausedSeen(why=why, until=until))


VmGuard = Callable[[Context, VmQuestion], GuardRow]

VM_GUARDS: tuple[VmGuard, ...] = (_mode, _inventory, _hands_off, _paused)
