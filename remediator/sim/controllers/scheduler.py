"""kube-scheduler: binds pending pods to nodes.

It knows nothing of a node's liveness but its taints and labels: until the node monitor has tainted
a dead node, that node takes new pods, and as it is often the emptiest it takes them first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from remediator.sim.controllers.conditions import set_condition, would_change
from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import Obj, is_deleting, key_of, labels_of
from remediator.sim.controllers.node_affinity import required_anti_affinity
from remediator.sim.controllers.pod_state import claim_names, is_gated, is_terminal, node_name
from remediator.sim.controllers.scheduler_fit import (
    NodeRoom,
    Request,
    conflicting_volume,
    request_of,
    scores,
    why_not,
)
from remediator.sim.controllers.scheduler_neighbours import Neighbours
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import (
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
)

COMPONENT = "default-scheduler"

_UNSCHEDULABLE_FLUSH_S = 300.0
"""k8s podMaxInUnschedulablePodsDuration: tried again even when nothing has changed."""

_NODES_TO_SCORE_MIN = 100
"""k8s minFeasibleNodesToFind: in a larger cluster only a share of the nodes is looked at."""


class Scheduler:
    """Filters, scores and binds one pod after the other; waits for changes when nothing fits."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._rooms: dict[str, NodeRoom] = {}
        self._bound: dict[Key, tuple[str, Request]] = {}
        self._averse: dict[Key, str] = {}  # bound pods with anti-affinity, and their nodes
        self._refused: dict[Key, int] = {}
        self._first = 0
        self._queue = env.queue("scheduler", self._reconcile, latency_s=env.settings.bind_s)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe to nodes, pods and claims."""
        store = self._env.store
        self._ends = [
            store.subscribe(NODES, self._node_changed),
            store.subscribe(PODS, self._pod_changed),
            store.subscribe(PERSISTENT_VOLUME_CLAIMS, self._claim_changed),
        ]
        for node in store.list(NODES):
            self._node_changed("ADDED", node, None)
        for pod in store.list(PODS):
            self._pod_changed("ADDED", pod, None)

    def forget(self) -> None:
        """Look at every pending pod again."""
        self._refused.clear()
        for pod in self._env.store.list(PODS, fields="spec.nodeName="):
            self._queue.add(key_of(pod))

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._queue.close()

    def _node_changed(self, kind: str, node: Obj, old: Obj | None) -> None:
        name = key_of(node)[1]
        if kind == "DELETED":
            self._rooms.pop(name, None)
            return
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = NodeRoom(node, 0.0, 0.0, 0.0)
            room.refresh(node)
            for pod in self._env.store.list(PODS, fields=f"spec.nodeName={name}"):
                if key_of(pod) in self._bound:
                    room.add(pod, request_of(pod))
        else:
            room.refresh(node)
        if old is None or _bears_on_fit(old) != _bears_on_fit(node):
            self._wake()

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        key = key_of(pod)
        name = node_name(pod)
        if kind == "DELETED" or is_terminal(pod):
            self._refused.pop(key, None)
            self._release(key, pod)
        elif name:
            if key not in self._bound:
                self._take(key, name, pod)
            else:
                self._rooms_update(name, key, pod)
        elif not is_gated(pod) and (old is None or old["spec"] != pod["spec"]):
            self._queue.add(key)

    def _claim_changed(self, kind: str, _claim: Obj, old: Obj | None) -> None:
        if kind == "ADDED" or old is None or not old["spec"].get("volumeName"):
            self._wake()

    def _take(self, key: Key, node: str, pod: Obj) -> None:
        request = request_of(pod)
        self._bound[key] = (node, request)
        if required_anti_affinity(pod):
            self._averse[key] = node
        if node in self._rooms:
            self._rooms[node].add(pod, request)

    def _rooms_update(self, node: str, key: Key, pod: Obj) -> None:
        room = self._rooms.get(node)
        if room is not None and key in room.pods:
            room.pods[key] = pod

    def _release(self, key: Key, pod: Obj) -> None:
        bound = self._bound.pop(key, None)
        self._averse.pop(key, None)
        if bound is None:
            return
        node, request = bound
        if node in self._rooms:
            self._rooms[node].remove(pod, request)
        self._wake()

    def _wake(self) -> None:
        """Something changed: try the refused pods again, each after its own back-off."""
        first_s, cap_s = self._env.settings.scheduling_retry_s
        for key, times in self._refused.items():
            self._queue.add(key, after_s=min(cap_s, first_s * 2.0 ** min(times - 1, 10)))

    def _reconcile(self, key: Key) -> float | None:
        pod = self._env.store.find(PODS, *key)
        if pod is None or node_name(pod) or is_terminal(pod) or is_deleting(pod) or is_gated(pod):
            self._refused.pop(key, None)
            return None
        missing = self._unbound_claim(pod)
        if missing is not None:
            return self._refuse(pod, missing)
        request = request_of(pod)
        fitting, reasons = self._filter(pod, request)
        if not fitting:
            return self._refuse(pod, _explain(len(self._rooms), reasons))
        self._bind(key, self._best(pod, request, fitting))
        self._refused.pop(key, None)
        return None

    def _unbound_claim(self, pod: Obj) -> str | None:
        for name in claim_names(pod):
            claim = self._env.store.find(PERSISTENT_VOLUME_CLAIMS, key_of(pod)[0], name)
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if not claim["spec"].get("volumeName"):
                return "pod has unbound immediate PersistentVolumeClaims"
        return None

    def _filter(self, pod: Obj, request: Request) -> tuple[list[NodeRoom], Counter[str]]:
        rooms = list(self._rooms.values())
        enough = _nodes_to_score(len(rooms))
        volumes = self._volumes(pod)
        neighbours = Neighbours(
            pod,
            ((room.node, room.pods.values()) for room in rooms),
            self._averse_pods(),
            self._namespace_labels,
        )
        fitting: list[NodeRoom] = []
        reasons: Counter[str] = Counter()
        for offset in range(len(rooms)):
            room = rooms[(self._first + offset) % len(rooms)]
            reason = why_not(pod, request, room)
            if reason is None and conflicting_volume(volumes, room.node):
                reason = "node(s) had volume node affinity conflict"
            if reason is None:
                reason = neighbours.why_not(room.node)
            if reason is not None:
                reasons[reason] += 1
                continue
            fitting.append(room)
            if len(fitting) == enough:
                self._first = (self._first + offset + 1) % len(rooms)
                break
        return fitting, reasons

    def _volumes(self, pod: Obj) -> list[Obj]:
        """Return the volumes that the pod's claims are bound to."""
        store, namespace = self._env.store, key_of(pod)[0]
        claims = [
            store.find(PERSISTENT_VOLUME_CLAIMS, namespace, name) for name in claim_names(pod)
        ]
        names = [claim["spec"].get("volumeName", "") for claim in claims if claim is not None]
        volumes = [store.find(PERSISTENT_VOLUMES, "", name) for name in names]
        return [volume for volume in volumes if volume is not None]

    def _averse_pods(self) -> list[tuple[Obj, Obj]]:
        """Return the bound pods that have anti-affinity, with their nodes."""
        found = []
        for key, name in self._averse.items():
            room = self._rooms.get(name)
            if room is not None and key in room.pods:
                found.append((room.pods[key], room.node))
        return found

    def _namespace_labels(self, name: str) -> dict[str, str]:
        namespace = self._env.store.find(NAMESPACES, "", name)
        return labels_of(namespace) if namespace is not None else {}

    def _best(self, pod: Obj, request: Request, fitting: list[NodeRoom]) -> str:
        rated = scores(pod, request, fitting)
        top = max(rated)
        best = [room for room, score in zip(fitting, rated, strict=True) if score == top]
        return key_of(self._env.rng.choice(best).node)[1]

    def _bind(self, key: Key, node: str) -> None:
        now = self._env.timestamp()

        def bind(pod: Obj) -> None:
            pod["spec"]["nodeName"] = node
            set_condition(pod, "PodScheduled", "True", now=now)

        self._env.store.mutate(PODS, *key, bind, subresource="binding")

    def _refuse(self, pod: Obj, message: str) -> float:
        key = key_of(pod)
        self._refused[key] = self._refused.get(key, 0) + 1
        reason = "Unschedulable"
        if would_change(pod, "PodScheduled", "False", reason, message):
            now = self._env.timestamp()
            self._env.store.mutate(
                PODS,
                *key,
                lambda pod: set_condition(
                    pod, "PodScheduled", "False", now=now, reason=reason, message=message
                ),
                subresource="status",
            )
        self._env.events.warn(PODS, pod, "FailedScheduling", message, component=COMPONENT)
        return _UNSCHEDULABLE_FLUSH_S


def _explain(nodes: int, reasons: Counter[str]) -> str:
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"0/{nodes} nodes are available: {listed}." if nodes else "no nodes available"


def _nodes_to_score(nodes: int) -> int:
    """Return how many fitting nodes are enough (k8s numFeasibleNodesToFind)."""
    if nodes <= _NODES_TO_SCORE_MIN:
        return max(1, nodes)
    share = max(5, 50 - nodes // 125)
    return max(_NODES_TO_SCORE_MIN, nodes * share // 100)


def _bears_on_fit(node: Obj) -> tuple[object, ...]:
    spec = node.get("spec") or {}
    return (
        spec.get("unschedulable"),
        spec.get("taints"),
        node["metadata"].get("labels"),
        (node.get("status") or {}).get("allocatable"),
    )
