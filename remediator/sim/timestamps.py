"""Kubernetes times: ``metav1.Time`` (whole seconds) and ``metav1.MicroTime``, always UTC."""

from __future__ import annotations

import datetime as dt
import functools


@functools.lru_cache(maxsize=1024)
def _whole_second(second: int) -> str:
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(at: float) -> str:
    """Return epoch seconds as ``metav1.Time`` writes them: cut to the second."""
    return _whole_second(int(at // 1)) + "Z"


def rfc3339_micro(at: float) -> str:
    """Return epoch seconds as ``metav1.MicroTime`` writes them: exactly six digits."""
    micros = round(at * 1_000_000)
    return f"{_whole_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


def parse_rfc3339(text: str) -> float:
    """Return the epoch seconds of either form. Raises ValueError."""
    return dt.datetime.fromisoformat(text).timestamp()
