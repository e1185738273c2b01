"""Guards in two halves: what a guard looks at, and the answer that this alone leads to.

The first half reads the engine's pictures and fills a small record; the second is a pure function
of that record. Decision records keep what the first half saw, so that the second can be asked again
a year later, by another version, or about a journal from elsewhere::

    class FencesSeen(Record, frozen=True, kw_only=True):
        limit: int
        running: tuple[str, ...]

    @answers("fences-at-once", FencesSeen)
    def _fences(saw: FencesSeen) -> Answer:
        text = f"{len(saw.running)} of {saw.limit} under way"
        return wait(text) if len(saw.running) >= saw.limit else grant(text)

    def fences(context, incident, node, plan) -> GuardRow:
        return ask("fences-at-once", FencesSeen(limit=…, running=…))

What is seen must be bounded: counts, and at most ``NAMED`` names of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from remediator.engine.chain import GuardRow
from remediator.engine.model import Record

GRANT, WAIT, REFUSE = "grant", "wait", "refuse"

NAMED = 10  # so many names of one kind are kept and shown; the count tells of the others


class Answer(Record, frozen=True, kw_only=True):
    """What a guard says: "grant", "wait" (not now) or "refuse" (a human must decide)."""

    answer: str
    why: str
    until: float | None = None  # of a wait: it may grant from then on


Seen = TypeVar("Seen", bound=Record)
_Rule = Callable[[Seen], Answer]

_rules: dict[str, tuple[type[Record], Callable[[Any], Answer]]] = {}


def answers(guard: str, seen: type[Seen]) -> Callable[[_Rule[Seen]], _Rule[Seen]]:
    """Register the second half of a guard. Raises ValueError when the name is taken."""

    def register(rule: _Rule[Seen]) -> _Rule[Seen]:
        if guard in _rules:
            raise ValueError(f"two guards are named {guard!r}")
        _rules[guard] = (seen, rule)
        return rule

    return register


def grant(why: str) -> Answer:
    """Return the answer of a guard that has nothing against it."""
    return Answer(answer=GRANT, why=why)


def wait(why: str, until: float | None = None) -> Answer:
    """Return the answer "not now"; ``until``: it may grant from then on."""
    return Answer(answer=WAIT, why=why, until=until)


def refuse(why: str) -> Answer:
    """Return the answer that leaves it to a human."""
    return Answer(answer=REFUSE, why=why)


def ask(guard: str, saw: Record) -> GuardRow:
    """Answer from what was seen, and keep both. Raises KeyError for a guard without rule."""
    said = _rules[guard][1](saw)
    return GuardRow(
        guard=guard,
        answer=said.answer,
        why=said.why,
        until=said.until,
        # As it reads when the record is read again: JSON has no tuples.
        saw=msgspec.json.decode(msgspec.json.encode(saw)),
    )


def lift(row: GuardRow, by: str) -> GuardRow:
    """Return the row of a limit that a person has lifted; what it saw is kept, and who."""
    why = f"approved by {by} all the same: {row.why}"
    return msgspec.structs.replace(row, answer=GRANT, why=why, until=None, lifted=by)


def known() -> frozenset[str]:
    """Return the guards that can be asked again."""
    return frozenset(_rules)


def again(row: GuardRow) -> GuardRow | None:
    """Return the answer to what this row saw, by the rules of today.

    None where it cannot be told: the row kept nothing of what it saw, or no guard of this name is
    left. Raises msgspec.ValidationError when what it saw does not fit the guard of today.
    """
    if row.guard not in _rules or not row.saw:
        return None
    found = ask(row.guard, msgspec.convert(row.saw, _rules[row.guard][0]))
    found = msgspec.structs.replace(found, policy=row.policy)
    return lift(found, row.lifted) if row.lifted else found


def named(names: Iterable[str]) -> tuple[str, ...]:
    """Return the first ``NAMED`` names, in order: what a record keeps of a set."""
    return tuple(sorted(names)[:NAMED])
