"""Policies: documents that people write, read into the engine's rules with every fault reported."""

from __future__ import annotations

from remediator.policy.loader import (
    PolicyError,
    PolicyProblem,
    Reading,
    label_keys,
    load_directory,
    load_text,
    read,
    read_text,
    shipped_directory,
    vm_label_keys,
)

__all__ = [
    "PolicyError",
    "PolicyProblem",
    "Reading",
    "label_keys",
    "load_directory",
    "load_text",
    "read",
    "read_text",
    "shipped_directory",
    "vm_label_keys",
]
