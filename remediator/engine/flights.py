"""Live migrations in flight, as they were seen: for how long each has been in its phase.

A cache: a new leader begins to measure anew.
"""

from __future__ import annotations

import msgspec

from remediator.engine.model import MigrationFacts, Subject, vm_subject

# KubeVirt has made no target pod yet: it waits for a free place.
QUEUED_PHASES = frozenset({"", "Pending", "WaitingForSync"})
COPYING_PHASE = "Running"


class Flight(msgspec.Struct, kw_only=True):
    """The newest migration of one VM."""

    name: str
    uid: str
    phase: str
    since_at: float  # in this stretch: queued, being prepared, or copying
    seen_at: float  # when it was last there; now, while it is
    ended: bool = False

    @property
    def stretch(self) -> str:
        """Return "queued", "preparing" or "copying"."""
        if self.phase in QUEUED_PHASES:
            return "queued"
        return "copying" if self.phase == COPYING_PHASE else "preparing"


class Flights:
    """The migrations that were seen, by VM. One that has ended is kept until it is forgotten."""

    def __init__(self) -> None:
        self._of: dict[Subject, Flight] = {}

    def seen(self, facts: MigrationFacts, now: float) -> None:
        """Take in a migration that is in flight."""
        vm = vm_subject(facts.namespace, facts.vmi)
        flight = self._of.get(vm)
        if flight is None or flight.uid != facts.uid:
            self._of[vm] = Flight(
                name=facts.name, uid=facts.uid, phase=facts.phase, since_at=now, seen_at=now
            )
            return
        before = flight.stretch
        flight.phase, flight.seen_at, flight.ended = facts.phase, now, False
        if flight.stretch != before:
            flight.since_at = now

    def gone(self, facts: MigrationFacts, now: float) -> None:
        """Take in that a migration has ended."""
        flight = self._of.get(vm_subject(facts.namespace, facts.vmi))
        if flight is not None and flight.uid == facts.uid:
            flight.ended, flight.seen_at = True, now

    def of(self, vm: Subject) -> Flight | None:
        """Return the newest migration that was seen of a VM."""
        return self._of.get(vm)

    def forget(self, vm: Subject) -> None:
        """Forget what was seen of a VM that is gone."""
        self._of.pop(vm, None)
