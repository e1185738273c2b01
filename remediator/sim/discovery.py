"""Discovery: which groups, versions and kinds the simulated API server serves.

In both forms that Kubernetes has: by group and version, and aggregated (one document for all,
given to whoever accepts it; 1.26 and newer).
"""

from __future__ import annotations

from typing import Any

from remediator.kube.transport import Response
from remediator.sim.resources import Registry, ResourceType
from remediator.sim.watching import encode_json

# The release whose behaviour the simulation follows (the lab's).
_VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2",
    "gitCommit": "simulated",
    "gitTreeState": "clean",
    "buildDate": "2026-06-01T00:00:00Z",
    "goVersion": "go1.26",
    "compiler": "gc",
    "platform": "linux/amd64",
}
# What a client names in its Accept header to get one document for all groups.
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def discover(registry: Registry, path: str, accept: str) -> Response | None:
    """Answer with the discovery document at this path, None when there is none.

    ``accept`` is what the client would like, in its Accept header.
    """
    kind = "application/json"
    found = _document(registry, path)
    if path == "/apis" and AGGREGATED in accept:
        kind, found = AGGREGATED, _aggregate(registry)
    if found is None:
        return None
    return Response(status=200, headers={"content-type": kind}, body=encode_json(found))


def _document(registry: Registry, path: str) -> dict[str, Any] | None:
    parts = path.strip("/").split("/")
    if parts == ["version"]:
        return _VERSION
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if parts == ["apis"]:
        groups = {res.group: None for res in registry if res.group}
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group(registry, name) for name in groups],
        }
    if parts[0] == "api" and len(parts) == 2:
        return _resource_list(registry, "", parts[1])
    if parts[0] == "apis" and len(parts) == 2:
        served = any(res.group == parts[1] for res in registry)
        group = {"kind": "APIGroup", "apiVersion": "v1", **_group(registry, parts[1])}
        return group if served else None
    if parts[0] == "apis" and len(parts) == 3:
        return _resource_list(registry, parts[1], parts[2])
    return None


def _aggregate(registry: Registry) -> dict[str, Any]:
    """Return everything below ``/apis`` as one APIGroupDiscoveryList."""
    groups: dict[str, dict[str, list[ResourceType]]] = {}
    for res in registry:
        if res.group:
            groups.setdefault(res.group, {}).setdefault(res.version, []).append(res)
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": group, "creationTimestamp": None},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [_described(res) for res in served],
                    }
                    for version, served in versions.items()
                ],
            }
            for group, versions in groups.items()
        ],
    }


def _described(res: ResourceType) -> dict[str, Any]:
    return {
        "resource": res.plural,
        "responseKind": {"group": res.group, "version": res.version, "kind": res.kind},
        "scope": "Namespaced" if res.namespaced else "Cluster",
        "singularResource": res.kind.lower(),
        "verbs": _VERBS,
    }


def _group(registry: Registry, name: str) -> dict[str, Any]:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for version in {res.version: None for res in registry if res.group == name}
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0] if versions else {}}


def _resource_list(registry: Registry, group: str, version: str) -> dict[str, Any] | None:
    served = [res for res in registry if (res.group, res.version) == (group, version)]
    if not served:
        return None
    resources: list[dict[str, Any]] = []
    for res in served:
        resources.append(_resource(res, res.plural, _VERBS))
        if res.status_subresource:
            resources.append(_resource(res, f"{res.plural}/status", ["get", "patch", "update"]))
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def _resource(res: ResourceType, name: str, verbs: list[str]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": name,
        "singularName": "" if "/" in name else res.kind.lower(),
        "namespaced": res.namespaced,
        "kind": res.kind,
        "verbs": verbs,
    }
    if res.short_names and "/" not in name:
        described["shortNames"] = list(res.short_names)
    return described
