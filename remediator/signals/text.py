"""What the texts of a signal may hold: they end up on terminals and in logs."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from remediator.engine.model import Signal
from remediator.signals.refusal import Refusal, RefusedError

# Control characters, line separators, and what turns the direction of writing: a line of a table
# must stay one line that says what it says. The same in Python's and ECMA's regular expressions.
UNFIT: Final = "[\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069]"

# Field -> characters, as model.Signal bounds them.
LENGTHS: Final = {"source": 253, "aspect": 253, "zone": 63, "detail": 1000, "by": 63}

_unfit = re.compile(UNFIT)
_lone_half = re.compile("[\\ud800-\\udfff]")


def check(signal: Signal) -> None:
    """See that every text of a signal is fit to be shown. Raises RefusedError."""
    for field in LENGTHS:
        if _unfit.search(getattr(signal, field)):
            raise RefusedError(Refusal.BAD_TEXT, f"{field} holds a control character")


def fit(signal: Signal) -> Signal:
    """Return the signal as it may be published: texts in one line, cut to their bounds.

    What devices and programs say of themselves goes into details; no word of theirs may cost us
    the reading.
    """
    changed = {}
    for field, length_max in LENGTHS.items():
        text: str = getattr(signal, field)
        if len(text) > length_max or not text.isprintable():
            text = _lone_half.sub("?", _unfit.sub(" ", text))
            if len(text) > length_max:
                text = text[: length_max - 1] + "…"
            changed[field] = text
    return msgspec.structs.replace(signal, **changed) if changed else signal
