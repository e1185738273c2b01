"""Policies in order, first match wins, with a trace of every clause that was looked at.

A policy is looked at only where it may matter: policies are kept by subject and verdict, and where
many answer the same, by what they select. Conditions are evaluated last. An error in a condition
is no match, and stands in the trace.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, overload

import msgspec

from remediator.engine.chain import ClauseRow
from remediator.engine.model import Record, Verdict
from remediator.engine.policy_types import (
    STEPS,
    Approval,
    Condition,
    ConditionError,
    DiskKind,
    Limits,
    OnFailure,
    Policy,
    StepOptions,
    SubjectKind,
    Window,
)

__all__ = [
    "STEPS",
    "Approval",
    "Condition",
    "ConditionError",
    "DiskKind",
    "Limits",
    "Match",
    "MatchInput",
    "OnFailure",
    "Policy",
    "PolicySet",
    "StepOptions",
    "SubjectKind",
    "Window",
    "Word",
    "first_match",
    "near_misses",
]

# So many policies that answer one verdict are all looked at, each with its clauses in the trace;
# of more than that only those whose selectors may fit, and the others are counted.
_ALL_LOOKED_AT = 16
_TEXT_MAX = 160  # characters of a condition, or of one fact, in a clause row


class MatchInput(Record, frozen=True, kw_only=True):
    """What the policies are asked about: a node or a VM, its verdict, and what is known of it."""

    kind: SubjectKind
    name: str
    verdict: Verdict
    since_at: float  # since when the verdict stands
    namespace: str = ""
    labels: dict[str, str] = {}  # of the Node, or of the VirtualMachine
    # What conditions may read, by name (match_facts.py); computed when it is read.
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Match(Record, frozen=True, kw_only=True):
    """What the policies said: the first that matched, if any, and every clause on the way."""

    policy: Policy | None
    clauses: tuple[ClauseRow, ...]
    due_at: float | None = None  # a policy would match at this time if the verdict stands
    closed: tuple[str, ...] = ()  # policies that nothing but their window keeps from matching


class Word(Record, frozen=True, kw_only=True):
    """What one policy says of one subject, every clause of it."""

    policy: Policy
    clauses: tuple[ClauseRow, ...]

    @property
    def matches(self) -> bool:
        """Whether all clauses hold."""
        return all(row.held for row in self.clauses)


class PolicySet(Sequence[Policy]):
    """Policies in the order in which they are asked: priority, lower first, then name."""

    def __init__(self, policies: Iterable[Policy] = ()) -> None:
        self._policies = tuple(sorted(policies, key=lambda each: (each.priority, each.name)))
        by_answer: dict[tuple[SubjectKind, Verdict], list[_Entry]] = defaultdict(list)
        for order, policy in enumerate(self._policies):
            for verdict in dict.fromkeys(policy.verdicts):
                by_answer[policy.subject, verdict].append(_Entry(order, policy, verdict))
        self._answering = {key: _Answering(entries) for key, entries in by_answer.items()}
        self._kinds = Counter(policy.subject for policy in self._policies)

    @overload
    def __getitem__(self, at: int) -> Policy: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Policy]: ...
    def __getitem__(self, at: int | slice) -> Policy | Sequence[Policy]:
        """Return the policy that is asked so many others later."""
        return self._policies[at]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._policies)

    def __eq__(self, other: object) -> bool:
        """Whether these are the same policies."""
        return isinstance(other, PolicySet) and self._policies == other._policies

    def __hash__(self) -> int:
        """Return a hash of names and contents."""
        return hash(tuple((policy.name, policy.content_hash) for policy in self._policies))

    def named(self, name: str) -> Policy | None:
        """Return the policy of this name."""
        return next((policy for policy in self._policies if policy.name == name), None)

    def first_match(self, given: MatchInput, now: float) -> Match:
        """Return the first policy all of whose clauses hold."""
        answering = self._answering.get((given.kind, given.verdict))
        if answering is None:
            return Match(policy=None, clauses=(self._nobody(given),))
        clauses: list[ClauseRow] = []
        closed: list[str] = []
        due_at: float | None = None
        looked_at = answering.of(given)
        for entry in looked_at:
            at = entry.ask(given, now, clauses)
            if at is None:
                return Match(policy=entry.policy, clauses=tuple(clauses))
            if at < _NEVER:
                due_at = at if due_at is None else min(due_at, at)
                if clauses[-1].clause.startswith(_WINDOW):
                    closed.append(entry.policy.name)
        others = len(answering) - len(looked_at)
        if others:
            value = f"{others} other policies select other subjects"
            clauses.append(ClauseRow(policy="", clause="selectors", value=value, held=False))
        return Match(policy=None, clauses=tuple(clauses), due_at=due_at, closed=tuple(closed))

    def words(self, given: MatchInput, now: float) -> tuple[Word, ...]:
        """Return what every policy says, in their order, also those asked after the first match."""
        return tuple(
            Word(policy=policy, clauses=tuple(_clauses(policy, given, now)))
            for policy in self._policies
        )

    def _nobody(self, given: MatchInput) -> ClauseRow:
        count = self._kinds.get(given.kind, 0)
        return ClauseRow(
            policy="",
            clause=f"answers {given.verdict} of a {given.kind}",
            value=f"none of {count} policies" if count else "no policy is about one",
            held=False,
        )


def first_match(policies: Sequence[Policy], given: MatchInput, now: float) -> Match:
    """Return the first policy all of whose clauses hold for this subject and its verdict."""
    known = policies if isinstance(policies, PolicySet) else PolicySet(policies)
    return known.first_match(given, now)


def near_misses(clauses: Iterable[ClauseRow]) -> list[str]:
    """Return, in words, which clause kept each policy that answers the verdict from matching."""
    return [
        f"{row.policy}: {row.clause} is {row.value}"
        for row in clauses
        if not row.held and row.policy and not row.clause.startswith(_VERDICT)
    ]


# --- which policies are looked at -----------------------------------------------------------------

_NEVER = float("inf")
_WINDOW, _VERDICT = "active window", "verdict in "


class _Entry:
    """One policy under one of its verdicts, with what can be said before anybody asks."""

    def __init__(self, order: int, policy: Policy, verdict: Verdict) -> None:
        self.order = order
        self.policy = policy
        self.verdict_row = _verdict_row(policy, verdict)
        self.labels = policy.labels
        self.for_s = policy.stands_for_s(verdict)

    def ask(self, given: MatchInput, now: float, clauses: list[ClauseRow]) -> float | None:
        """Add the clauses up to the first that does not hold.

        Returns None where all hold, else when that may have changed, if only time is missing.
        """
        policy = self.policy
        clauses.append(self.verdict_row)
        if self.labels:
            rows = list(_label_rows(policy, given))
            clauses += rows
            if not all(row.held for row in rows):
                return _NEVER
        if policy.namespaces:
            row = _namespace_row(policy, given)
            clauses.append(row)
            if not row.held:
                return _NEVER
        if self.for_s > 0:
            row = _for_row(policy, self.for_s, given, now)
            clauses.append(row)
            if not row.held:
                return given.since_at + self.for_s
        # A condition before a window: a window's end is worth waking up for only where it matters.
        if policy.condition is not None:
            row = _condition_row(policy, policy.condition, given)
            clauses.append(row)
            if not row.held:
                return _NEVER
        if policy.windows:
            row = _window_row(policy, now)
            clauses.append(row)
            if not row.held:
                return _opens_at(policy, now)
        return None


class _Answering:
    """The policies that answer one verdict of one kind of subject."""

    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = entries
        self._any: list[_Entry] = []
        self._by_label: dict[tuple[str, str], list[_Entry]] = defaultdict(list)
        self._by_namespace: dict[str, list[_Entry]] = defaultdict(list)
        if len(entries) > _ALL_LOOKED_AT:
            self._index()

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, given: MatchInput) -> list[_Entry]:
        """Return those whose selectors may fit, in their order."""
        if len(self._entries) <= _ALL_LOOKED_AT:
            return self._entries
        found = list(self._any)
        for label in given.labels.items():
            found += self._by_label.get(label, ())
        found += self._by_namespace.get(given.namespace, ())
        found.sort(key=_order)
        return found

    def _index(self) -> None:
        common = Counter(label for entry in self._entries for label in entry.labels.items())
        for entry in self._entries:
            plain = not any(set(pattern) & set("*?[") for pattern in entry.policy.namespaces)
            if entry.labels:
                rarest = min(entry.labels.items(), key=lambda label: common[label])
                self._by_label[rarest].append(entry)
            elif entry.policy.namespaces and plain:
                for namespace in dict.fromkeys(entry.policy.namespaces):
                    self._by_namespace[namespace].append(entry)
            else:
                self._any.append(entry)


def _order(entry: _Entry) -> int:
    return entry.order


# --- clauses --------------------------------------------------------------------------------------


def _clauses(policy: Policy, given: MatchInput, now: float) -> Iterator[ClauseRow]:
    """Yield every clause of a policy, whether those before it hold or not."""
    if policy.subject is not given.kind:
        yield _row(policy, f"subject {policy.subject}", given.kind, held=False)
        return
    yield _verdict_row(policy, given.verdict)
    yield from _label_rows(policy, given)
    if policy.namespaces:
        yield _namespace_row(policy, given)
    for_s = policy.stands_for_s(given.verdict)
    if for_s > 0:
        yield _for_row(policy, for_s, given, now)
    if policy.condition is not None:
        yield _condition_row(policy, policy.condition, given)
    if policy.windows:
        yield _window_row(policy, now)


def _verdict_row(policy: Policy, verdict: Verdict) -> ClauseRow:
    wanted = ", ".join(policy.verdicts)
    return _row(policy, f"{_VERDICT}[{wanted}]", verdict, held=verdict in policy.verdicts)


def _label_rows(policy: Policy, given: MatchInput) -> Iterator[ClauseRow]:
    for key, value in policy.labels.items():
        found = given.labels.get(key)
        shown = "(absent)" if found is None else found
        yield _row(policy, f"label {key}={value}", shown, held=found == value)


def _namespace_row(policy: Policy, given: MatchInput) -> ClauseRow:
    held = any(fnmatchcase(given.namespace, pattern) for pattern in policy.namespaces)
    return _row(
        policy, f"namespace in [{', '.join(policy.namespaces)}]", given.namespace, held=held
    )


def _for_row(policy: Policy, for_s: float, given: MatchInput, now: float) -> ClauseRow:
    stood_s = now - given.since_at
    # The same sum as in ``_Entry.ask``: rounding must not keep the engine waking up for it.
    held = now >= given.since_at + for_s
    return _row(policy, f"for {for_s:g} s", f"{stood_s:.1f} s", held=held)


def _condition_row(policy: Policy, condition: Condition, given: MatchInput) -> ClauseRow:
    try:
        held = condition.holds(given.facts)
        said = "true" if held else "false"
    except ConditionError as error:
        held, said = False, f"error: {error}"
    read = ", ".join(f"{name} = {_shown(given.facts.get(name))}" for name in condition.names)
    text = _short(" ".join(condition.text.split()))
    return _row(policy, f"condition {text}", f"{said} ({read})" if read else said, held=held)


def _window_row(policy: Policy, now: float) -> ClauseRow:
    wanted = " or ".join(window.text for window in policy.windows)
    if any(window.active(now) for window in policy.windows):
        return _row(policy, f"{_WINDOW} {wanted}", "open", held=True)
    opens_at = _opens_at(policy, now)
    value = f"closed, opens in {opens_at - now:.0f} s" if opens_at < _NEVER else "closed for good"
    return _row(policy, f"{_WINDOW} {wanted}", value, held=False)


def _opens_at(policy: Policy, now: float) -> float:
    found = (window.opens_at(now) for window in policy.windows)
    return min((at for at in found if at is not None), default=_NEVER)


def _shown(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
        case str():
            return _short(f'"{value}"')
        case _:
            return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 1]}…"


def _row(policy: Policy, clause: str, value: str, *, held: bool) -> ClauseRow:
    return ClauseRow(policy=policy.name, clause=clause, value=str(value), held=held)
