"""The pod garbage collector: removes pods that no kubelet will ever finish (k8s podgc)."""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers.conditions import condition_is, set_condition
from remediator.sim.controllers.environment import Environment, Ticker
from remediator.sim.controllers.metadata import Obj, key_of, uid_of
from remediator.sim.controllers.pod_index import PodIndex
from remediator.sim.controllers.pod_state import is_terminal, node_name
from remediator.sim.controllers.taints import OUT_OF_SERVICE, has_taint
from remediator.sim.problems import Problem
from remediator.sim.resources import NODES, PODS


class PodGarbageCollector:
    """Every 20 s: terminating pods on out-of-service nodes, orphans, unbound terminating pods."""

    def __init__(self, env: Environment, pods: PodIndex) -> None:
        self._env = env
        self._pods = pods
        self._ticker = Ticker(env, env.settings.pod_gc_period_s, self._collect)
        # When each missing node was first noticed.
        self._missing_since: dict[str, float] = {}
        self._nodes: dict[str, Obj] = {}
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin the period."""
        self._end = self._env.store.subscribe(NODES, self._node_changed)
        for node in self._env.store.list(NODES):
            self._node_changed("ADDED", node, None)
        self._ticker.start()

    def forget(self) -> None:
        """Start the quarantine of missing nodes again."""
        self._missing_since.clear()

    def stop(self) -> None:
        """End the period."""
        self._ticker.stop()
        if self._end is not None:
            self._end()

    def _node_changed(self, kind: str, node: Obj, _old: Obj | None) -> None:
        name = key_of(node)[1]
        if kind == "DELETED":
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = node

    def _collect(self) -> None:
        for pod in [*self._terminating_out_of_service(), *self._orphans()]:
            self._force_delete(pod)

    def _terminating_out_of_service(self) -> list[Obj]:
        found = []
        for pod in self._pods.terminating.values():
            name = node_name(pod)
            node = self._nodes.get(name)
            if not name or (
                node is not None
                and has_taint(node, OUT_OF_SERVICE)
                and not condition_is(node, "Ready", "True")
            ):
                found.append(pod)
        return found

    def _orphans(self) -> list[Obj]:
        now = self._env.loop.time()
        missing = [name for name in self._pods.nodes() if name not in self._nodes]
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        orphans: list[Obj] = []
        for name, since in self._missing_since.items():
            # A microsecond of slack: the second tick after the first is 40 s later to the rounding.
            if now - since >= self._env.settings.orphan_quarantine_s - 1e-6:
                orphans.extend(self._pods.on_node(name))
        return orphans

    def _force_delete(self, pod: Obj) -> None:
        """Mark the pod Failed, then delete it at once (k8s markFailedAndDeletePod)."""
        namespace, name = key_of(pod)
        now = self._env.timestamp()

        def fail(pod: Obj) -> None:
            set_condition(pod, "DisruptionTarget", "True", now=now, reason="DeletionByPodGC")
            pod["status"]["phase"] = "Failed"

        try:
            if not is_terminal(pod):
                self._env.store.mutate(PODS, namespace, name, fail, subresource="status")
            self._env.store.delete(PODS, namespace, name, uid=uid_of(pod), grace_s=0)
        except Problem as problem:
            # Gone or replaced meanwhile; whatever else hinders is tried again at the next tick.
            if problem.status not in (404, 409):
                raise
