"""What people have ordered and what stands until it ends: pauses. Changed only by ``state.apply``.

Kept apart from the safeguards that read it, since the engine's memory may not import those.
"""

from __future__ import annotations

import enum

from remediator.engine.model import Record


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
