"""The taint-eviction controller: deletes pods from nodes with NoExecute taints (k8s)."""

from __future__ import annotations

import math
from collections.abc import Callable

from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import Obj, is_deleting, key_of, uid_of
from remediator.sim.controllers.pod_index import PodIndex
from remediator.sim.controllers.pod_state import is_terminal, node_name
from remediator.sim.controllers.taints import (
    NO_EXECUTE,
    seconds_tolerated,
    taints_of,
    tolerates_all,
)
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import NODES, PODS


class TaintEviction:
    """Deletes a pod, with its own grace, when its tolerations of the node's taints run out."""

    def __init__(self, env: Environment, pods: PodIndex) -> None:
        self._env = env
        self._pods = pods
        self._taints: dict[str, list[Obj]] = {}
        # When each pod's time on its tainted node began, by pod UID.
        self._since: dict[str, float] = {}
        self._queue = env.queue("taint-eviction", self._reconcile)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe to nodes and pods."""
        store = self._env.store
        self._ends.append(store.subscribe(NODES, self._node_changed))
        self._ends.append(store.subscribe(PODS, self._pod_changed))
        for node in store.list(NODES):
            self._node_changed("ADDED", node, None)

    def forget(self) -> None:
        """Start every toleration's time again: this controller keeps them in memory only."""
        self._since.clear()
        for name in self._taints:
            self._enqueue_node(name)

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._queue.close()

    def _node_changed(self, kind: str, node: Obj, _old: Obj | None) -> None:
        name = key_of(node)[1]
        taints = [t for t in taints_of(node) if t["effect"] == NO_EXECUTE]
        if kind == "DELETED":
            taints = []
        if taints == self._taints.get(name, []):
            return
        if taints:
            self._taints[name] = taints
        else:
            del self._taints[name]
        self._enqueue_node(name)

    def _enqueue_node(self, name: str) -> None:
        for pod in self._pods.on_node(name):
            if not tolerates_all(pod):
                self._queue.add(key_of(pod))

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        if kind == "DELETED":
            self._since.pop(uid_of(pod), None)
        elif node_name(pod) in self._taints and (old is None or not node_name(old)):
            self._queue.add(key_of(pod))

    def _reconcile(self, key: Key) -> float | None:
        pod = self._env.store.find(PODS, *key)
        if pod is None or is_deleting(pod) or is_terminal(pod):
            return None
        taints = self._taints.get(node_name(pod))
        uid = uid_of(pod)
        if not taints:
            self._since.pop(uid, None)
            return None
        limit_s = seconds_tolerated(pod, taints)
        if math.isinf(limit_s):
            self._since.pop(uid, None)
            return None
        now = self._env.loop.time()
        left_s = self._since.setdefault(uid, now) + limit_s - now
        # A microsecond of slack: the timer may fire a rounding error early.
        if left_s > 1e-6:
            return left_s
        del self._since[uid]
        self._env.store.delete(PODS, *key, uid=uid)
        return None
