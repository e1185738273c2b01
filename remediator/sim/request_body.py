"""Bodies of requests: decoded and held against the path that they were sent to."""

from __future__ import annotations

from typing import Any

import msgspec

from remediator.sim.patching import json_patch, merge_patch, strategic_merge_patch
from remediator.sim.problems import Problem, bad_request
from remediator.sim.resources import ResourceType
from remediator.sim.routes import Route
from remediator.sim.watching import decode_json

Object = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_OBJECT_TYPES = ("application/json", "application/yaml")


def media_type(content_type: str | None) -> str:
    """Return a Content-Type without its parameters."""
    return (content_type or "").partition(";")[0].strip().lower()


def read_object(res: ResourceType, route: Route, content_type: str | None, body: bytes) -> Object:
    """Decode the object of a POST or PUT and hold it against its path.

    Raises Problem 400, 415.
    """
    kind = media_type(content_type) or _OBJECT_TYPES[0]
    if kind not in _OBJECT_TYPES:
        raise unsupported_media(_OBJECT_TYPES)
    obj = decode(body, yaml=kind == "application/yaml")
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata") or {}, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {res.kind})")
    if res.custom and not obj.get("kind"):
        raise bad_request("Object 'Kind' is missing in the request's body")
    _match("kind", obj.get("kind") or res.kind, res.kind)
    _match("apiVersion", obj.get("apiVersion") or res.api_version, res.api_version)
    metadata = obj["metadata"] = dict(obj.get("metadata") or {})
    if res.namespaced:
        if (metadata.get("namespace") or route.namespace) != route.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        metadata["namespace"] = route.namespace
    if route.name and metadata.get("name", "") != route.name:
        raise bad_request(
            f"the name of the object ({metadata.get('name', '')}) does not match the name on the "
            f"URL ({route.name})"
        )
    return obj


def read_options(body: bytes) -> Object:
    """Decode a body that may be empty (DeleteOptions, Binding, subresource options).

    Raises Problem 400.
    """
    if not body.strip():
        return {}
    options = decode(body)
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise bad_request("the body of the request is not an object")
    return options


def decode(body: bytes, *, yaml: bool = False) -> Any:
    """Decode JSON, or YAML where it may be that. Raises Problem 400."""
    try:
        return decode_json(body)
    except msgspec.DecodeError as error:
        if yaml:
            return _decode_yaml(body)
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def patched(res: ResourceType, kind: str, target: Object, patch: Any) -> Object:
    """Return ``target`` under a patch of one of ``patch_types``. Raises Problem 400, 422."""
    if kind == JSON_PATCH:
        result = json_patch(target, patch)
    elif kind == MERGE_PATCH or (kind == APPLY_PATCH and res.custom):
        result = merge_patch(target, patch)
    else:
        result = strategic_merge_patch(target, patch)
    if not isinstance(result, dict) or not isinstance(result.get("metadata"), dict):
        raise bad_request("the patched object has no metadata")
    return result


def patch_types(res: ResourceType) -> tuple[str, ...]:
    """Return the media types of the patches that a kind takes."""
    if res.custom:
        return (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)
    return (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)


def unsupported_patch(res: ResourceType) -> Problem:
    """415: no such kind of patch. For built-in kinds the router refuses it, in its own words."""
    if res.custom:
        return unsupported_media(patch_types(res))
    return Problem(415, "UnsupportedMediaType", "415: Unsupported Media Type")


def unsupported_media(accepted: tuple[str, ...]) -> Problem:
    """415: the body is of a type that is not taken here."""
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return Problem(415, "UnsupportedMediaType", message)


def _match(field: str, given: Any, wanted: str) -> None:
    if given != wanted:
        raise bad_request(
            f"the {field} in the data ({given}) does not match the expected {field} ({wanted})"
        )


def _decode_yaml(body: bytes) -> Any:
    import yaml  # noqa: PLC0415 - 40 ms that almost no simulation needs

    try:
        return yaml.safe_load(body)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error
