"""Kubernetes quantities as numbers: ``500m``, ``4Gi``, ``1.5``."""

from __future__ import annotations

from functools import lru_cache

_SUFFIXES: dict[str, float] = {
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
}


@lru_cache(maxsize=4096)
def quantity(text: str | float) -> float:
    """Return a quantity in its base unit (cores, bytes, pieces). Raises ValueError."""
    if isinstance(text, int | float):
        return float(text)
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * factor
    return float(text)


def mebibytes(size: float) -> str:
    """Return bytes as a quantity in Mi, rounded up."""
    return f"{-int(-size // 2**20)}Mi"
