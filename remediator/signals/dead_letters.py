"""Messages that were not let in, put aside with the reason: bounded in size, rate and log lines."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from remediator.bus import subjects
from remediator.bus.protocols import DeadLetterOffice
from remediator.metrics import METRICS, Metrics
from remediator.signals.refusal import Refusal, RefusedError

log = structlog.get_logger(__name__)

# A flood of garbage must not take the way of real signals: so many letters a second, and a stock
# for the first moments of a new kind of fault. What is over is counted.
LETTERS_PER_S: Final = 20.0
LETTERS_AT_ONCE: Final = 200
PAYLOAD_BYTES_MAX: Final = 4096  # of a letter; the whole length stands in a header
WHY_LENGTH_MAX: Final = 200
LOG_EVERY_S: Final = 10.0  # one line per reason

HEADER_REASON: Final = "Remediator-Reason"
HEADER_WHY: Final = "Remediator-Why"
HEADER_SUBJECT: Final = "Remediator-Subject"
HEADER_TIME: Final = "Remediator-Time"
HEADER_BYTES: Final = "Remediator-Bytes"


class DeadLetters:
    """Counts refusals, buries what it may, and says a few of them aloud. Never raises.

    ``buried`` and ``dropped`` add up to the refusals. Without an ``office`` nothing is buried.
    """

    def __init__(self, office: DeadLetterOffice | None, *, metrics: Metrics = METRICS) -> None:
        self._office = office
        self._metrics = metrics
        self._stock = float(LETTERS_AT_ONCE)
        self._stocked_at = 0.0
        self._said_at: dict[Refusal, float] = {}
        self._unsaid: dict[Refusal, int] = {}
        self.buried = 0
        self.dropped = 0

    def put(self, subject: str, payload: bytes, refused: RefusedError, now: float) -> None:
        """Put one message aside."""
        self._metrics.refused(refused.reason.value)
        if self._office is not None and self._may(now):
            self.buried += 1
            self._metrics.dead_letters_sent.inc()
            self._office.bury(
                subjects.dead_letter(refused.reason.value, subject),
                payload[:PAYLOAD_BYTES_MAX],
                _headers(subject, payload, refused, now),
            )
        else:
            self.dropped += 1
            self._metrics.dead_letters_dropped.inc()
        self._say(subject, refused, now)

    def _may(self, now: float) -> bool:
        """Take one from the stock, which fills with time; time may not be set back, see Clock."""
        passed_s = max(0.0, now - self._stocked_at)
        self._stocked_at = now
        self._stock = min(float(LETTERS_AT_ONCE), self._stock + passed_s * LETTERS_PER_S)
        if self._stock < 1.0:
            return False
        self._stock -= 1.0
        return True

    def _say(self, subject: str, refused: RefusedError, now: float) -> None:
        said_at = self._said_at.get(refused.reason)
        if said_at is not None and now - said_at < LOG_EVERY_S:
            self._unsaid[refused.reason] = self._unsaid.get(refused.reason, 0) + 1
            return
        self._said_at[refused.reason] = now
        log.warning(
            "signal_refused",
            reason=refused.reason.value,
            why=refused.why[:WHY_LENGTH_MAX],
            subject=subject[:WHY_LENGTH_MAX],
            unsaid=self._unsaid.pop(refused.reason, 0),
        )


def _headers(subject: str, payload: bytes, refused: RefusedError, now: float) -> Mapping[str, str]:
    return {
        HEADER_REASON: refused.reason.value,
        HEADER_WHY: _one_line(refused.why, WHY_LENGTH_MAX),
        HEADER_SUBJECT: _one_line(subject, 4 * subjects.NAME_LENGTH_MAX),
        HEADER_TIME: datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        HEADER_BYTES: str(len(payload)),
    }


def _one_line(text: str, length_max: int) -> str:
    """Return text that a header can carry: printable ASCII, the rest escaped."""
    escaped = text.encode("unicode_escape").decode("ascii")
    return escaped[:length_max].strip() or "-"
