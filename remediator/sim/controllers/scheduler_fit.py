"""The scheduler's filters and scores (k8s default plugins, those that matter to launcher pods)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from remediator.sim.controllers.metadata import Obj, key_of
from remediator.sim.controllers.node_affinity import (
    node_selected,
    preference,
    volume_allows,
)
from remediator.sim.controllers.quantities import quantity
from remediator.sim.controllers.taints import (
    NO_EXECUTE,
    NO_SCHEDULE,
    PREFER_NO_SCHEDULE,
    UNSCHEDULABLE,
    first_untolerated,
    taints_of,
    tolerates,
)
from remediator.sim.controllers.work_queue import Key

_PLAIN = ("cpu", "memory", "pods")

_PODS_MAX = 110.0
"""kubelet --max-pods: for a node that does not say."""

_WEIGHT_TAINTS = 3.0
_WEIGHT_AFFINITY = 2.0
_WEIGHT_RESOURCES = 1.0
"""k8s default plugin weights: TaintToleration 3, NodeAffinity 2, NodeResourcesFit 1."""


class Request(msgspec.Struct, frozen=True):
    """What a pod asks for: cores, bytes, and of other resources by name."""

    cpu: float
    memory: float
    others: dict[str, float] = {}


class NodeRoom(msgspec.Struct):
    """A node, what it can give and what is given."""

    node: Obj
    cpu: float
    memory: float
    pods_max: float
    used_cpu: float = 0.0
    used_memory: float = 0.0
    pods: dict[Key, Obj] = {}  # msgspec copies the default
    others: dict[str, float] = {}
    used_others: dict[str, float] = {}

    def refresh(self, node: Obj) -> None:
        """Take on a new version of the Node object."""
        given = (node.get("status") or {}).get("allocatable") or {}
        self.node = node
        self.cpu = quantity(given.get("cpu", 0))
        self.memory = quantity(given.get("memory", 0))
        self.pods_max = quantity(given.get("pods", _PODS_MAX))
        self.others = {
            name: quantity(amount) for name, amount in given.items() if name not in _PLAIN
        }

    def add(self, pod: Obj, request: Request) -> None:
        """Count a pod that is bound here."""
        if key_of(pod) not in self.pods:
            self.used_cpu += request.cpu
            self.used_memory += request.memory
            for name, amount in request.others.items():
                self.used_others[name] = self.used_others.get(name, 0.0) + amount
        self.pods[key_of(pod)] = pod

    def remove(self, pod: Obj, request: Request) -> None:
        """Count a pod no more."""
        if self.pods.pop(key_of(pod), None) is not None:
            self.used_cpu -= request.cpu
            self.used_memory -= request.memory
            for name, amount in request.others.items():
                self.used_others[name] = self.used_others.get(name, 0.0) - amount


def request_of(pod: Obj) -> Request:
    """Return what the pod takes (k8s resource/helpers.go PodRequests).

    Its containers and sidecars together, or the init container that takes more, and the overhead.
    """
    spec = pod["spec"]
    total: dict[str, float] = {}
    sidecars: dict[str, float] = {}
    most: dict[str, float] = {}
    for container in spec.get("containers") or ():
        _add(total, _asked(container))
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            _add(total, asked)
            _add(sidecars, asked)
            asked = dict(sidecars)
        else:
            _add(asked, sidecars)
        for name, amount in asked.items():
            most[name] = max(most.get(name, 0.0), amount)
    for name, amount in most.items():
        total[name] = max(total.get(name, 0.0), amount)
    overhead = spec.get("overhead") or {}
    _add(total, {name: quantity(amount) for name, amount in overhead.items()})
    others = {name: amount for name, amount in total.items() if name not in _PLAIN}
    return Request(total.get("cpu", 0.0), total.get("memory", 0.0), others)


def _asked(container: Obj) -> dict[str, float]:
    asked = (container.get("resources") or {}).get("requests") or {}
    return {name: quantity(amount) for name, amount in asked.items()}


def _add(total: dict[str, float], more: dict[str, float]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0.0) + amount


def why_not(pod: Obj, request: Request, room: NodeRoom) -> str | None:
    """Return the reason why the pod cannot go to this node, None when it can."""
    node = room.node
    if node["spec"].get("unschedulable") and first_untolerated(
        pod, [{"key": UNSCHEDULABLE, "effect": NO_SCHEDULE}], (NO_SCHEDULE,)
    ):
        return "node(s) were unschedulable"
    taint = first_untolerated(pod, taints_of(node), (NO_SCHEDULE, NO_EXECUTE))
    if taint is not None:
        return f"node(s) had untolerated taint(s) {{{taint['key']}: {taint.get('value', '')}}}"
    if not node_selected(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    if len(room.pods) + 1 > room.pods_max:
        return "Too many pods"
    # A millionth of slack for sums of fractions.
    if request.cpu > 0 and room.used_cpu + request.cpu > room.cpu + 1e-6:
        return "Insufficient cpu"
    if request.memory > 0 and room.used_memory + request.memory > room.memory + 1.0:
        return "Insufficient memory"
    for name, amount in request.others.items():
        if amount > 0 and room.used_others.get(name, 0.0) + amount > room.others.get(name, 0.0):
            return f"Insufficient {name}"
    return None


def conflicting_volume(volumes: Iterable[Obj], node: Obj) -> bool:
    """Return True when one of the pod's volumes cannot be used on this node (k8s VolumeBinding)."""
    return not all(volume_allows(volume, node) for volume in volumes)


def scores(pod: Obj, request: Request, rooms: list[NodeRoom]) -> list[float]:
    """Return a score for each node that fits; the highest wins."""
    preferences = [preference(pod, room.node) for room in rooms]
    avoided = [_avoided_taints(pod, room.node) for room in rooms]
    best_preference = max(preferences, default=0)
    most_avoided = max(avoided, default=0)
    result = []
    for room, preferred, taints in zip(rooms, preferences, avoided, strict=True):
        score = _WEIGHT_RESOURCES * _least_allocated(request, room)
        if best_preference:
            score += _WEIGHT_AFFINITY * 100.0 * preferred / best_preference
        if most_avoided:
            score += _WEIGHT_TAINTS * 100.0 * (1.0 - taints / most_avoided)
        result.append(score)
    return result


def _least_allocated(request: Request, room: NodeRoom) -> float:
    """Return 0..100: the mean free share of CPU and memory with the pod on the node."""
    free = [
        max(0.0, (room.cpu - room.used_cpu - request.cpu) / room.cpu) if room.cpu else 0.0,
        max(0.0, (room.memory - room.used_memory - request.memory) / room.memory)
        if room.memory
        else 0.0,
    ]
    return 100.0 * sum(free) / len(free)


def _avoided_taints(pod: Obj, node: Obj) -> int:
    tolerations = pod["spec"].get("tolerations") or ()
    return sum(
        1
        for taint in taints_of(node)
        if taint["effect"] == PREFER_NO_SCHEDULE
        and not any(tolerates(toleration, taint) for toleration in tolerations)
    )
