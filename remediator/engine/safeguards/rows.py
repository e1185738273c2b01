"""What is made of the rows that guards have answered with."""

from __future__ import annotations

from remediator.engine.chain import GuardRow
from remediator.engine.guard_answers import GRANT, REFUSE, WAIT, lift
from remediator.engine.standing import APPROVAL

CONTROL_PLANE = "control-plane"

__all__ = ["GRANT", "REFUSE", "WAIT", "lift", "refusal_key", "withheld"]


def withheld(rows: tuple[GuardRow, ...]) -> tuple[GuardRow, ...]:
    """Return the rows that do not grant."""
    return tuple(row for row in rows if row.answer != GRANT)


def refusal_key(rows: tuple[GuardRow, ...]) -> str:
    """Return what makes two refusals one: it is recorded once.

    A request for approval is another one for each policy, and again when it was answered; and to
    wait for etcd is another answer than to ask a human.
    """
    names = []
    for row in withheld(rows):
        name = row.guard
        if name == APPROVAL:
            name = f"{APPROVAL}({row.policy}{'' if row.until is not None else ' closed'})"
        elif name == CONTROL_PLANE and row.answer == WAIT:
            name = f"{CONTROL_PLANE}(waits)"
        names.append(name)
    return f"guards:{','.join(names)}"
