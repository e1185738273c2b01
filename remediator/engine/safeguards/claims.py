"""Whose business a node is: ours, or somebody's who says so in the cluster."""

from __future__ import annotations

from remediator.engine.context import Context
from remediator.engine.model import NodeFacts, Subject

EXCLUDE_LABEL = "remediation.medik8s.io/exclude-from-remediation"  # medik8s: value must be "true"
EXCLUDE_ANNOTATION = "remediator.io/exclude"
CLAIM_PREFIX = "remediator-"  # of the holder of a medik8s node lease: the policy's name follows


def hands_off(context: Context, node: NodeFacts) -> str:
    """Return why this node is somebody else's business now, all who say so, or ""."""
    why: list[str] = []
    if node.labels.get(EXCLUDE_LABEL) == "true":
        why.append(f"it carries the label {EXCLUDE_LABEL}=true")
    if EXCLUDE_ANNOTATION in node.annotations:
        why.append(f"it carries the annotation {EXCLUDE_ANNOTATION}")
    lease = context.inventory.leases.get(node.name)
    ours = lease is not None and lease.holder.startswith(CLAIM_PREFIX)
    if lease is not None and lease.holder and not ours and lease.duration_s > 0:
        # Valid by the holder's clock or by ours: either way somebody may be at work on the node.
        expires_at = max(lease.renewed_at, lease.seen_at) + lease.duration_s
        if expires_at > context.now:
            why.append(f"{lease.holder} holds its medik8s lease")
    claims = sorted(context.inventory.hands_off.items())
    why += [claim.why or claim.name for _, claim in claims if claim.node == node.name]
    why += [claim.why or claim.name for _, claim in claims if not claim.node]
    return "; ".join(why)


def vm_hands_off(context: Context, vm: Subject) -> str:
    """Return why a VM is not ours to touch, in words, or ""."""
    facts = context.inventory.vms.get((vm.namespace, vm.name))
    if facts is not None and EXCLUDE_ANNOTATION in facts.annotations:
        return f"it carries the annotation {EXCLUDE_ANNOTATION}"
    return ""
