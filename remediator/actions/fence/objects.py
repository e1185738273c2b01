"""Objects that a fence method creates or follows in the cluster, read and written as plain trees.

Custom resources of others are kept whole (``dict``), so that nothing of theirs is lost in a write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from remediator.clock import Clock
from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.errors import ApiError, ConflictError, NotFoundError
from remediator.kube.transport import TransportError

Tree = dict[str, Any]

POLL_S: Final = 1.0  # remediators and BMCs need seconds to minutes; one read costs milliseconds
REQUEST_TIMEOUT_S: Final = 5.0

# On everything that we create: who owns it, for which node it stands, and in which boot.
MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "remediator"}
NODE_LABEL: Final = "remediator.io/node"
BOOT_ANNOTATION: Final = "remediator.io/boot-id"
ACTION_ANNOTATION: Final = "remediator.io/action"


class ObjectsError(Exception):
    """The API server refused or did not answer, or has no such kind; one line."""


class Kind:
    """Where objects of one kind live."""

    def __init__(self, api_version: str, plural: str, *, namespaced: bool) -> None:
        self.api_version = api_version
        self.plural = plural
        self.namespaced = namespaced

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of the collection or of one object."""
        group = "/apis/" if "/" in self.api_version else "/api/"
        parts = [f"{group}{self.api_version}"]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        return "/".join(parts)


class Objects:
    """Reads and writes trees; what the API server refuses comes out as ObjectsError."""

    def __init__(self, client: KubeClient, clock: Clock) -> None:
        self._client = client
        self.clock = clock
        self._kinds: dict[tuple[str, str], Kind] = {}

    async def kind(self, api_version: str, kind: str) -> Kind:
        """Return where a kind lives, as the API server tells it. Raises ObjectsError."""
        known = self._kinds.get((api_version, kind))
        if known is not None:
            return known
        group = "/apis/" if "/" in api_version else "/api/"
        try:
            listed = await self._client.get(
                f"{group}{api_version}", dict, timeout_s=REQUEST_TIMEOUT_S
            )
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{kind} of {api_version}: {error}") from error
        for resource in listed.get("resources") or ():
            if resource.get("kind") == kind and "/" not in resource.get("name", "/"):
                found = Kind(
                    api_version, resource["name"], namespaced=bool(resource.get("namespaced"))
                )
                self._kinds[api_version, kind] = found
                return found
        raise ObjectsError(f"the API server has no {kind} in {api_version}")

    async def read(self, kind: Kind, name: str, namespace: str = "") -> Tree | None:
        """Return one object, None where there is none. Raises ObjectsError."""
        path = kind.path(namespace, name)
        try:
            return await self._client.get(path, dict, timeout_s=REQUEST_TIMEOUT_S)
        except NotFoundError as error:
            if error.reason != "NotFound":  # a proxy's, or the kind is gone: says nothing about it
                raise ObjectsError(f"{path}: {error}") from error
            return None
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{path}: {error}") from error

    async def preferred(self, group: str, kind: str) -> Kind:
        """Return where a kind lives in the version that its group prefers. Raises ObjectsError."""
        try:
            told = await self._client.get(f"/apis/{group}", dict, timeout_s=REQUEST_TIMEOUT_S)
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{kind} of {group}: {error}") from error
        versions = [told.get("preferredVersion") or {}, *(told.get("versions") or ())]
        for version in versions:
            try:
                return await self.kind(str(version.get("groupVersion", "")), kind)
            except ObjectsError:
                continue  # served in another version of the group
        raise ObjectsError(f"the API server has no {kind} in {group}")

    async def all_of(self, kind: Kind, namespace: str = "") -> list[Tree]:
        """Return all objects of a kind; for kinds with few. Raises ObjectsError."""
        path = kind.path(namespace)
        try:
            listed = await self._client.get(path, dict, timeout_s=REQUEST_TIMEOUT_S)
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{path}: {error}") from error
        items: list[Tree] = listed.get("items") or []
        return items

    async def ours(self, kind: Kind, node: str, namespace: str = "") -> list[Tree]:
        """Return what we created for a node. Raises ObjectsError."""
        path = kind.path(namespace)
        labels = {**MANAGED_BY, NODE_LABEL: label_value(node)}
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        try:
            listed = await self._client.get(
                path, dict, query=[("labelSelector", selector)], timeout_s=REQUEST_TIMEOUT_S
            )
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{path}: {error}") from error
        items: list[Tree] = listed.get("items") or []
        return items

    async def create(self, kind: Kind, tree: Tree, namespace: str = "") -> Tree:
        """Create an object. Raises ConflictError where the name is taken, ObjectsError."""
        path = kind.path(namespace)
        try:
            return await self._client.create(path, tree, dict, timeout_s=REQUEST_TIMEOUT_S)
        except ConflictError:
            raise
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{path}: {error}") from error

    async def patch(
        self, kind: Kind, name: str, patch: Mapping[str, Any], namespace: str = ""
    ) -> Tree | None:
        """Merge ``patch``; None where the object is gone. Raises ObjectsError."""
        path = kind.path(namespace, name)
        try:
            return await self._client.patch(
                path, patch, kind=PatchKind.MERGE, result=dict, timeout_s=REQUEST_TIMEOUT_S
            )
        except NotFoundError:
            return None
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{path}: {error}") from error

    async def delete(self, kind: Kind, tree: Tree) -> None:
        """Delete exactly this object, unless it is gone or another by now. Raises ObjectsError."""
        metadata = tree["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        try:
            await self._client.delete(path, uid=metadata["uid"], timeout_s=REQUEST_TIMEOUT_S)
        except (NotFoundError, ConflictError):
            return
        except (ApiError, TransportError) as error:
            raise ObjectsError(f"{path}: {error}") from error


def marks(node: str, boot_id: str, action_id: str) -> Tree:
    """Return the labels and annotations of an object that we create for a node."""
    return {
        "labels": {**MANAGED_BY, NODE_LABEL: label_value(node)},
        "annotations": {BOOT_ANNOTATION: boot_id, ACTION_ANNOTATION: action_id},
    }


def label_value(node: str) -> str:
    """Return a node's name as a label value, which has at most 63 characters: else its hash."""
    return node if len(node) <= 63 else hashlib.sha256(node.encode()).hexdigest()[:63]


def condition(tree: Tree, type_: str) -> tuple[str, str]:
    """Return a condition's status and, in words, why; empty where it is absent."""
    for each in (tree.get("status") or {}).get("conditions") or ():
        if each.get("type") == type_:
            words = " ".join(part for part in (each.get("reason"), each.get("message")) if part)
            return str(each.get("status", "")), words
    return "", ""


def annotation(tree: Tree, key: str) -> str | None:
    """Return an annotation's value, None where it is absent."""
    found: str | None = (tree["metadata"].get("annotations") or {}).get(key)
    return found


def is_ours(tree: Tree) -> bool:
    """Whether we created it."""
    labels = tree["metadata"].get("labels") or {}
    return MANAGED_BY.items() <= labels.items()
