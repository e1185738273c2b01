"""Limits on how much is disrupted: at once, per hour, and by one policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.disruptions import OF_NODES, OF_VMS
from remediator.engine.guard_answers import Answer, answers, ask, grant, named, wait
from remediator.engine.incidents import Incident
from remediator.engine.model import NodeFacts, Record, Subject, node_subject
from remediator.engine.policy_types import Policy
from remediator.engine.safeguards import uses
from remediator.engine.safeguards.uses import Use

AT_ONCE = "disruptions-at-once"
PER_HOUR = "disruptions-per-hour"
POLICY_LIMITS = "policy-limits"


class QuotaSeen(Record, frozen=True, kw_only=True):
    """Every limit that binds here, and what is used of it."""

    uses: tuple[Use, ...]


def _rule(verb: str) -> Callable[[QuotaSeen], Answer]:
    def answer(saw: QuotaSeen) -> Answer:
        spent = [use for use in saw.uses if use.spent]
        if not spent:
            parts = [f"{use.used} of {use.limit} ({use.scope})" for use in saw.uses]
            return grant(", ".join(parts) or "no limit is set")
        ends = [use.until for use in spent]
        until = max((end for end in ends if end is not None), default=None)
        why = "; ".join(
            f"{use.used} of {use.limit} {verb} ({use.scope})"
            + (f": {', '.join(use.who)}" if use.who else "")
            for use in spent
        )
        return wait(why, None if None in ends else until)

    return answer


answers(AT_ONCE, QuotaSeen)(_rule("disrupted at once"))
answers(PER_HOUR, QuotaSeen)(_rule("disrupted within the hour"))
answers(POLICY_LIMITS, QuotaSeen)(_rule("disrupted by this policy"))


def _row(guard: str, found: Iterable[Use]) -> GuardRow:
    return ask(guard, QuotaSeen(uses=tuple(found)))


def nodes_at_once(context: Context, _i: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    """Wait while as many nodes are disrupted as may be: in the cluster, its zone, its pool."""
    me = node_subject(node.name)
    mine = uses.scopes_of(context, me)
    limits = uses.node_limits(context)
    return _row(AT_ONCE, uses.at_once(uses.nodes_now(context), limits, mine, me))


def nodes_per_hour(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    """Wait while as many nodes were fenced within the hour as may be, or this one so often."""
    if "fence" not in plan.steps:
        return _row(PER_HOUR, ())
    subject = node_subject(node.name)
    return _row(PER_HOUR, uses.hourly(context, OF_NODES, subject, but=incident.id))


def policy_on_node(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    """Wait while the policy of this plan has disrupted as much as it may."""
    policy = next((each for each in context.policies if each.name == plan.policy), None)
    return policy_row(context, policy, node_subject(node.name), but=incident.id)


def vms_at_once(context: Context, vm: Subject, node: str) -> GuardRow:
    """Wait while as many VMs are disrupted as may be, in any scope of this one."""
    mine = uses.scopes_of(context, vm, node)
    limits = uses.vm_limits(context)
    return _row(AT_ONCE, uses.at_once(uses.vms_now(context), limits, mine, vm))


def vms_per_hour(context: Context, vm: Subject) -> GuardRow:
    """Wait while as many VMs were disrupted within the hour as may be, or this one so often."""
    return _row(PER_HOUR, uses.hourly(context, OF_VMS, vm))


def policy_row(
    context: Context, policy: Policy | None, subject: Subject, *, but: str = ""
) -> GuardRow:
    """Answer for the limits that a policy sets itself; ``but`` is the incident that asks."""
    return _row(POLICY_LIMITS, policy_uses(context, policy, subject, but=but))


def policy_uses(
    context: Context, policy: Policy | None, subject: Subject, *, but: str = ""
) -> list[Use]:
    """Return what is used of the limits that a policy sets itself."""
    if policy is None:
        return []
    limits, found = policy.limits, []
    if limits.at_once is not None:
        now = (*uses.nodes_now(context), *uses.vms_now(context))
        who = [
            str(each.subject)
            for each in now
            if each.policy == policy.name and each.subject != subject
        ]
        found.append(
            Use(scope=f"policy {policy.name}", used=len(who), limit=limits.at_once, who=named(who))
        )
    kinds = OF_NODES | OF_VMS
    if limits.per_hour is not None:
        lately = uses.lately(context, kinds, policy=policy.name, but=but)
        found.append(uses.per_time(f"policy {policy.name}, per hour", lately, limits.per_hour))
    if limits.per_subject_per_hour is not None:
        name = str(subject)
        lately = uses.lately(context, kinds, policy=policy.name, subject=name, but=but)
        limit = limits.per_subject_per_hour
        found.append(uses.per_time(f"policy {policy.name}, {name}, per hour", lately, limit))
    return found
