"""CustomResourceDefinitions come, change their versions and go while the server runs.

Not the CRD objects themselves, only what clients see of them: paths that begin and cease to exist,
watches that end, the same objects in another shape.
"""

from __future__ import annotations

from collections.abc import Mapping

from remediator.sim.apiserver import ApiServer
from remediator.sim.resources import Convert, ResourceType


class CustomKinds:
    """Installs and removes custom kinds of one server."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def install(self, res: ResourceType, *, also: Mapping[str, Convert] | None = None) -> None:
        """Serve a kind: in the version it is stored in, and in those of ``also``."""
        self._server.registry.register(res)
        for version, convert in (also or {}).items():
            self._server.registry.alias(res, version, convert)

    def serve(self, res: ResourceType, *, only: Mapping[str, Convert]) -> None:
        """Serve a kind only in these versions from now on; open watches end.

        The objects stay as they are, with the same resourceVersions, as in Kubernetes.
        """
        registry = self._server.registry
        for version in registry.versions(res.group, res.plural):
            registry.unregister(res.group, version, res.plural)
        for version, convert in only.items():
            registry.alias(res, version, convert)
        self._server.end_watches(res)

    def remove(self, res: ResourceType) -> None:
        """Delete the kind with all its objects; open watches hear of each and end."""
        store, registry = self._server.store, self._server.registry
        for obj in store.list(res):
            metadata = obj["metadata"]
            where = (res, metadata.get("namespace", ""), metadata["name"])
            if metadata.get("finalizers"):
                store.mutate(*where, lambda each: each["metadata"].pop("finalizers"))
            if store.find(*where) is not None:
                store.delete(*where)
        for version in registry.versions(res.group, res.plural):
            registry.unregister(res.group, version, res.plural)
        self._server.end_watches(res)


def as_stored(obj: dict[str, object]) -> dict[str, object]:
    """Convert nothing: the versions differ in name only."""
    return obj
