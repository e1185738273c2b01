"""What people have ordered that stands until it ends: pauses, approvals, cancelled plans.

It changes only by records (``apply``), so that the next leader knows it too. What it means for what
may be done is said by the safeguards, which read it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from remediator.engine.chain import Decision, DecisionKind, GuardRow, Order
from remediator.engine.events import Verb
from remediator.engine.model import Record

if TYPE_CHECKING:
    from remediator.engine.state import EngineState

APPROVAL = "approval"  # the guard that waits for a person


class PauseMeaning(enum.StrEnum):
    """What a pause asks for."""

    FREEZE = "freeze"  # begin nothing more; what runs is held at its next safe point
    IGNORE = "ignore"  # none of our business: no incidents, and open ones are closed


class Pause(Record, frozen=True, kw_only=True):
    """One pause that a person has ordered."""

    scope: str  # "cluster", "zone/Z", "node/N", "namespace/NS" or "vm/NS/NAME"
    meaning: PauseMeaning = PauseMeaning.FREEZE
    by: str = ""
    reason: str = ""
    since_at: float = 0.0
    until: float | None = None  # None: until somebody resumes it


class Answer(enum.StrEnum):
    """What was answered to a request for approval."""

    NONE = ""
    APPROVED = "approved"
    DENIED = "denied"


class ApprovalRequest(Record, frozen=True, kw_only=True):
    """A person is asked to approve the plan of one incident, or has answered."""

    incident: str
    policy: str  # whose plan it is: another policy's plan needs another yes
    asked_at: float
    lapses_at: float | None = None  # None: nobody asked, a person approved unasked
    answer: Answer = Answer.NONE
    by: str = ""
    reason: str = ""

    def waits(self, now: float) -> bool:
        """Whether nobody has answered yet, and an answer still counts for what follows."""
        lapsed = self.lapses_at is None or now >= self.lapses_at
        return self.answer is Answer.NONE and not lapsed


class Cancelled(Record, frozen=True, kw_only=True):
    """A person has stopped the plan of one incident."""

    by: str
    reason: str
    at: float


def apply(state: EngineState, decision: Decision) -> None:
    """Change what stands by one record."""
    if decision.kind is DecisionKind.COMMAND and decision.order is not None:
        if decision.order.obeyed:
            _obey(state, decision, decision.order)
    elif decision.kind in (DecisionKind.REFUSED, DecisionKind.ESCALATED) and decision.incident:
        for row in decision.guards:
            if row.guard == APPROVAL and row.until is not None:
                _ask(state, decision, row)
    elif decision.kind is DecisionKind.RESOLVED:
        state.approvals.pop(decision.incident, None)
        state.cancelled.pop(decision.incident, None)


def anchor(state: EngineState, at: float) -> None:
    """Give open requests their whole time anew: the leader before had another clock."""
    for incident, asked in state.approvals.items():
        if asked.answer is Answer.NONE and asked.lapses_at is not None:
            lasts_s = asked.lapses_at - asked.asked_at
            state.approvals[incident] = msgspec.structs.replace(
                asked, asked_at=at, lapses_at=at + lasts_s
            )


def _obey(state: EngineState, decision: Decision, order: Order) -> None:
    scope = str(decision.subject)
    match order.verb:
        case Verb.PAUSE | Verb.IGNORE:
            freeze = order.verb == Verb.PAUSE
            state.pauses[scope] = Pause(
                scope=scope,
                meaning=PauseMeaning.FREEZE if freeze else PauseMeaning.IGNORE,
                by=order.by,
                reason=order.reason,
                since_at=decision.at,
                until=order.until,
            )
        case Verb.RESUME:
            state.pauses.pop(scope, None)
            for incident in state.incidents.values():
                if incident.answered.startswith("held:"):
                    incident.answered = ""
        case Verb.APPROVE | Verb.DENY:
            _answer(state, decision, order)
        case Verb.CANCEL:
            state.cancelled[decision.incident] = Cancelled(
                by=order.by, reason=order.reason, at=decision.at
            )
        case Verb.RETRY:
            _retry(state, decision)
        case _:
            pass


def _ask(state: EngineState, decision: Decision, row: GuardRow) -> None:
    before = state.approvals.get(decision.incident)
    if before is not None and before.policy == row.policy:
        return
    state.approvals[decision.incident] = ApprovalRequest(
        incident=decision.incident,
        policy=row.policy,
        asked_at=decision.at,
        lapses_at=row.until,
    )


def _answer(state: EngineState, decision: Decision, order: Order) -> None:
    asked = state.approvals.get(decision.incident)
    policy = asked.policy if asked is not None else _policy_of(state, decision.incident)
    state.approvals[decision.incident] = ApprovalRequest(
        incident=decision.incident,
        policy=policy,
        asked_at=asked.asked_at if asked is not None else decision.at,
        lapses_at=asked.lapses_at if asked is not None else None,
        answer=Answer.APPROVED if order.verb == Verb.APPROVE else Answer.DENIED,
        by=order.by,
        reason=order.reason,
    )
    _ask_again(state, decision.incident)


def _policy_of(state: EngineState, incident_id: str) -> str:
    incident = state.incidents.get(incident_id) or state.vm_incidents.get(incident_id)
    plan = getattr(incident, "plan", None)
    return plan.policy if plan is not None else ""


def _retry(state: EngineState, decision: Decision) -> None:
    """Forget what was given up or refused by a person, and every wait."""
    state.cancelled.pop(decision.incident, None)
    asked = state.approvals.get(decision.incident)
    if asked is not None and asked.answer is not Answer.APPROVED:
        del state.approvals[decision.incident]  # it is asked anew
    _ask_again(state, decision.incident)
    incident = state.incidents.get(decision.incident)
    if incident is not None:
        incident.attempts = {}
        for name, progress in incident.vms.items():
            if decision.subject.kind != "vm" or name == str(decision.subject):
                progress.retry_at = 0.0


def _ask_again(state: EngineState, incident_id: str) -> None:
    """Let the engine look at an incident anew, and say what it finds."""
    incident = state.incidents.get(incident_id) or state.vm_incidents.get(incident_id)
    if incident is not None:
        for wait, none in (("answered", ""), ("retry_at", 0.0)):
            if hasattr(incident, wait):
                setattr(incident, wait, none)
