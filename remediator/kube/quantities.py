"""Kubernetes quantities as whole numbers: ``500m``, ``4Gi``, ``1.5``, ``2e3``."""

from __future__ import annotations

import functools
import math
import re
from decimal import Decimal, InvalidOperation

_BINARY = {
    suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)
}
_DECIMAL = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
}
_FORM = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]{1,2})?)([A-Za-z]{0,2})")
_LENGTH_MAX = 40  # the API writes fewer than 30 characters


@functools.lru_cache(maxsize=8192)
def whole(text: str | float) -> int:
    """Return a quantity in whole units (bytes, pieces), rounded up; 0 for what is none."""
    return _scaled(text, 1)


@functools.lru_cache(maxsize=8192)
def millis(text: str | float) -> int:
    """Return a quantity in thousandths (millicores), rounded up; 0 for what is none."""
    return _scaled(text, 1000)


def _scaled(text: str | float, scale: int) -> int:
    match = _FORM.fullmatch(str(text).strip()[:_LENGTH_MAX])
    if match is None:
        return 0
    number, suffix = match.groups()
    factor = Decimal(_BINARY[suffix]) if suffix in _BINARY else _DECIMAL.get(suffix)
    try:
        return 0 if factor is None else math.ceil(Decimal(number) * factor * scale)
    except (InvalidOperation, OverflowError):
        return 0
