"""Policies: documents that people write, read into the engine's rules with every fault reported."""

from __future__ import annotations

from remediator.policy.loader import (
    PolicyError,
    PolicyProblem,
    label_keys,
    load_directory,
    load_text,
    shipped_directory,
)

__all__ = [
    "PolicyError",
    "PolicyProblem",
    "label_keys",
    "load_directory",
    "load_text",
    "shipped_directory",
]
