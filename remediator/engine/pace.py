"""What this leader has seen boot, and what it remembers of the pace beyond its own term.

``Pace`` is a cache that a new leader may lose. ``PaceState`` is memory: only records change it.
"""

from __future__ import annotations

import msgspec

from remediator.engine.chain import Decision
from remediator.engine.model import Subject
from remediator.engine.start_rate import Learned, StartRate
from remediator.engine.start_words import Fit

RATE, LOOP, CAPACITY, GATE_PASSED, CALM = "rate", "loop", "capacity", "gate-passed", "calm"


class Launch(msgspec.Struct, kw_only=True):
    """One start: a VM that boots, or that others wait for until it is ready."""

    began_at: float
    running_at: float = 0.0  # since when its VMI was seen to run; 0: it does not yet
    told: bool = False  # StartRate knows of it
    ended: bool = False  # it holds no place any more
    inherited: bool = False  # begun before we looked: how long it takes is not known


class Pace:
    """What is seen of the starts under way."""

    def __init__(self) -> None:
        self.rate: StartRate | None = None
        self.launches: dict[Subject, Launch] = {}
        self.due = False  # something has changed that may let a VM start
        self.shut_since: dict[int, float] = {}  # tier of a gate -> since when it is shut
        self.fits: dict[Subject, tuple[float, Fit]] = {}  # who fits nowhere -> until when, and why
        self.surveyed: set[Subject] = set()  # who was asked about before anything started
        self.survey_at = 0.0  # when that may be asked again


class PaceState(msgspec.Struct, kw_only=True):
    """What is remembered of the pace."""

    learned: Learned | None = None
    loops: set[str] = set()  # loops of dependencies that a human was told of
    passed: set[int] = set()  # tiers whose gate was passed because their time was up
    unplaced: bool = False  # a human was told that VMs fit nowhere


def apply_pace(state: PaceState, decision: Decision) -> None:
    """Change what is remembered by a record of kind PACED."""
    what, _, name = decision.stage.partition(":")
    if what == RATE and decision.learned is not None:
        state.learned = decision.learned
    elif what == LOOP:
        state.loops.add(name)
    elif what == CAPACITY:
        state.unplaced = name == "short"
    elif what == GATE_PASSED:
        state.passed.add(int(name))
    elif what == CALM:
        state.passed.clear()
