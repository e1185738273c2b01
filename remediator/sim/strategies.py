"""What the API server does to an object of each kind before it is stored.

The counterpart of the REST strategies in kubernetes/kubernetes ``pkg/registry``: defaults on
create, and what an update may touch. Only what the daemon, the controllers and the emulated hosts
can notice is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remediator.sim.resources import (
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
    ResourceType,
)
from remediator.sim.validation import check

Object = dict[str, Any]

# DefaultTolerationSeconds admission: --default-not-ready/unreachable-toleration-seconds, 300 s.
_DEFAULT_TOLERATION_S = 300


def prepare_create(res: ResourceType, obj: Object) -> None:
    """Default and check a new object, in place. Raises Problem 400 or 422."""
    if res.status_subresource and res != NODES:
        obj.pop("status", None)  # a create cannot set the status; a kubelet's of its Node can
    if prepare := _PREPARE_CREATE.get(res):
        prepare(obj)
    check(res, obj, None)


def prepare_update(res: ResourceType, new: Object, old: Object, subresource: str) -> Object:
    """Return the object to store: from ``new``, only what this request may touch.

    Raises Problem 400 or 422.
    """
    if subresource == "status":
        return _status_update(res, new, old)
    if subresource == "binding":
        return new
    if res.status_subresource:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    check(res, new, old)
    return new


def counts_as_generation(res: ResourceType, new: Object, old: Object, subresource: str) -> bool:
    """Return whether this update raises ``metadata.generation``: the specification changed.

    A binding does not count: it is written below the strategy (BindingREST).
    """
    if not res.generation or subresource in ("status", "binding"):
        return False
    return _specification(res, new) != _specification(res, old)


def _specification(res: ResourceType, obj: Object) -> Object:
    status_counts = res.custom and not res.status_subresource
    return {
        key: value
        for key, value in obj.items()
        if key != "metadata" and (key != "status" or status_counts)
    }


def grace_period_s(res: ResourceType, obj: Object, asked_s: int | None) -> int | None:
    """Return the grace of a deletion; None for kinds that are not deleted gracefully.

    Only pods are: not bound or already ended ones have none (podStrategy.CheckGracefulDelete).
    """
    if res != PODS:
        return None
    spec = obj.get("spec") or {}
    grace_s = asked_s if asked_s is not None else spec.get("terminationGracePeriodSeconds", 0)
    phase = (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Failed", "Succeeded"):
        grace_s = 0
    return int(grace_s) if grace_s >= 0 else 1


def _status_update(res: ResourceType, new: Object, old: Object) -> Object:
    result = dict(old)
    result.pop("status", None)
    if "status" in new:
        result["status"] = new["status"]
    if res.custom:
        # Only status counts; the resourceVersion stays as the check has left it.
        return result
    result["metadata"] = {
        **new["metadata"],
        "ownerReferences": old["metadata"].get("ownerReferences"),
        "finalizers": old["metadata"].get("finalizers"),
    }
    for key in ("ownerReferences", "finalizers"):
        if result["metadata"][key] is None:
            del result["metadata"][key]
    return result


def _create_pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates(toleration, key) for toleration in tolerations):
            tolerations.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": _DEFAULT_TOLERATION_S,
                }
            )
    status: Object = {"phase": "Pending"}
    if spec.get("schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": None,
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]
    obj["status"] = status


def _tolerates(toleration: Object, key: str) -> bool:
    return toleration.get("key", "") in ("", key) and toleration.get("effect", "") in (
        "",
        "NoExecute",
    )


def _create_claim(obj: Object) -> None:
    obj["status"] = {"phase": "Pending"}


def _create_volume(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    obj["status"] = {"phase": "Pending"}


def _create_namespace(obj: Object) -> None:
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"][
        "name"
    ]
    obj["status"] = {"phase": "Active"}


def _create_attachment(obj: Object) -> None:
    obj["status"] = {"attached": False}


_PREPARE_CREATE: dict[ResourceType, Callable[[Object], None]] = {
    PODS: _create_pod,
    PERSISTENT_VOLUME_CLAIMS: _create_claim,
    PERSISTENT_VOLUMES: _create_volume,
    NAMESPACES: _create_namespace,
    VOLUME_ATTACHMENTS: _create_attachment,
}
