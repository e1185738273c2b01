"""Request paths of the Kubernetes API, taken apart once per path."""

from __future__ import annotations

import functools
from typing import NamedTuple
from urllib.parse import unquote


class Route(NamedTuple):
    """What a path names; ``plural`` is empty for discovery of a group version."""

    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str


# Parts of the path of one namespace that are its own subresources rather than kinds within it.
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@functools.lru_cache(maxsize=65536)
def parse(path: str) -> Route | None:
    """Return what the path names, None when it is not below a group version."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 1:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    plural = rest[0] if rest else ""
    name = rest[1] if len(rest) > 1 else ""
    return Route(group, version, namespace, plural, name, "/".join(rest[2:]))
