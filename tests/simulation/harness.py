"""The rehearsal, under the name by which the tests and benches know it."""

from __future__ import annotations

from remediator.rehearsal.doors import AuditedHttp, AuditedTransport, DeadlyJournal, WallClock
from remediator.rehearsal.rehearsal import (
    CLIENT,
    EPOCH,
    PLACES_CHECK_S,
    PROBES,
    Rehearsal,
    Seat,
)

__all__ = [
    "CLIENT",
    "EPOCH",
    "PLACES_CHECK_S",
    "PROBES",
    "AuditedHttp",
    "AuditedTransport",
    "DeadlyJournal",
    "Rehearsal",
    "Seat",
    "WallClock",
]
