"""Checking one link of the chain, whatever bytes somebody put there."""

from __future__ import annotations

from remediator.engine import chain
from remediator.engine.chain import ChainError, Decision, Head


def check_link(head: Head, seq: int, payload: bytes) -> tuple[Head, Decision]:
    """Return the new head and the record. Raises ChainError for anything that does not fit."""
    try:
        return chain.check_link(head, seq, payload)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec's, for bytes that are no JSON
        raise ChainError(seq, f"not a decision record: {error}") from error


def decode(payload: bytes, seq: int) -> Decision:
    """Read a record. Raises ChainError for anything that is not one."""
    try:
        return chain.decode(payload, seq)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ChainError(seq, f"not a decision record: {error}") from error
