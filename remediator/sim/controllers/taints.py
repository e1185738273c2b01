"""Taints and tolerations, as the scheduler and the taint-eviction controller read them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from remediator.sim.controllers.metadata import Obj

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

NO_SCHEDULE = "NoSchedule"
NO_EXECUTE = "NoExecute"
PREFER_NO_SCHEDULE = "PreferNoSchedule"


def taints_of(node: Obj) -> list[Obj]:
    """Return the node's taints."""
    return node["spec"].get("taints") or [] if "spec" in node else []


def has_taint(node: Obj, key: str, effect: str = "") -> bool:
    """Return True when the node has a taint with this key (and effect)."""
    return any(taint["key"] == key and effect in ("", taint["effect"]) for taint in taints_of(node))


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Return True when one toleration covers one taint (k8s Toleration.ToleratesTaint)."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return (toleration.get("value") or "") == (taint.get("value") or "")


def first_untolerated(pod: Obj, taints: Iterable[Obj], effects: tuple[str, ...]) -> Obj | None:
    """Return the first taint with one of these effects that the pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in taints:
        if taint["effect"] in effects and not any(tolerates(t, taint) for t in tolerations):
            return taint
    return None


def seconds_tolerated(pod: Obj, taints: Iterable[Obj]) -> float:
    """Return how long the pod may stay on a node with these NoExecute taints, in seconds.

    0 when a taint is not tolerated, infinity when every toleration is without an end
    (k8s GetMatchingTolerations and getMinTolerationTime).
    """
    limit = math.inf
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in taints:
        if taint["effect"] != NO_EXECUTE:
            continue
        matching = [t for t in tolerations if tolerates(t, taint)]
        if not matching:
            return 0.0
        # getMinTolerationTime takes the smallest of all that were used; the first match is used.
        seconds = matching[0].get("tolerationSeconds")
        if seconds is not None:
            limit = min(limit, max(0.0, float(seconds)))
    return limit


def tolerates_all(pod: Obj) -> bool:
    """Return True for a pod that no taint ever drives away."""
    return any(
        toleration.get("operator") == "Exists"
        and not toleration.get("key")
        and not toleration.get("effect")
        and toleration.get("tolerationSeconds") is None
        for toleration in pod["spec"].get("tolerations") or ()
    )
