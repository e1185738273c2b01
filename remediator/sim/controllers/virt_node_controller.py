"""virt-controller's node controller: nodes whose virt-handler no longer beats (kv watch/node)."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import (
    Obj,
    annotations_of,
    key_of,
    labels_of,
    uid_of,
)
from remediator.sim.controllers.pod_index import PodIndex
from remediator.sim.controllers.pod_state import all_containers_terminated, is_terminal
from remediator.sim.controllers.vmi_state import (
    HEARTBEAT_ANNOTATION,
    NODE_NAME_LABEL,
    SCHEDULABLE_LABEL,
    is_final,
    set_phase,
    vmi_node,
)
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import NODES, VIRTUAL_MACHINE_INSTANCES
from remediator.sim.timestamps import parse_rfc3339

log = structlog.get_logger(__name__)

NODE_UNRESPONSIVE = "NodeUnresponsive"


class VirtNodeController:
    """Marks nodes unschedulable after 5 min without heartbeat; fails VMIs there that have no pod.

    A pod that the API shows as running counts as alive however long its node has been silent: this
    controller alone never brings back a VM of a dead node.
    """

    def __init__(self, env: Environment, pods: PodIndex) -> None:
        self._env = env
        self._pods = pods
        self._queue = env.queue("virt-node", self._reconcile)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe to nodes and VMIs."""
        store = self._env.store
        self._ends = [
            store.subscribe(NODES, self._node_changed),
            store.subscribe(VIRTUAL_MACHINE_INSTANCES, self._vmi_changed),
        ]
        self.forget()

    def forget(self) -> None:
        """Look at every node again."""
        for node in self._env.store.list(NODES):
            self._queue.add(key_of(node))

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._queue.close()

    def _node_changed(self, kind: str, node: Obj, old: Obj | None) -> None:
        if (
            kind == "DELETED"
            or old is None
            or annotations_of(old).get(HEARTBEAT_ANNOTATION)
            != annotations_of(node).get(HEARTBEAT_ANNOTATION)
        ):
            self._queue.add(key_of(node))

    def _vmi_changed(self, kind: str, vmi: Obj, old: Obj | None) -> None:
        if kind != "DELETED" and vmi_node(vmi) and (old is None or not vmi_node(old)):
            self._queue.add(("", vmi_node(vmi)))

    def _reconcile(self, key: Key) -> float | None:
        node = self._env.store.find(NODES, *key)
        if not self._is_unresponsive(node):
            return None if node is None else self._env.settings.heartbeat_recheck_s
        if node is not None and labels_of(node).get(SCHEDULABLE_LABEL) == "true":
            self._env.store.mutate(NODES, *key, _unschedulable)
            self._env.events.warn(
                NODES,
                node,
                NODE_UNRESPONSIVE,
                "virt-handler is not responsive, marking node as unresponsive",
                component="node-controller",
            )
        self._fail_vmis_without_pod(key[1])
        return None if node is None else self._env.settings.heartbeat_recheck_s

    def _is_unresponsive(self, node: Obj | None) -> bool:
        """Return True when the node is gone or its heartbeat is too old; none at all is fine."""
        if node is None:
            return True
        beat = annotations_of(node).get(HEARTBEAT_ANNOTATION)
        if beat is None:
            return False
        try:
            age_s = self._env.now() - parse_rfc3339(beat)
        except ValueError:
            log.debug("heartbeat_unreadable", node=key_of(node)[1], heartbeat=beat)
            return False
        return age_s > self._env.settings.heartbeat_timeout_s

    def _fail_vmis_without_pod(self, node: str) -> None:
        store = self._env.store
        now = self._env.timestamp()

        def fail(vmi: Obj) -> None:
            set_phase(vmi, "Failed", now)
            vmi["status"]["reason"] = NODE_UNRESPONSIVE

        for vmi in store.list(VIRTUAL_MACHINE_INSTANCES, labels=f"{NODE_NAME_LABEL}={node}"):
            if is_final(vmi):
                continue
            alive = any(
                not is_terminal(pod)
                and not all_containers_terminated(pod)
                and pod["spec"].get("nodeName") == node
                for pod in self._pods.owned_by(uid_of(vmi))
            )
            if not alive:
                store.mutate(VIRTUAL_MACHINE_INSTANCES, *key_of(vmi), fail)


def _unschedulable(node: Obj) -> None:
    node["metadata"].setdefault("labels", {})[SCHEDULABLE_LABEL] = "false"
