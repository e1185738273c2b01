"""The rehearsal, under the name by which the tests and benches know it."""

from __future__ import annotations

from pathlib import Path

import yaml

from remediator.rehearsal.doors import AuditedHttp, AuditedTransport, DeadlyJournal, WallClock
from remediator.rehearsal.rehearsal import (
    CLIENT,
    EPOCH,
    PLACES_CHECK_S,
    PROBES,
    WEBHOOK_SERVICE,
    Rehearsal,
    Seat,
)

# The webhook as it is deployed.
WEBHOOK_CONFIGURATION = yaml.safe_load(
    (Path(__file__).parents[2] / "deploy" / "admission" / "webhook.yaml").read_text()
)

__all__ = [
    "CLIENT",
    "EPOCH",
    "PLACES_CHECK_S",
    "PROBES",
    "WEBHOOK_CONFIGURATION",
    "WEBHOOK_SERVICE",
    "AuditedHttp",
    "AuditedTransport",
    "DeadlyJournal",
    "Rehearsal",
    "Seat",
    "WallClock",
]
