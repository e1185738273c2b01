"""Verbs of a story about objects: custom kinds that are installed, made, changed and deleted.

Whoever does it (an operator, another controller) is not the daemon: none of it counts as its deed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remediator.kube.client import KubeClient, PatchKind
from remediator.sim.cluster import SimCluster
from remediator.sim.resources import ResourceType
from remediator.sim.timestamps import rfc3339

NOW = "<now>"  # in a manifest: the time at which the verb acts


class ObjectVerbs:
    """The verbs ``do_…`` about objects of any kind that the cluster serves."""

    cluster: SimCluster
    _operator: KubeClient
    note: Callable[[str], None]

    def do_install_crd(
        self, kind: str, group: str, version: str, plural: str, *, namespaced: bool = True
    ) -> None:
        self.note(f"the kind {kind} ({group}/{version}) is installed")
        self.cluster.registry.register(
            ResourceType(group, version, plural, kind, namespaced, status_subresource=True)
        )

    async def do_create(self, **manifest: Any) -> None:
        """Create an object from its manifest, its status with it."""
        resource = self._resource(manifest["apiVersion"], manifest["kind"])
        meta = manifest["metadata"]
        self.note(f"{_named(manifest)} appears{_said(manifest)}")
        namespace = meta.get("namespace", "")
        body = self._timed({key: value for key, value in manifest.items() if key != "status"})
        await self._operator.create(resource.path(namespace), body)
        if "status" in manifest:
            await self._set_status(resource, namespace, meta["name"], manifest["status"])

    async def do_status(
        self, kind: str, name: str, status: dict[str, Any], namespace: str = "", version: str = ""
    ) -> None:
        resource = self._kind(kind, version)
        where = f"{namespace}/{name}" if namespace else name
        self.note(f"{kind} {where}{_said({'status': status})}")
        await self._set_status(resource, namespace, name, status)

    async def do_change(
        self, kind: str, name: str, patch: dict[str, Any], namespace: str = ""
    ) -> None:
        """Merge-patch an object: its metadata or its specification."""
        resource = self._kind(kind, "")
        self.note(f"{kind} {f'{namespace}/{name}' if namespace else name} is changed: {patch}")
        await self._operator.patch(
            resource.path(namespace, name), self._timed(patch), kind=PatchKind.MERGE
        )

    async def do_delete_object(self, kind: str, name: str, namespace: str = "") -> None:
        self.note(f"{kind} {f'{namespace}/{name}' if namespace else name} is deleted")
        await self._operator.delete(self._kind(kind, "").path(namespace, name))

    async def _set_status(
        self, resource: ResourceType, namespace: str, name: str, status: dict[str, Any]
    ) -> None:
        subresource = "status" if resource.status_subresource else ""
        path = resource.path(namespace, name, subresource)
        await self._operator.patch(path, {"status": self._timed(status)}, kind=PatchKind.MERGE)

    def _timed(self, value: Any) -> Any:
        """Put the present time where a manifest asks for it."""
        if isinstance(value, dict):
            return {key: self._timed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._timed(each) for each in value]
        return rfc3339(self.cluster.clock.now()) if value == NOW else value

    def _resource(self, api_version: str, kind: str) -> ResourceType:
        for resource in self.cluster.registry:
            if (resource.api_version, resource.kind) == (api_version, kind):
                return resource
        raise ValueError(f"the cluster does not serve {kind} in {api_version}")

    def _kind(self, kind: str, version: str) -> ResourceType:
        found = [
            resource
            for resource in self.cluster.registry
            if resource.kind == kind and version in ("", resource.api_version)
        ]
        if not found:
            raise ValueError(f"the cluster does not serve {kind}")
        return found[0]


def _named(manifest: dict[str, Any]) -> str:
    meta = manifest["metadata"]
    namespace = meta.get("namespace", "")
    return f"{manifest['kind']} {namespace + '/' if namespace else ''}{meta['name']}"


def _said(manifest: dict[str, Any]) -> str:
    """Return what a status says, in as few words as an operator would use."""
    status = manifest.get("status") or {}
    parts = [f"{c['type']}={c['status']}" for c in status.get("conditions", ())]
    parts += [f"{key} {value}" for key, value in status.items() if isinstance(value, (str, bool))]
    return f": {', '.join(parts)}" if parts else ""
