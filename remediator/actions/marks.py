"""What remediator writes on a Node: the taints and annotations, and what each of them means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from remediator.kube.objects import Node, Taint

# Ours: keeps new pods away from a node under suspicion, before and after it is fenced. Without it
# a deleted launcher pod's successor lands on the dead node again while that still counts as Ready.
FENCED_TAINT: Final = Taint(key="remediator.io/fenced", effect="NoSchedule")

# Kubernetes' own (GA in 1.28): detach at once, evict everything. Without timeAdded, which the API
# does not need and which broke downstream clusters (rancher/rancher#51795).
OUT_OF_SERVICE_TAINT: Final = Taint(
    key="node.kubernetes.io/out-of-service", value="nodeshutdown", effect="NoExecute"
)

# "true" where spec.unschedulable was set by us: an operator's own cordon is not ours to take back.
CORDONED: Final = "remediator.io/cordoned"
# The boot that was proven to have ended when we added the out-of-service taint.
OUT_OF_SERVICE: Final = "remediator.io/out-of-service"
# The Lease's renewTime at that moment, to be compared for change only: a renewal after it under
# the same boot id voids the proof, also after a crash of the daemon.
LEASE_AT_RELEASE: Final = "remediator.io/lease-at-release"

EXCLUDE_ANNOTATION: Final = "remediator.io/exclude"  # any value
EXCLUDE_LABEL: Final = "remediation.medik8s.io/exclude-from-remediation"  # "true": hands off


def has(node: Node, wanted: Taint) -> bool:
    """Tell whether a taint of this key and effect is there; Kubernetes knows them by these two."""
    return any(_same(taint, wanted) for taint in node.taints)


def without(taints: Iterable[Taint], unwanted: Taint) -> tuple[Taint, ...]:
    """Return the taints without the one of this key and effect."""
    return tuple(taint for taint in taints if not _same(taint, unwanted))


def wire(taints: Iterable[Taint]) -> list[dict[str, str]]:
    """Return taints as a patch carries them: a merge patch replaces the whole list.

    ``timeAdded`` of other people's taints goes back too: their eviction delays count from it.
    """
    return [
        {key: value for key, value in msgspec.to_builtins(taint).items() if value}
        for taint in taints
    ]


def why_not(node: Node, uid: str) -> str:
    """Say why a node must not be touched at all; empty where it may be."""
    if node.uid != uid:
        return "the node was registered anew: it is not the one that was decided about"
    if node.labels.get(EXCLUDE_LABEL) == "true":
        return f"label {EXCLUDE_LABEL} says hands off"
    if EXCLUDE_ANNOTATION in node.annotations:
        return f"annotation {EXCLUDE_ANNOTATION} says hands off"
    return ""


def lease_anchor(node: Node, boot_id: str) -> str | None:
    """Return the renewTime noted when this boot was taken out of service, None where none was."""
    if node.annotations.get(OUT_OF_SERVICE) != boot_id:
        return None
    return node.annotations.get(LEASE_AT_RELEASE) or None


def _same(one: Taint, other: Taint) -> bool:
    return one.key == other.key and one.effect == other.effect
