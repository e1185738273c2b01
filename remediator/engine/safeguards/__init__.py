"""Safeguards: guards and budgets, asked before anything is disrupted; each answer is recorded.

They fail closed for a disruption: what is not known to be safe waits. More failures mean more care,
not more haste. They fail open for a clean-up: what we have put on a node is always taken back.
"""

from __future__ import annotations

from remediator.engine.safeguards.claims import (
    CLAIM_PREFIX,
    EXCLUDE_ANNOTATION,
    EXCLUDE_LABEL,
    hands_off,
    vm_hands_off,
)
from remediator.engine.safeguards.node_guards import GUARDS, REPLICA_SET_LABEL, ask, own_node
from remediator.engine.safeguards.pauses import PAUSE_ANNOTATION, held, ignored, paused, stops
from remediator.engine.safeguards.rows import GRANT, REFUSE, WAIT, refusal_key, withheld
from remediator.engine.safeguards.shares import share_limit, unhealthy, unheard
from remediator.engine.safeguards.vm_guards import VM_GUARDS, ask_vm

__all__ = [
    "CLAIM_PREFIX",
    "EXCLUDE_ANNOTATION",
    "EXCLUDE_LABEL",
    "GRANT",
    "GUARDS",
    "PAUSE_ANNOTATION",
    "REFUSE",
    "REPLICA_SET_LABEL",
    "VM_GUARDS",
    "WAIT",
    "ask",
    "ask_vm",
    "hands_off",
    "held",
    "ignored",
    "own_node",
    "paused",
    "refusal_key",
    "share_limit",
    "stops",
    "unhealthy",
    "unheard",
    "vm_hands_off",
    "withheld",
]
