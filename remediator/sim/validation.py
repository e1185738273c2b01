"""Checks of the API server whose failure is 422 Invalid (kubernetes ``pkg/apis/*/validation``).

Only the rules that the daemon, the controllers and the emulated hosts can run into; whole schemas
are not validated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from remediator.sim.problems import bad_request, invalid
from remediator.sim.resources import (
    LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VOLUME_ATTACHMENTS,
    ResourceType,
)

Object = dict[str, Any]
Cause = tuple[str, str, str]  # reason, field, text

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_IMMUTABLE = "field is immutable"
_POD_UPDATE_FORBIDDEN = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)
# DNS-1123 subdomain: the rule for the names of every kind here.
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
    ", and must start and end with an alphanumeric character"
)
# metav1.MicroTime reads exactly six fractional digits.
_MICRO_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$")


def check(res: ResourceType, new: Object, old: Object | None) -> None:
    """Raise Problem 422 (400 where the server cannot even decode) when a rule is broken.

    ``old`` is None for a new object.
    """
    name = new["metadata"].get("name", "")
    causes: list[Cause] = []
    if old is None and not _NAME.match(name):
        causes.append(
            ("FieldValueInvalid", "metadata.name", f'Invalid value: "{name}": {_NAME_RULE}')
        )
    if rules := _CHECKS.get(res):
        causes.extend(rules(new, old))
    if causes:
        raise invalid(res, name, causes)


def _check_pod(new: Object, old: Object | None) -> list[Cause]:
    if old is None:
        if not new["spec"].get("containers"):
            return [("FieldValueRequired", "spec.containers", "Required value")]
        if new["spec"].get("nodeName") and new["spec"].get("schedulingGates"):
            text = "Forbidden: cannot be set until all schedulingGates have been cleared"
            return [("FieldValueForbidden", "spec.nodeName", text)]
        return []
    before, after = old.get("spec") or {}, new.get("spec") or {}
    causes: list[Cause] = []
    gates_before = {gate["name"] for gate in before.get("schedulingGates") or ()}
    for gate in after.get("schedulingGates") or ():
        if gate["name"] not in gates_before:
            text = (
                "Forbidden: only deletion is allowed, but found new scheduling gate "
                f"'{gate['name']}'"
            )
            causes.append(("FieldValueForbidden", "spec.schedulingGates", text))
    tolerations = after.get("tolerations") or []
    if any(kept not in tolerations for kept in before.get("tolerations") or ()):
        text = "Forbidden: existing toleration can not be modified except its tolerationSeconds"
        causes.append(("FieldValueForbidden", "spec.tolerations", text))
    free = {"schedulingGates", "tolerations", "activeDeadlineSeconds"}
    if gates_before:
        free |= {"nodeSelector", "affinity"}  # a gated pod may still be directed
    if before.get("terminationGracePeriodSeconds", 0) < 0:
        free.add("terminationGracePeriodSeconds")
    if _pod_template(before, free) != _pod_template(after, free):
        causes.append(("FieldValueForbidden", "spec", f"Forbidden: {_POD_UPDATE_FORBIDDEN}"))
    return causes


def _pod_template(spec: Object, free: set[str]) -> Object:
    fixed = {key: value for key, value in spec.items() if key not in free and value is not None}
    for key in ("containers", "initContainers"):
        if key in fixed:
            fixed[key] = [{**container, "image": ""} for container in fixed[key]]
    return fixed


def _check_node(new: Object, old: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    spec = new.get("spec") or {}
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        field = f"spec.taints[{index}]"
        key, effect = taint.get("key", ""), taint.get("effect", "")
        if not key:
            causes.append(("FieldValueRequired", f"{field}.key", "Required value"))
        if effect not in _TAINT_EFFECTS:
            causes.append(
                (
                    "FieldValueNotSupported",
                    f"{field}.effect",
                    f'Unsupported value: "{effect}": supported values: '
                    + ", ".join(f'"{value}"' for value in _TAINT_EFFECTS),
                )
            )
        if (key, effect) in seen:
            text = f"Duplicate value: {{{key} {effect}}}"
            causes.append(("FieldValueDuplicate", field, text))
        seen.add((key, effect))
    if old is not None:
        provider = (old.get("spec") or {}).get("providerID")
        if provider and spec.get("providerID") != provider:
            text = 'Forbidden: node updates may not change providerID except from "" to valid'
            causes.append(("FieldValueForbidden", "spec.providerID", text))
    return causes


def _check_claim(new: Object, old: Object | None) -> list[Cause]:
    if old is None:
        if not new.get("spec", {}).get("accessModes"):
            text = "Required value: at least 1 access mode is required"
            return [("FieldValueRequired", "spec.accessModes", text)]
        return []
    free = {"resources", "volumeAttributesClassName"}
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if not before.get("volumeName"):
        free.add("volumeName")
    if {k: v for k, v in before.items() if k not in free} != {
        k: v for k, v in after.items() if k not in free
    }:
        text = (
            "Forbidden: spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims"
        )
        return [("FieldValueForbidden", "spec", text)]
    return []


def _check_attachment(new: Object, old: Object | None) -> list[Cause]:
    if old is not None and new.get("spec") != old.get("spec"):
        return [("FieldValueInvalid", "spec", f"Invalid value: {_IMMUTABLE}")]
    return []


def _check_lease(new: Object, old: Object | None) -> list[Cause]:
    del old
    spec = new.get("spec") or {}
    for key in ("acquireTime", "renewTime"):
        text = spec.get(key)
        if text is not None and not _MICRO_TIME.match(text):
            raise bad_request(
                'Lease in version "v1" cannot be handled as a Lease: parsing time '
                f'"{text}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse as MicroTime'
            )
    causes: list[Cause] = []
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        text = f"Invalid value: {duration}: must be greater than 0"
        causes.append(("FieldValueInvalid", "spec.leaseDurationSeconds", text))
    transitions = spec.get("leaseTransitions")
    if transitions is not None and transitions < 0:
        text = f"Invalid value: {transitions}: must be greater than or equal to 0"
        causes.append(("FieldValueInvalid", "spec.leaseTransitions", text))
    return causes


_CHECKS: dict[ResourceType, Callable[[Object, Object | None], list[Cause]]] = {
    PODS: _check_pod,
    NODES: _check_node,
    PERSISTENT_VOLUME_CLAIMS: _check_claim,
    VOLUME_ATTACHMENTS: _check_attachment,
    LEASES: _check_lease,
}
