"""Metadata that every controller reads: keys, owners, finalizers, deletion."""

from __future__ import annotations

from typing import Any

from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import ResourceType

Obj = dict[str, Any]
"""A Kubernetes object as JSON. Objects read from the store must not be changed."""


def key_of(obj: Obj) -> Key:
    """Return (namespace, name)."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def uid_of(obj: Obj) -> str:
    """Return metadata.uid."""
    uid: str = obj["metadata"]["uid"]
    return uid


def labels_of(obj: Obj) -> dict[str, str]:
    """Return the labels; an empty dict when there are none."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    """Return the annotations; an empty dict when there are none."""
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: Obj) -> bool:
    """Return True when deletion was asked for and finalizers or grace still hold the object."""
    return obj["metadata"].get("deletionTimestamp") is not None


def finalizers_of(obj: Obj) -> list[str]:
    """Return the finalizers; an empty list when there are none."""
    return obj["metadata"].get("finalizers") or []


def add_finalizer(obj: Obj, finalizer: str) -> None:
    """Add a finalizer to an object that is being changed."""
    held = finalizers_of(obj)
    if finalizer not in held:
        obj["metadata"]["finalizers"] = [*held, finalizer]


def remove_finalizer(obj: Obj, finalizer: str) -> None:
    """Remove a finalizer from an object that is being changed."""
    held = finalizers_of(obj)
    if finalizer in held:
        obj["metadata"]["finalizers"] = [other for other in held if other != finalizer]


def owner_reference(owner: Obj, res: ResourceType) -> Obj:
    """Return the reference of an object that ``owner`` controls."""
    return {
        "apiVersion": res.api_version,
        "kind": res.kind,
        "name": owner["metadata"]["name"],
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Obj, kind: str) -> Obj | None:
    """Return the owner reference with ``controller: true`` when it is of this kind."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            found: Obj | None = reference if reference["kind"] == kind else None
            return found
    return None


def phase_of(obj: Obj) -> str:
    """Return status.phase; empty when it was never set."""
    phase: str = (obj.get("status") or {}).get("phase", "")
    return phase
