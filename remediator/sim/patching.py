"""The patches that the API server takes: JSON patch, merge patch, strategic merge patch.

A patch never changes its input: it returns a new value, which may share parts with the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remediator.sim.problems import Problem, bad_request

Value = Any
_OPERATIONS_MAX = 10_000  # apiserver handlers/patch.go maxJSONPatchOperations

# Merge keys of the lists that strategic merge patch merges (patchMergeKey in the API types), by the
# field's path, where ``*`` stands for a list's elements. Every other list is replaced: node taints,
# tolerations, container statuses, volumesAttached, volumesInUse.
_CONTAINER_LISTS = {
    "ports": "containerPort",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
_MERGE_KEYS: dict[tuple[str, ...], str] = {
    ("metadata", "ownerReferences"): "uid",
    ("status", "conditions"): "type",
    ("status", "addresses"): "type",
    ("spec", "containers"): "name",
    ("spec", "initContainers"): "name",
    ("spec", "volumes"): "name",
    ("spec", "schedulingGates"): "name",
    ("spec", "imagePullSecrets"): "name",
    ("spec", "hostAliases"): "ip",
    ("spec", "topologySpreadConstraints"): "topologyKey",
    **{
        ("spec", containers, "*", field): key
        for containers in ("containers", "initContainers")
        for field, key in _CONTAINER_LISTS.items()
    },
}
# Lists of plain values that are merged as sets.
_MERGED_SETS = {("metadata", "finalizers"), ("spec", "podCIDRs")}
_DIRECTIVES = ("$patch", "$retainKeys")
_DELETE_FROM = "$deleteFromPrimitiveList/"
_SET_ORDER = "$setElementOrder/"


def merge_patch(target: Value, patch: Value) -> Value:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merge_patch(result.get(key), value)
        else:
            result[key] = value
    return result


def json_patch(target: Value, operations: Value) -> Value:
    """Apply a JSON patch (RFC 6902).

    Raises Problem 400 for a patch that is none, 413 for too many operations, 422 for one that does
    not fit the object: a ``test`` that fails, a path that is not there.
    """
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > _OPERATIONS_MAX:
        raise Problem(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {_OPERATIONS_MAX}, "
            f"got {len(operations)}",
        )
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request(f"Unexpected JSON patch operation: {operation!r}")
        target = _apply_operation(target, operation)
    return target


def strategic_merge_patch(target: Value, patch: Value) -> Value:
    """Apply a strategic merge patch to a built-in kind. Raises Problem 400."""
    if not isinstance(patch, dict):
        raise bad_request("invalid strategic merge patch: expected an object")
    return _merge_map(target if isinstance(target, dict) else {}, patch, ())


# --- JSON patch ---


def _refused() -> Problem:
    # What handlers/patch.go makes of any error in applying the operations.
    message = "the server rejected our request due to an error in our request"
    return Problem(422, "Invalid", message)


def _apply_operation(target: Value, operation: dict[str, Any]) -> Value:
    kind = operation.get("op")
    path = _pointer(operation["path"])
    if kind == "test":
        # An absent value equals null (evanphx/json-patch).
        if _read(target, path, or_none=True) != operation.get("value"):
            raise _refused()
        return target
    if kind in ("add", "replace"):
        if "value" not in operation:
            raise bad_request(f"Unexpected JSON patch operation: {operation!r}")
        if kind == "replace":
            # evanphx/json-patch v4 replaces an absent key too; only its parent must be there.
            _read(target, path, or_none=True)
        return _write(target, path, operation["value"], insert=kind == "add")
    if kind == "remove":
        return _without(target, path)
    if kind in ("move", "copy"):
        source = _pointer(str(operation.get("from", "")))
        value = _read(target, source)
        if kind == "move":
            target = _without(target, source)
        return _write(target, path, value, insert=True)
    raise bad_request(f"Unexpected kind: {kind}")


def _pointer(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    if not text.startswith("/"):
        raise _refused()
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def _index(values: Sequence[Value], step: str, *, end: bool = False) -> int:
    if step == "-" and end:
        return len(values)
    try:
        index = int(step)
    except ValueError:
        raise _refused() from None
    if not 0 <= index < len(values) + end:
        raise _refused()
    return index


def _read(target: Value, path: tuple[str, ...], *, or_none: bool = False) -> Value:
    for depth, step in enumerate(path):
        if isinstance(target, dict):
            if step not in target:
                if or_none and depth == len(path) - 1:
                    return None
                raise _refused()
            target = target[step]
        elif isinstance(target, list):
            target = target[_index(target, step)]
        else:
            raise _refused()
    return target


def _write(target: Value, path: tuple[str, ...], value: Value, *, insert: bool) -> Value:
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(target, dict):
        if rest and step not in target:
            raise _refused()
        return {**target, step: _write(target.get(step), rest, value, insert=insert)}
    if isinstance(target, list):
        index = _index(target, step, end=insert and not rest)
        if insert and not rest:
            return [*target[:index], value, *target[index:]]
        changed = _write(target[index], rest, value, insert=insert)
        return [*target[:index], changed, *target[index + 1 :]]
    raise _refused()


def _without(target: Value, path: tuple[str, ...]) -> Value:
    if not path:
        raise _refused()
    step, rest = path[0], path[1:]
    if isinstance(target, dict):
        if step not in target:
            raise _refused()
        if rest:
            return {**target, step: _without(target[step], rest)}
        return {key: value for key, value in target.items() if key != step}
    if isinstance(target, list):
        index = _index(target, step)
        kept = [_without(target[index], rest)] if rest else []
        return [*target[:index], *kept, *target[index + 1 :]]
    raise _refused()


# --- strategic merge patch ---


def _merge_map(target: dict[str, Any], patch: dict[str, Any], path: tuple[str, ...]) -> Value:
    directive = patch.get("$patch", "merge")
    if directive == "delete":
        return {}
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive != "merge":
        raise bad_request(f"Unknown patch type: {directive}")
    result = dict(target)
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key in _DIRECTIVES or key.startswith(_SET_ORDER):
            continue
        if key.startswith(_DELETE_FROM):
            field = key.removeprefix(_DELETE_FROM)
            result[field] = [each for each in result.get(field) or () if each not in value]
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_value(result.get(key), value, (*path, key))
    return result


def _merge_value(below: Value, value: Value, path: tuple[str, ...]) -> Value:
    if isinstance(value, dict):
        return _merge_map(below if isinstance(below, dict) else {}, value, path)
    if isinstance(value, list):
        return _merge_list(below or [], value, path)
    return value


def _merge_list(target: list[Any], patch: list[Any], path: tuple[str, ...]) -> list[Any]:
    if path in _MERGED_SETS:
        return _in_order(target, list(dict.fromkeys(patch)))
    merge_key = _MERGE_KEYS.get(path)
    if merge_key is None:
        return [_without_directives(value) for value in patch]
    if any(isinstance(each, dict) and each.get("$patch") == "replace" for each in patch):
        return [each for each in patch if "$patch" not in each]
    result = {old.get(merge_key): old for old in target}
    for each in patch:
        if not isinstance(each, dict) or merge_key not in each:
            raise bad_request(f"map: {each!r} does not contain declared merge key: {merge_key}")
        key = each[merge_key]
        if each.get("$patch") == "delete":
            result.pop(key, None)
        elif key in result:
            result[key] = _merge_map(result[key], each, (*path, "*"))
        else:
            result[key] = _without_directives(each)
    named = list(dict.fromkeys(each[merge_key] for each in patch))
    order = _in_order([old.get(merge_key) for old in target], named)
    return [result[key] for key in order if key in result]


def _in_order(server: list[Any], patch: list[Any]) -> list[Any]:
    """Return all elements in the order of the API server (strategicpatch ``mergeSortedSlice``).

    Old elements keep their order among themselves; one that only the patch has comes before every
    old one that the patch does not name.
    """
    left = [each for each in server if each not in patch]
    merged: list[Any] = []
    for each in patch:
        while left and each in server and server.index(left[0]) < server.index(each):
            merged.append(left.pop(0))
        merged.append(each)
    return merged + left


def _without_directives(value: Value) -> Value:
    if isinstance(value, dict):
        return _merge_map({}, value, ("?",))
    return value
