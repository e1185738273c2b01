"""The server's own part of ``metadata``: what it fills in, keeps, and sets on deletion."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from remediator.sim.problems import conflict, invalid
from remediator.sim.resources import ResourceType
from remediator.sim.strategies import grace_period_s
from remediator.sim.timestamps import parse_rfc3339, rfc3339

Object = dict[str, Any]

# apiserver storage/names/generate.go: five characters without vowels and look-alikes, after at most
# 58 of the prefix.
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_NAME_SUFFIX_LENGTH = 5
_NAME_PREFIX_LENGTH_MAX = 63 - _NAME_SUFFIX_LENGTH
FOREGROUND_FINALIZER = "foregroundDeletion"
ORPHAN_FINALIZER = "orphan"


class Marked(NamedTuple):
    """A deletion's first step: the version to store, and whether the object is then removed."""

    obj: Object
    removes: bool


def marked_deleted(
    res: ResourceType, old: Object, *, now: float, asked_s: int | None, propagation: str
) -> Marked:
    """Return what a DELETE makes of an object (rest.BeforeDelete and the generic store).

    The version is ``old`` itself when a graceful deletion is pending and this one is not shorter.
    """
    new = dict(old)
    metadata = new["metadata"] = dict(old["metadata"])
    _set_propagation(metadata, propagation)
    held = bool(metadata.get("finalizers"))
    grace_s = grace_period_s(res, old, asked_s)
    if "deletionTimestamp" in metadata and grace_s is not None:
        pending_s = metadata.get("deletionGracePeriodSeconds")
        if not pending_s:
            return Marked(new, not held)
        if asked_s is None or asked_s >= pending_s:
            return Marked(old, removes=False)
        begun_at = parse_rfc3339(metadata["deletionTimestamp"]) - pending_s
        metadata["deletionTimestamp"] = rfc3339(begun_at + asked_s)
        metadata["deletionGracePeriodSeconds"] = asked_s
        return Marked(new, asked_s == 0 and not held)
    if grace_s is None and not held:
        return Marked(old, removes=True)
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = rfc3339(now + (grace_s or 0))
        if metadata.get("generation"):
            metadata["generation"] += 1
    metadata["deletionGracePeriodSeconds"] = grace_s or 0
    return Marked(new, not grace_s and not held)


def check_preconditions(res: ResourceType, old: Object, *, uid: str, version: str) -> None:
    """Raise Problem 409 when the object is another, or another version, than the request means."""
    metadata = old["metadata"]
    if uid and uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({uid}) does not match the UID in record "
            f"({metadata['uid']}). The object might have been deleted and then recreated"
        )
        raise conflict(res, metadata["name"], why)
    if version and version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({version}) does not match the "
            f"ResourceVersion in record ({metadata['resourceVersion']}). The object might have "
            "been modified"
        )
        raise conflict(res, metadata["name"], why)


def generated_name(prefix: str, rng: random.Random) -> str:
    """Return a name from ``generateName``."""
    suffix = "".join(rng.choices(_NAME_ALPHABET, k=_NAME_SUFFIX_LENGTH))
    return prefix[:_NAME_PREFIX_LENGTH_MAX] + suffix


def new_uid(rng: random.Random) -> str:
    """Return a version 4 UUID."""
    text = f"{rng.getrandbits(128):032x}"
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def ordered(res: ResourceType, obj: Object) -> Object:
    """Return the object with kind, apiVersion and metadata first, as the server writes it."""
    metadata = obj.get("metadata")
    ordered: Object = {
        "kind": res.kind,
        "apiVersion": res.api_version,
        "metadata": metadata if isinstance(metadata, dict) else {},
    }
    for key, value in obj.items():
        ordered.setdefault(key, value)
    return ordered


def kept(res: ResourceType, metadata: Object, was: Object) -> Object:
    """Return the new metadata with everything that clients may not change put back."""
    merged = {**metadata, "name": was["name"], "uid": was["uid"]}
    for field in (
        "namespace",
        "generateName",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ):
        if field in was:
            merged[field] = was[field]
        else:
            merged.pop(field, None)
    drop_empty(merged)
    if "deletionTimestamp" in was:
        added = set(merged.get("finalizers", ())) - set(was.get("finalizers", ()))
        if added:
            text = (
                "Forbidden: no new finalizers can be added if the object is being deleted, "
                f"found new finalizers {sorted(added)}"
            )
            raise invalid(res, was["name"], [("FieldValueForbidden", "metadata.finalizers", text)])
    return merged


def drop_empty(metadata: Object) -> None:
    """Take out the collections that are empty: for the server they are absent."""
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def _set_propagation(metadata: Object, propagation: str) -> None:
    if not propagation:
        return
    ours = (FOREGROUND_FINALIZER, ORPHAN_FINALIZER)
    kept = [each for each in metadata.get("finalizers", ()) if each not in ours]
    if propagation == "Foreground":
        kept.append(FOREGROUND_FINALIZER)
    elif propagation == "Orphan":
        kept.append(ORPHAN_FINALIZER)
    if kept:
        metadata["finalizers"] = kept
    else:
        metadata.pop("finalizers", None)
