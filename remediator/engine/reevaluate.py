"""Makes a decision again from its own record: the same tables, policies and guards, nothing else.

No cluster, no journal around it, no clock: what a record does not hold is not known here. Under the
policies of then the answer must be the record's own; under others it tells what they would have
done (``remediator policy backtest``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remediator.engine import guard_answers, verdicts, vm_verdicts
from remediator.engine.answered import answered
from remediator.engine.chain import ClauseRow, Decision, DecisionKind, GuardRow
from remediator.engine.inputs import Answered, Ground, Inputs, MatchSeen, VmSeen
from remediator.engine.model import Record, Verdict
from remediator.engine.plane_values import PlaneValues
from remediator.engine.rules import Match, MatchInput, Policy, SubjectKind, first_match


class Judged(Record, frozen=True, kw_only=True):
    """What a verdict table says of the values that a record holds."""

    row: str  # "" where no row of the VM table had fitted for long enough
    verdict: Verdict
    confirmed: bool  # False: it only makes a suspect


class Again(Record, frozen=True, kw_only=True):
    """A decision, made again. ``None``: the record holds no inputs for that part."""

    judged: Judged | None = None
    match: Match | None = None
    answer: Answered | None = None
    guards: tuple[GuardRow, ...] | None = None  # in the order of the record
    untold: tuple[str, ...] = ()  # guards whose answer cannot be told from the record


def reevaluate(decision: Decision, policies: Sequence[Policy]) -> Again:
    """Make a decision again, under these policies.

    Raises msgspec.ValidationError when what a guard saw does not fit the guard of today.
    """
    inputs = decision.inputs or Inputs()
    match: Match | None = None
    answer: Answered | None = None
    if inputs.match is not None:
        match = match_again(inputs.match, policies)
        answer = answered(match.policy, inputs.match.verdict, inputs.ground or Ground())
    answers = {row.guard: guard_answers.again(row) for row in decision.guards}
    return Again(
        judged=_judge(decision, inputs),
        match=match,
        answer=answer,
        guards=tuple(row for row in answers.values() if row is not None) if answers else None,
        untold=tuple(guard for guard, row in answers.items() if row is None),
    )


def match_again(seen: MatchSeen, policies: Sequence[Policy]) -> Match:
    """Ask policies about what a record holds, as of then."""
    asked = MatchInput(
        kind=SubjectKind(seen.kind),
        name=seen.name,
        namespace=seen.namespace,
        labels=seen.labels,
        verdict=seen.verdict,
        since_at=seen.since_at,
        facts=facts_of(seen),
    )
    return first_match(policies, asked, seen.at)


def facts_of(seen: MatchSeen) -> dict[str, Any]:
    """Return the facts as conditions read them: JSON has no tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in seen.facts.items()
    }


def differences(decision: Decision, again: Again) -> tuple[str, ...]:
    """Say where a decision that was made again differs from its record; empty: nowhere."""
    found: list[str] = []
    if again.judged is not None:
        found += _judged_apart(decision, again.judged)
    seen = decision.inputs.match if decision.inputs is not None else None
    if seen is not None and again.match is not None and again.answer is not None:
        found += answers_apart(seen.answer, again.answer)
        found += _traces_apart(decision.clauses, again.match.clauses)
    then = {row.guard: row for row in decision.guards}
    found += [
        f"guard {row.guard}: {then[row.guard].answer} ({then[row.guard].why}), again {row.answer} "
        f"({row.why})"
        for row in again.guards or ()
        if row != then[row.guard]
    ]
    return tuple(found)


# --- verdicts -------------------------------------------------------------------------------------


def _judge(decision: Decision, inputs: Inputs) -> Judged | None:
    resolved = decision.kind is DecisionKind.RESOLVED
    if inputs.vm is not None:
        return _judge_vm(inputs.vm)
    if inputs.planes is None:
        return None
    return _judge_node(inputs.planes, inputs.wanted, resolved=resolved)


def _judge_node(planes: PlaneValues, wanted: str, *, resolved: bool) -> Judged:
    row = verdicts.decide(planes)
    if wanted and row.verdict in verdicts.LIVING:
        row = verdicts.WANTED_EMPTY
    if resolved and row.verdict in verdicts.LIVING and planes.lease == "up":
        # A fence that has not happened is dropped for any living node that is heard.
        row = verdicts.ROWS["alive"]
    confirmed = row.verdict not in (Verdict.SUSPECT, Verdict.UNKNOWN, Verdict.HEALTHY)
    return Judged(row=row.name, verdict=row.verdict, confirmed=confirmed)


def _judge_vm(seen: VmSeen) -> Judged:
    rows = tuple(row for row in vm_verdicts.fitting(seen.values) if row.name in seen.stood_s)
    chosen = vm_verdicts.choose(rows, seen.stood_s, seen.patience)
    if chosen is None:
        return Judged(row="", verdict=Verdict.HEALTHY, confirmed=False)
    return Judged(row=chosen[0].name, verdict=chosen[0].verdict, confirmed=chosen[1])


def _judged_apart(decision: Decision, judged: Judged) -> list[str]:
    if decision.kind not in (DecisionKind.OPENED, DecisionKind.VERDICT, DecisionKind.RESOLVED):
        return []  # it stands on the verdict of an earlier record
    if decision.subject.kind == "vm" and decision.kind is DecisionKind.RESOLVED:
        return []  # closed for what the record's words say, whatever the table says
    then, now = (decision.row, decision.verdict), (judged.row, judged.verdict)
    return [] if then == now else [f"verdict {then[1]} ({then[0]}), again {now[1]} ({now[0]})"]


# --- policies -------------------------------------------------------------------------------------


def answers_apart(then: Answered, now: Answered) -> list[str]:
    """Say in what two answers of policies differ; empty: in nothing."""
    if then.policy != now.policy:
        return [f"policy {then.policy or 'none'}, again {now.policy or 'none'}"]
    found = []
    for name in Answered.__struct_fields__:
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            found.append(f"{name} {before}, again {after}")
    return found


def _traces_apart(then: Sequence[ClauseRow], now: Sequence[ClauseRow]) -> list[str]:
    if not then or tuple(then) == tuple(now):
        return []
    return [f"clauses {_clauses(then)}, again {_clauses(now)}"]


def _clauses(rows: Sequence[ClauseRow]) -> str:
    return "; ".join(f"{row.policy}: {row.clause}={row.value} {row.held}" for row in rows)
