"""What other policies would have answered to what the journal says was asked.

A backtest compares answers, not courses: each recorded question is put to the other policies as it
stood then. What would have followed from another answer is not known; ``remediator simulate`` plays
that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from remediator.engine.answered import answered
from remediator.engine.chain import ClauseRow, Decision
from remediator.engine.inputs import Answered, Ground, MatchSeen
from remediator.engine.model import Verdict
from remediator.engine.reevaluate import match_again
from remediator.engine.rules import Match, Policy, PolicySet

DIFFERENCES_MAX = 10_000  # kept; past that they are only counted
_CLAUSES_SHOWN = 3

# What makes two answers differ for the people whose VMs they are about; a policy whose text was
# changed but does the same is no difference.
_TELLING = tuple(name for name in Answered.__struct_fields__ if name != "policy_hash")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One incident that other policies would have answered otherwise."""

    incident: str
    subject: str
    seq: int  # the first record whose question has this difference
    at: float
    verdict: Verdict
    then: Answered
    now: Answered
    # Seconds after the question until the other policies would have answered, if the verdict stood.
    later_s: float = 0.0
    why: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a backtest."""

    records: int = 0
    unreadable: int = 0
    asked: int = 0  # records of a question to the policies
    incidents: int = 0  # that these are of
    # Records that chose a policy or found none, but keep no inputs: written by an older version, or
    # too large for them.
    without_inputs: int = 0
    differing: int = 0  # differences in all
    differences: tuple[Difference, ...] = ()


class Backtest:
    """Puts recorded questions to other policies, one record at a time, in the journal's order."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = PolicySet(policies)
        self._records = self._asked = self._without = self._differing = self._unreadable = 0
        self._incidents: set[str] = set()
        self._told: set[tuple[object, ...]] = set()
        self._differences: list[Difference] = []

    @property
    def differing(self) -> int:
        """How many differences were found so far."""
        return self._differing

    def unreadable(self) -> None:
        """Count a record that could not be read."""
        self._records += 1
        self._unreadable += 1

    def take(self, decision: Decision) -> None:
        """Take in one record."""
        self._records += 1
        inputs = decision.inputs
        seen = inputs.match if inputs is not None else None
        if inputs is None or seen is None:
            self._without += bool(decision.clauses)
            return
        self._asked += 1
        self._incidents.add(decision.incident)
        found = self._ask(decision, seen, inputs.ground or Ground())
        if found is None:
            return
        # The question is asked again whenever something changes: one answer is told once.
        key = (found.incident, found.verdict, found.then, found.now)
        if key in self._told:
            return
        self._told.add(key)
        self._differing += 1
        if len(self._differences) < DIFFERENCES_MAX:
            self._differences.append(found)

    def report(self) -> Report:
        """Return what came of it."""
        return Report(
            records=self._records,
            unreadable=self._unreadable,
            asked=self._asked,
            incidents=len(self._incidents),
            without_inputs=self._without,
            differing=self._differing,
            differences=tuple(self._differences),
        )

    def _ask(self, decision: Decision, seen: MatchSeen, ground: Ground) -> Difference | None:
        match = match_again(seen, self._policies)
        later_s = 0.0
        if match.policy is None and match.due_at is not None:
            later_s = match.due_at - seen.at
            match = match_again(msgspec.structs.replace(seen, at=match.due_at), self._policies)
        now = answered(match.policy, seen.verdict, ground)
        if not later_s and not changes(seen.answer, now):
            return None
        return Difference(
            incident=decision.incident,
            subject=str(decision.subject),
            seq=decision.seq,
            at=seen.at,
            verdict=seen.verdict,
            then=seen.answer,
            now=now,
            later_s=round(later_s, 3),
            why=_why(seen.answer, now, match, self._policies),
        )


def changes(then: Answered, now: Answered) -> tuple[str, ...]:
    """Return the names of the fields in which two answers differ for those they are about."""
    return tuple(name for name in _TELLING if getattr(then, name) != getattr(now, name))


def describe(answer: Answered) -> str:
    """Return an answer in a few words."""
    if not answer.policy:
        return "no policy"
    words = f"{answer.policy}: {', '.join(answer.steps)}"
    if answer.for_s:
        words += f"; after {answer.for_s:g} s"
    if answer.approval:
        words += "; needs approval"
    if not answer.enforce:
        words += "; observes"
    return words


def _why(then: Answered, now: Answered, match: Match, policies: PolicySet) -> str:
    if then.policy and then.policy == now.policy:
        return "; ".join(
            _changed(name, getattr(then, name), getattr(now, name)) for name in changes(then, now)
        )
    why: list[str] = []
    if then.policy:
        why.append(_why_not(then.policy, match.clauses, policies))
    if now.policy:
        held = [row for row in match.clauses if row.policy == now.policy and row.held]
        why.append(f"{now.policy} matches: {_clauses(held)}")
    elif not then.policy:
        why.append("no policy matches")
    return "; ".join(each for each in why if each)


def _why_not(name: str, clauses: Sequence[ClauseRow], policies: PolicySet) -> str:
    if policies.named(name) is None:
        return f"{name} is not among them"
    failed = [row for row in clauses if row.policy == name and not row.held]
    if failed:
        return f"{name} does not match: {_clauses(failed)}"
    if any(row.policy == name for row in clauses):
        return ""
    return f"{name} is not reached"


def _clauses(rows: Sequence[ClauseRow]) -> str:
    return ", ".join(f"{row.clause} ({row.value})" for row in rows[:_CLAUSES_SHOWN])


def _changed(name: str, then: object, now: object) -> str:
    """Say in words how one field of two answers of the same policy differs."""
    what = _WORDS[name]
    if isinstance(then, tuple) and isinstance(now, tuple):
        gone = [str(each) for each in then if each not in now]
        new = [str(each) for each in now if each not in then]
        said = [f"without {', '.join(gone)}"] if gone else []
        said += [f"with {', '.join(new)}"] if new else []
        return f"{what} {', '.join(said) or 'in another order'}"
    return f"{what} {_shown(then)}, now {_shown(now)}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g} s" if isinstance(value, float) else str(value)


_WORDS = {
    "policy": "policy",
    "steps": "steps",
    "for_s": "waits",
    "required_proof": "proof",
    "levels": "usable fence levels",
    "manual_starts": "VMs of run strategy Manual started",
    "enforce": "enforces",
    "approval": "needs approval",
}
