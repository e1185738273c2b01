"""What a vantage point remembers of one node, and what a round of probes makes of it."""

from __future__ import annotations

from typing import NamedTuple

from remediator.engine.model import Reading
from remediator.probes.rounds import Heard, Kind, Round
from remediator.probes.targets import Target


class Said(NamedTuple):
    """What is said of a node after a round. Only what is ``settled`` is said unasked."""

    reading: Reading
    detail: str
    settled: bool = True


class NodeWatch:
    """One node. Times are the prober's clock."""

    __slots__ = (
        "answered",
        "asked_until",
        "due_at",
        "failures",
        "probing",
        "published",
        "published_at",
        "reached",
        "target",
    )

    def __init__(self, target: Target) -> None:
        self.target = target
        self.reached = False  # some kind of probe answered once; else silence says nothing
        self.answered: Kind | None = None  # the kind that answered last
        self.failures = 0  # rounds in succession that met silence while references answered
        self.asked_until = float("-inf")
        self.due_at = 0.0
        self.probing = False
        self.published: Reading | None = None
        self.published_at = float("-inf")

    @property
    def down(self) -> bool:
        """Whether it was said to be down, and nothing took that back."""
        return self.published is Reading.DOWN

    def judge(self, heard: Round, *, references: bool, rounds_to_down: int) -> Said:
        """Take in a round. ``references``: other hosts answered while this one was silent."""
        if heard.heard is Heard.ANSWER:
            self.reached = True
            self.answered = heard.kind
            self.failures = 0
            return Said(Reading.UP, heard.text)
        if heard.heard is Heard.NOTHING:
            return Said(Reading.UNKNOWN, f"not judged: {heard.text}", settled=False)
        if not self.reached:
            return Said(Reading.UNKNOWN, f"never reached from here: {heard.text}")
        if not references:
            # Silence that may be our own counts for nothing, also when others answer again. It is
            # said of the vantage point itself; of a node only where "down" must be taken back.
            self.failures = 0
            detail = f"other hosts are silent too: {heard.text}"
            return Said(Reading.UNKNOWN, detail, settled=self.down)
        self.failures += 1
        if self.failures >= rounds_to_down:
            return Said(Reading.DOWN, heard.text)
        detail = f"round {self.failures} of {rounds_to_down}: {heard.text}"
        return Said(Reading.UNKNOWN, detail, settled=False)

    def wants_quick_repeat(self, rounds_to_down: int) -> bool:
        """Whether it is on its way to "down"."""
        return 0 < self.failures < rounds_to_down
