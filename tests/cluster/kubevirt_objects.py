"""What virt-operator would have put into a cluster, for virt-controller alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KUBEVIRT = "kubevirt"  # the namespace; virt-controller knows no other outside a pod

Obj = dict[str, Any]


def collection_of(obj: Obj) -> str:
    """Return the path under which an object of these kinds is created."""
    version, kind = obj["apiVersion"], obj["kind"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    namespace = obj["metadata"].get("namespace")
    if namespace:
        base += f"/namespaces/{namespace}"
    return f"{base}/{kind.lower()}s"


def objects(rendered: Path) -> Iterator[Obj]:
    """Yield them in the order of creation; ``rendered``: the program's ``kubevirt-objects.json``.

    Definitions and rights as rendered by KubeVirt's own code, then its configuration, and the one
    set of virt-handlers that virt-controller's node controller wants. Its pods fit nowhere: the
    emulated hosts are virt-handler themselves.
    """
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": KUBEVIRT}}
    yield from json.loads(rendered.read_text())["items"]
    yield {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": KUBEVIRT},
        "spec": {},
    }
    labels = {"kubevirt.io": "virt-handler"}
    container = {"name": "virt-handler", "image": "registry.invalid/virt-handler:test"}
    yield {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "virt-handler", "namespace": KUBEVIRT, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"nodeSelector": {"emulated": "never"}, "containers": [container]},
            },
        },
    }
