"""Other policies come into force while the engine runs: at once, recorded, without a restart."""

from __future__ import annotations

from collections.abc import Sequence

from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.model import Subject
from remediator.engine.rules import Policy, PolicySet


def load(context: Context, policies: Sequence[Policy]) -> bool:
    """Take other policies, and record what changed; False where nothing did.

    What is under way goes on as it was planned. What waits, or was told that no policy answers it,
    is asked about again.
    """
    before = {policy.name: policy.content_hash for policy in context.policies}
    known = PolicySet(policies)
    after = {policy.name: policy.content_hash for policy in known}
    if before == after:
        return False
    said = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("new", [name for name in after if name not in before]),
            ("gone", [name for name in before if name not in after]),
            ("changed", [name for name in after if before.get(name, after[name]) != after[name]]),
        )
        if names
    ]
    context.policies = known
    context.record(
        DecisionKind.POLICIES,
        Subject("daemon", context.identity),
        f"policies in force: {', '.join(after) or 'none'} ({'; '.join(said)})",
    )
    return True
