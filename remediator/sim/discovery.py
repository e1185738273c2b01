"""Discovery: which groups, versions and kinds the simulated API server serves."""

from __future__ import annotations

from typing import Any

from remediator.sim.resources import Registry, ResourceType

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
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def discover(registry: Registry, path: str) -> dict[str, Any] | None:
    """Return the discovery document at this path, None when there is none."""
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
