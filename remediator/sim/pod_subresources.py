"""The pod subresources that every API server has: ``binding`` and ``eviction``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from remediator.sim.object_meta import check_preconditions
from remediator.sim.problems import bad_request, conflict, too_many_requests
from remediator.sim.resources import POD_DISRUPTION_BUDGETS, PODS, ResourceType
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339

Object = dict[str, Any]


class SubresourceCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a subresource that is not plain storage."""

    store: Store
    res: ResourceType
    namespace: str
    name: str
    verb: str
    method: str
    query: dict[str, str]
    body: Object
    user: str


# Returns the HTTP status and the body, None for an empty one; may raise Problem.
SubresourceHandler = Callable[[SubresourceCall], tuple[int, Object | None]]


def success() -> Object:
    """Return the Status object that says yes."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def bind(call: SubresourceCall) -> tuple[int, Object | None]:
    """Give a pod its node, once (BindingREST in kubernetes ``pkg/registry/core/pod/storage``)."""
    node = str((call.body.get("target") or {}).get("name") or "")
    if (call.body.get("metadata") or {}).get("name") != call.name:
        raise bad_request("name in URL does not match name in Binding object")
    if not node:
        raise bad_request('Binding "" is invalid: target.name: Required value')
    pod = call.store.get(PODS, call.namespace, call.name)
    wanted = call.body.get("metadata") or {}
    check_preconditions(
        PODS,
        pod,
        uid=wanted.get("uid") or "",
        version=wanted.get("resourceVersion") or "",
    )
    why = ""
    if "deletionTimestamp" in pod["metadata"]:
        why = f"pod {call.name} is being deleted, cannot be assigned to a host"
    elif pod["spec"].get("nodeName"):
        why = f'pod {call.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
    elif pod["spec"].get("schedulingGates"):
        why = f"pod {call.name} has non-empty .spec.schedulingGates"
    if why:
        raise conflict(msgspec.structs.replace(PODS, plural="pods/binding"), call.name, why)

    def assign(pod: Object) -> None:
        pod["spec"]["nodeName"] = node
        conditions = pod["status"].setdefault("conditions", [])
        conditions[:] = [each for each in conditions if each.get("type") != "PodScheduled"]
        conditions.append(
            {
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": rfc3339(call.store.now()),
            }
        )

    call.store.mutate(
        PODS, call.namespace, call.name, assign, subresource="binding", user=call.user
    )
    return 201, success()


def is_dry_run(call: SubresourceCall) -> bool:
    """Whether nothing is to come of this call, as its query or its options say."""
    options = call.body.get("deleteOptions") or {}
    return call.query.get("dryRun") == "All" or "All" in (options.get("dryRun") or ())


def _is_protected(store: Store, pod: Object) -> bool:
    """Whether a budget allows no disruption of this pod (k8s EvictionREST)."""
    labels = pod["metadata"].get("labels") or {}
    for budget in store.list(POD_DISRUPTION_BUDGETS, pod["metadata"].get("namespace", "")):
        wanted = ((budget.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        allowed = (budget.get("status") or {}).get("disruptionsAllowed", 0)
        if allowed <= 0 and all(labels.get(key) == value for key, value in wanted.items()):
            return True
    return False


def evict(call: SubresourceCall) -> tuple[int, Object | None]:
    """Delete a pod as its eviction asks, unless a PodDisruptionBudget forbids that (429).

    The budgets' own controller is not here: ``status.disruptionsAllowed`` is what a story says.
    """
    options = call.body.get("deleteOptions") or {}
    preconditions = options.get("preconditions") or {}
    pod = call.store.get(PODS, call.namespace, call.name)
    check_preconditions(PODS, pod, uid=preconditions.get("uid") or "", version="")
    if _is_protected(call.store, pod):
        raise too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.")
    if is_dry_run(call):
        return 201, success()
    call.store.delete(
        PODS,
        call.namespace,
        call.name,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        grace_s=options.get("gracePeriodSeconds"),
        user=call.user,
    )
    return 201, success()
