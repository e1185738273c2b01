"""The three answers of a guard, and the row that a decision record keeps of each."""

from __future__ import annotations

from remediator.engine.chain import GuardRow

GRANT, WAIT, REFUSE = "grant", "wait", "refuse"


def grant(guard: str, why: str) -> GuardRow:
    """Return the row of a guard that has nothing against it."""
    return GuardRow(guard=guard, answer=GRANT, why=why)


def wait(guard: str, why: str, until: float | None = None) -> GuardRow:
    """Return the row of a guard that says not now; ``until``: it may grant from then on."""
    return GuardRow(guard=guard, answer=WAIT, why=why, until=until)


def refuse(guard: str, why: str) -> GuardRow:
    """Return the row of a guard that leaves it to a human."""
    return GuardRow(guard=guard, answer=REFUSE, why=why)


def withheld(rows: tuple[GuardRow, ...]) -> tuple[GuardRow, ...]:
    """Return the rows that do not grant."""
    return tuple(row for row in rows if row.answer != GRANT)
