"""Lists: resourceVersion semantics, selectors, and pages that are one consistent snapshot.

https://kubernetes.io/docs/reference/using-api/api-concepts/ ("Retrieving large results sets in
chunks", "Resource versions").
"""

from __future__ import annotations

import base64
import binascii
import bisect
from collections.abc import Mapping
from typing import Any

import msgspec

from remediator.sim.problems import Problem, bad_request, expired
from remediator.sim.resources import ResourceType
from remediator.sim.selectors import selection
from remediator.sim.store import Store
from remediator.sim.watching import StoredObject, encode_json

Query = Mapping[str, str]

_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter, or use the continue token in this response to "
    "retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)
_LIST_EXPIRED = "The resourceVersion for the provided list is too old."


class _Token(msgspec.Struct):
    """A continue token: where the next page starts, in the snapshot of which version.

    ``rv`` -1 asks for the rest as it is now (after the snapshot expired).
    """

    rv: int
    start: str
    v: str = "meta.k8s.io/v1"


def list_body(store: Store, res: ResourceType, namespace: str, query: Query) -> bytes:
    """Return the JSON text of a list.

    Raises Problem 400, 410 (the version is forgotten), 422 (options that exclude each other),
    504 (a version that is not there yet).
    """
    check_list_options(query)
    token = _read_token(query.get("continue", ""))
    if token is not None and query.get("resourceVersion", "") not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")
    limit = _limit(query)
    version, found = _snapshot(store, res, namespace, query, token, paged=limit > 0)
    if token is not None:
        found = found[bisect.bisect_right(found, token.start, key=_key_of) :]
    wanted = selection(res, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    if not wanted.everything:
        found = [stored for stored in found if wanted.matches(stored.obj)]
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if limit and len(found) > limit:
        if wanted.everything:
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
        metadata["continue"] = _write_token(_Token(version, found[-1].key))
    return b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}' % (
        res.kind.encode(),
        res.api_version.encode(),
        encode_json(metadata),
        b",".join(_items(res, found)),
    )


def check_list_options(query: Query) -> None:
    """Raise Problem 422 for options of a list that exclude each other."""
    match = query.get("resourceVersionMatch", "")
    causes: list[str] = []
    if match:
        field = "resourceVersionMatch: Forbidden: resourceVersionMatch"
        if not query.get("resourceVersion"):
            causes.append(f"{field} is forbidden unless resourceVersion is provided")
        if query.get("continue"):
            causes.append(f"{field} is forbidden when continue is provided")
        if match not in ("Exact", "NotOlderThan"):
            causes.append(f'resourceVersionMatch: Unsupported value: "{match}"')
        if match == "Exact" and query.get("resourceVersion") == "0":
            causes.append(f'{field} "exact" is forbidden for resourceVersion "0"')
    if query.get("sendInitialEvents"):
        causes.append("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")
    if causes:
        raise invalid_options("ListOptions", causes)


def invalid_options(kind: str, causes: list[str]) -> Problem:
    """422: the request's options break a rule."""
    text = causes[0] if len(causes) == 1 else "[" + ", ".join(causes) + "]"
    message = f'{kind}.meta.k8s.io "" is invalid: {text}'
    details = {"group": "meta.k8s.io", "kind": kind}
    return Problem(422, "Invalid", message, details=details)


def parse_version(text: str) -> int:
    """Return a resourceVersion, 0 when empty. Raises Problem 400."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise bad_request(f"Invalid value: {text!r}: must be a resource version")
    return int(text)


def check_not_in_future(store: Store, version: int) -> None:
    """Raise Problem 504 for a version that this server has not seen yet.

    A real server first waits 3 s for it (watch_cache.go blockTimeout).
    """
    if version <= store.resource_version:
        return
    details = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Too large resource version: {version}, current: {store.resource_version}"
    raise Problem(504, "Timeout", message, details=details, headers={"retry-after": "1"})


def initial_events(query: Query, *, watch_list: bool) -> bool | None:
    """Return what ``sendInitialEvents`` asks for, None when it is absent.

    Raises Problem 422 (ValidateListOptions in apimachinery).
    """
    match = query.get("resourceVersionMatch", "")
    asked = query.get("sendInitialEvents")
    text = ""
    if asked is None and match:
        text = (
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch "
            "unless sendInitialEvents is provided"
        )
    elif asked is not None and not watch_list:
        text = (
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless "
            "the WatchList feature gate is enabled"
        )
    elif asked is not None and match != "NotOlderThan":
        text = (
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting "
            "resourceVersionMatch to NotOlderThan"
        )
    if text:
        raise invalid_options("ListOptions", [text])
    return None if asked is None else is_true(asked)


def is_true(text: str | None) -> bool:
    """Read a flag as apimachinery does: anything but absent, ``0`` and ``false`` is true."""
    return text is not None and text.lower() not in ("0", "false")


def _snapshot(
    store: Store,
    res: ResourceType,
    namespace: str,
    query: Query,
    token: _Token | None,
    *,
    paged: bool,
) -> tuple[int, list[StoredObject]]:
    """Return the objects to list and the version they are of."""
    current = store.resource_version
    if token is not None:
        if token.rv < 0:
            return current, store.stored_list(res, namespace)
        found = store.stored_list_at(res, namespace, token.rv)
        if found is None:
            rest = _write_token(_Token(-1, token.start))
            raise expired(_CONTINUE_EXPIRED, continue_token=rest)
        return token.rv, found
    version = parse_version(query.get("resourceVersion", ""))
    check_not_in_future(store, version)
    match = query.get("resourceVersionMatch", "")
    if match == "Exact" or (paged and version and not match):
        found = store.stored_list_at(res, namespace, version)
        if found is None:
            raise expired(_LIST_EXPIRED)
        return version, found
    return current, store.stored_list(res, namespace)


def _limit(query: Query) -> int:
    text = query.get("limit", "")
    try:
        limit = int(text) if text else 0
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    # A list at version "0" comes from the watch cache whole, whatever the limit.
    return 0 if limit < 0 or query.get("resourceVersion") == "0" else limit


def _items(res: ResourceType, found: list[StoredObject]) -> list[bytes]:
    if res.custom:
        return [stored.encoded() for stored in found]
    # Items of built-in lists carry neither kind nor apiVersion; both stand first in every object.
    skip = len(f'{{"kind":"{res.kind}","apiVersion":"{res.api_version}",')
    return [b"{" + stored.encoded()[skip:] for stored in found]


def _key_of(stored: StoredObject) -> str:
    return stored.key


def _write_token(token: _Token) -> str:
    return base64.urlsafe_b64encode(encode_json(token)).decode().rstrip("=")


def _read_token(text: str) -> _Token | None:
    if not text:
        return None
    try:
        padded = text + "=" * (-len(text) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Token)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
