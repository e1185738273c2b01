"""Durations as people write them: ``90s``, ``5m``, ``1h30m``, ``250ms``, or plain seconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` means.

    Units: ms, s, m, h, d; several may follow each other (``1h30m``). A bare number is seconds.
    Raises ValueError, whose text shows how to write it.
    """
    trimmed = text.strip()
    if _PLAIN.fullmatch(trimmed):
        return float(trimmed)
    if not _WHOLE.fullmatch(trimmed):
        raise ValueError(f"{text!r} is not a duration; write 90s, 5m, 1h30m or a number of seconds")
    return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(trimmed))


def format_duration(seconds: float) -> str:
    """Return a short text for a human: ``0.25 s``, ``12.4 s``, ``5 min``, ``1 h 30 min``."""
    if not math.isfinite(seconds):
        return "for ever" if seconds > 0 else "unknown"
    sign = "-" if seconds < 0 else ""
    left = abs(seconds)
    if left < 10:
        return f"{sign}{left:.2f}".rstrip("0").rstrip(".") + " s"
    if left < 90:
        return f"{sign}{left:.1f}".rstrip("0").rstrip(".") + " s"
    minutes, rest = divmod(round(left), 60)
    if minutes < 60:
        return f"{sign}{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{sign}{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = divmod(hours, 24)
    return f"{sign}{days} d" + (f" {hours} h" if hours else "")


def parse_moment(text: str, now: float) -> float:
    """Return the epoch seconds that ``text`` means.

    ``2h`` or ``90s`` is so long before ``now``; ``2026-11-20T03:12`` and the like are ISO 8601, UTC
    where no zone is given; a bare number is epoch seconds. Raises ValueError.
    """
    trimmed = text.strip()
    if _PLAIN.fullmatch(trimmed):
        return float(trimmed)
    if _WHOLE.fullmatch(trimmed):
        return now - parse_duration(trimmed)
    try:
        when = datetime.fromisoformat(trimmed)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; write 2h (ago), 2026-11-20T03:12 (UTC) or epoch seconds"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
