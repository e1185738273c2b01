"""A person's yes or no to the plan of one incident.

A policy may ask for it; then the plan waits until somebody answers, or the request lapses. It is
asked only once nothing else stands against the plan, but for limits that a yes lifts. Where no
policy asks, a person may approve all the same: that lifts those limits for this incident.
"""

from __future__ import annotations

import msgspec

from remediator.engine.chain import GuardRow
from remediator.engine.context import Context
from remediator.engine.guard_answers import Answer as GuardAnswer
from remediator.engine.guard_answers import answers, ask, grant, refuse, wait
from remediator.engine.incidents import Incident, VmIncident
from remediator.engine.model import Record
from remediator.engine.policy_types import Policy
from remediator.engine.safeguards import rows
from remediator.engine.standing import APPROVAL, Answer, ApprovalRequest

# Limits on how much, and how often: who approves knows better. What is not here says that acting
# would be wrong or useless, whoever approves.
LIFTED = frozenset(
    {
        "replicated-app",
        "cool-down",
        "flapping",
        "crash-loop",
        "storm-brake",
        "zone-share",
        "cluster-share",
        "others-heard",
        "disruptions-per-hour",
        "policy-limits",
    }
)


class ApprovalSeen(Record, frozen=True, kw_only=True):
    """What a person was asked, and has answered."""

    at: float
    incident: str
    policy: str
    lapses_at: float
    proceeds: bool  # what follows when nobody has answered by then
    who: tuple[str, ...] = ()  # may answer; nobody named: anybody
    answer: Answer = Answer.NONE
    by: str = ""
    reason: str = ""


@answers(APPROVAL, ApprovalSeen)
def _approval(saw: ApprovalSeen) -> GuardAnswer:
    if saw.answer is Answer.APPROVED:
        return grant(f"approved by {saw.by}: {saw.reason}")
    if saw.answer is Answer.DENIED:
        return refuse(f"denied by {saw.by}: {saw.reason}")
    if saw.at < saw.lapses_at:
        who = f" by {', '.join(saw.who)}" if saw.who else ""
        then = "goes ahead" if saw.proceeds else "is held"
        left_s = saw.lapses_at - saw.at
        return wait(
            f"policy {saw.policy} waits for approval{who}: 'remediator approve {saw.incident}'; "
            f"without an answer within {left_s:.0f} s it {then}",
            saw.lapses_at,
        )
    if saw.proceeds:
        return grant(f"nobody answered in time: policy {saw.policy} goes ahead")
    return wait(f"nobody answered in time: policy {saw.policy} holds it until somebody approves")


def weigh(
    context: Context,
    incident: Incident | VmIncident | None,
    policy: Policy | None,
    answered: tuple[GuardRow, ...],
) -> tuple[GuardRow, ...]:
    """Return the rows with what a person's approval makes of them."""
    if incident is None:
        return answered
    asked = context.state.approvals.get(incident.id)
    name = policy.name if policy is not None else ""
    mine = asked is not None and asked.policy == name
    if asked is not None and mine and asked.answer is Answer.APPROVED:
        by = asked.by
        answered = tuple(
            rows.lift(row, by) if row.answer != rows.GRANT and row.guard in LIFTED else row
            for row in answered
        )
    elif asked is not None and mine and asked.answer is Answer.DENIED:
        return (*answered, _ask(context, incident.id, policy, asked))
    if policy is None or policy.approval is None:
        return answered
    if any(row.guard not in LIFTED for row in rows.withheld(answered)):
        return answered  # nothing would follow from a yes
    return (*answered, _ask(context, incident.id, policy, asked if mine else None))


def _ask(
    context: Context, incident_id: str, policy: Policy | None, asked: ApprovalRequest | None
) -> GuardRow:
    approval = policy.approval if policy is not None else None
    lasts_s = approval.lapses_after_s if approval is not None else 0.0
    lapses_at = asked.lapses_at if asked is not None else context.now + lasts_s
    name = policy.name if policy is not None else ""
    row = ask(
        APPROVAL,
        ApprovalSeen(
            at=context.now,
            incident=incident_id,
            policy=name,
            lapses_at=lapses_at or 0.0,
            proceeds=approval is not None and approval.proceeds,
            who=approval.by if approval is not None else (),
            answer=asked.answer if asked is not None else Answer.NONE,
            by=asked.by if asked is not None else "",
            reason=asked.reason if asked is not None else "",
        ),
    )
    return msgspec.structs.replace(row, policy=name)
