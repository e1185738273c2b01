"""A decision in plain words, for a tired operator: what was seen, what decided, what was done.

A single record seldom holds the whole story: the fence's outcome does not repeat the evidence. So
whatever a record lacks is taken from the latest earlier record of the same incident that has it,
and the text says from which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from remediator.durations import format_duration
from remediator.engine.chain import Decision, DecisionKind, GuardRow
from remediator.engine.model import Action, IncidentState, OutcomeStatus, Plane, Ungate, Verdict
from remediator.engine.verdicts import ROWS
from remediator.engine.vm_verdicts import ROWS as VM_ROWS
from remediator.journal.rows import kind_of_work
from remediator.journal.story import proof_of, records, times, vms

_KIND_WORDS = {
    DecisionKind.LEADING: "This daemon became leader",
    DecisionKind.OPENED: "An incident was opened",
    DecisionKind.VERDICT: "The verdict changed",
    DecisionKind.PLANNED: "A plan was made",
    DecisionKind.REFUSED: "Acting was refused or put off",
    DecisionKind.ESCALATED: "A human was asked",
    DecisionKind.STARTED: "An action was started",
    DecisionKind.RESUMED: "An action was repeated after a take-over",
    DecisionKind.FINISHED: "An action ended",
    DecisionKind.SKIPPED: "A step was skipped",
    DecisionKind.MOVED_ON: "The plan went on with its next step",
    DecisionKind.PROGRESS: "A VM's recovery went on",
    DecisionKind.RESOLVED: "The incident was resolved",
    DecisionKind.FENCE_METHODS: "This daemon took other fence configurations",
    DecisionKind.POLICIES: "This daemon took other policies",
    DecisionKind.PACED: "The pace of starts changed",
    DecisionKind.OWN_HEALTH: "This daemon judged its own health",
}
_ANSWERS = {"grant": "yes", "wait": "not yet", "refuse": "no"}
_VMS_MAX = 20
_WIDTH = 10  # of the first column


def clock(at: float) -> str:
    """Return ``2026-11-20 03:12:09.5 UTC``."""
    when = datetime.fromtimestamp(at, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 100_000} UTC"


def explain(decision: Decision, story: Sequence[Decision] = ()) -> str:
    """Return the explanation of ``decision``.

    ``story`` is every record of its incident, oldest first; without it only the record speaks.
    """
    told = [one for one in story if one.seq <= decision.seq] or [decision]
    lines = [*_headline(decision), ""]
    for title, body in (
        ("What was seen", _seen(decision, told)),
        ("What it adds up to", _verdict(decision, told)),
        ("Which policy answered", _clauses(decision, told)),
        ("Which guards were asked", _guards(decision, told)),
        ("What the plan was", _plan(decision, told)),
        ("What proof was held", _proof(told)),
        ("What was done", _action(decision)),
        ("The whole incident", records(decision, story)),
        ("Its VMs, counted from the verdict", vms(story)),
        ("How long it took", times(story)),
    ):
        section = list(body)
        if section:
            lines += [title, *(f"  {line}" for line in section), ""]
    return "\n".join(lines).rstrip() + "\n"


def _headline(decision: Decision) -> Iterator[str]:
    words = _KIND_WORDS.get(decision.kind, str(decision.kind))
    if decision.kind is DecisionKind.VERDICT and decision.subject.kind == "vm":
        sure = decision.state is IncidentState.CONFIRMED
        words = "The verdict was confirmed" if sure else "The suspicion changed"
    if decision.action is not None:
        words = words.replace("An action", f"The action {kind_of_work(decision)}")
    yield f"Decision {decision.seq}, {clock(decision.at)}: {decision.subject}"
    yield f"{words}: {decision.why}"
    facts = []
    if decision.incident:
        state = f", then {decision.state}" if decision.state else ""
        facts.append(f"incident {decision.incident}{state}")
    facts.append(f"leader {decision.leader} (epoch {decision.epoch})")
    if decision.mode == "observe":
        facts.append("observe mode: decided and recorded, nothing was touched")
    else:
        facts.append(f"{decision.mode} mode")
    yield "; ".join(facts)
    if decision.retry_at is not None:
        wait = format_duration(decision.retry_at - decision.at)
        yield f"Tried or asked again {wait} later, at {clock(decision.retry_at)}"


def _latest(told: Sequence[Decision], has: Callable[[Decision], object]) -> Decision | None:
    return next((one for one in reversed(told) if has(one)), None)


def _origin(decision: Decision, source: Decision) -> Iterator[str]:
    if source.seq != decision.seq:
        ago_s = decision.at - source.at
        when = f"{format_duration(ago_s)} earlier" if ago_s >= 0.01 else "at the same moment"
        yield f"(from decision {source.seq}, {when})"


def _seen(decision: Decision, told: Sequence[Decision]) -> Iterator[str]:
    source = _latest(told, lambda one: one.evidence)
    if source is None:
        return
    yield from _origin(decision, source)
    for seen in source.evidence:
        text = f"{seen.plane:<{_WIDTH}} {seen.value}"
        if seen.plane == Plane.POWER and seen.since_s > 0:
            text += f", asked {format_duration(seen.since_s)} before"
        elif seen.since_s > 0:
            since = clock(source.at - seen.since_s)
            text += f" for {format_duration(seen.since_s)} (since {since})"
        extra = ", ".join(part for part in (seen.detail, seen.source) if part)
        yield f"{text}: {extra}" if extra else text


def _verdict(decision: Decision, told: Sequence[Decision]) -> Iterator[str]:
    # The row that decided stands in the record of the verdict, and not in every later one.
    source = _latest(told, lambda one: one.row) or _latest(told, lambda one: one.verdict)
    if source is None or source.verdict is None:
        return
    yield from _origin(decision, source)
    if source.subject.kind == "vm":
        yield from _vm_verdict(source.verdict, source.row)
        return
    row = ROWS.get(source.row)
    if row is not None:
        yield f"{source.verdict}, by row {source.row!r} of the verdict table: {row.means}"
    elif source.row:
        yield f"{source.verdict}, by row {source.row!r} of the verdict table"
    else:
        yield str(source.verdict)


def _vm_verdict(verdict: Verdict, name: str) -> Iterator[str]:
    row = VM_ROWS.get(name)
    if row is None:
        yield f"{verdict}, by row {name!r} of the VM verdict table"
        return
    yield f"{verdict}, by row {name!r} of the VM verdict table: {row.means}"
    after, sure = format_duration(row.after_s), format_duration(row.after_s + row.hold_s)
    yield f"suspected after {after} of it, confirmed after {sure}: {row.source}"


def _clauses(decision: Decision, told: Sequence[Decision]) -> Iterator[str]:
    source = _latest(told, lambda one: one.clauses or one.plan)
    if source is None:
        return
    yield from _origin(decision, source)
    for clause in source.clauses:
        held = "held" if clause.held else "did NOT hold"
        yield f"{clause.policy}: {clause.clause}: {held} (it was {clause.value})"
    if source.plan is not None:
        yield f"=> {source.plan.policy} matched (document {source.plan.policy_hash[:12]})"
    elif source.clauses:
        yield "=> no policy matched"


def _guards(decision: Decision, told: Sequence[Decision]) -> Iterator[str]:
    source = _latest(told, lambda one: one.guards)
    if source is None:
        return
    yield from _origin(decision, source)
    width = max(len(guard.guard) for guard in source.guards)
    for guard in source.guards:
        yield _guard(guard, width)


def _guard(guard: GuardRow, width: int) -> str:
    answer = _ANSWERS.get(guard.answer, guard.answer)
    until = f" (until {clock(guard.until)})" if guard.until is not None else ""
    return f"{guard.guard:<{width}} {answer:<7} {guard.why}{until}"


def _plan(decision: Decision, told: Sequence[Decision]) -> Iterator[str]:
    source = _latest(told, lambda one: one.plan)
    if source is None or source.plan is None:
        return
    plan = source.plan
    yield from _origin(decision, source)
    yield f"steps: {', '.join(plan.steps)}"
    if plan.fence_method:
        yield f"fence by: {plan.fence_method}"
    if len(plan.levels) > 1:
        for level in plan.levels:
            times = f"up to {level.attempts} times" if level.attempts > 1 else "once"
            yield f"  level {level.index + 1}: {level.name}, {times}; proves {level.proof}"
    yield f"proof that counts: {' or '.join(plan.required_proof) or 'none'}"
    for vm in plan.vms[:_VMS_MAX]:
        yield f"{vm.vm} ({vm.run_strategy or 'no VirtualMachine'}): {vm.treatment}: {vm.why}"
    if len(plan.vms) > _VMS_MAX:
        yield f"… and {len(plan.vms) - _VMS_MAX} more VMs"


def _proof(told: Sequence[Decision]) -> Iterator[str]:
    source = _latest(told, proof_of)
    proof = proof_of(source) if source is not None else None
    if proof is not None:
        detail = f": {proof.detail}" if proof.detail else ""
        yield f"{proof.kind}, from {proof.source} at {clock(proof.at)}{detail}"
        yield f"it proves that boot {proof.boot_id or '(unknown)'} of {proof.node} has ended"
    elif any(one.plan or (one.action and not _is_gate(one.action)) for one in told):
        yield "none yet: nothing is released and no VM restarts without it"


def _is_gate(action: Action) -> bool:
    """Whether it only opens a gate: that needs no proof, for the pod has never run."""
    return isinstance(action.work, Ungate)


def _action(decision: Decision) -> Iterator[str]:
    action, outcome = decision.action, decision.outcome
    if decision.subject.kind == "vm" and decision.kind in (
        DecisionKind.OPENED,
        DecisionKind.VERDICT,
    ):
        yield "nothing: no action follows from a verdict on a VM in this version"
    if action is not None:
        yield (
            f"{kind_of_work(decision)} {action.subject}, attempt {action.attempt},"
            f" at most {format_duration(action.deadline_s)} ({action.id})"
        )
    if outcome is not None:
        took = format_duration(outcome.finished_at - outcome.started_at)
        yield f"{outcome.status} after {took}: {outcome.detail}"
        if outcome.status is OutcomeStatus.SUCCEEDED and not outcome.changed:
            yield "nothing had to be changed: the world was already as wanted"
    elif action is not None and decision.kind in (DecisionKind.STARTED, DecisionKind.RESUMED):
        yield "its outcome is a later record"
