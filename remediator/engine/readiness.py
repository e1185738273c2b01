"""The words by which a VM says when it is ready for those that wait for it."""

from __future__ import annotations

import re

READY_WORDS = ("up", "running", "agent", "ready")
_DELAY = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(s|m|h)?")
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def delay_s(word: str) -> float | None:
    """Read "90s", "5m", "2h" or plain seconds; None where it is none of them."""
    match = _DELAY.fullmatch(word.strip())
    return float(match[1]) * _UNITS_S[match[2] or "s"] if match else None
