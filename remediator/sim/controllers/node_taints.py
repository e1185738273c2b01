"""Taints that follow from a node's conditions; the NoSchedule ones are set here (k8s).

The NoExecute ones, which evict, are set by the node monitor under the zone brake.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers.conditions import condition_is, find_condition
from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import Obj, key_of
from remediator.sim.controllers.taints import (
    NO_SCHEDULE,
    NOT_READY,
    UNREACHABLE,
    UNSCHEDULABLE,
    taints_of,
)
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import NODES

READINESS_TAINTS = frozenset({NOT_READY, UNREACHABLE})

_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
}
_OWN = frozenset({*READINESS_TAINTS, UNSCHEDULABLE, *_PRESSURES.values()})


class NodeConditionTaints:
    """Keeps each node's NoSchedule taints in step with its conditions and its cordon."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._queue = env.queue("node-noschedule", self._reconcile)
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Subscribe to nodes."""
        self._end = self._env.store.subscribe(NODES, self._node_changed)
        self.forget()

    def forget(self) -> None:
        """Look at every node again."""
        for node in self._env.store.list(NODES):
            self._queue.add(key_of(node))

    def stop(self) -> None:
        """End the subscription and timers."""
        if self._end is not None:
            self._end()
        self._queue.close()

    def _node_changed(self, kind: str, node: Obj, _old: Obj | None) -> None:
        if kind != "DELETED" and _held(node) != _wanted(node):
            self._queue.add(key_of(node))

    def _reconcile(self, key: Key) -> float | None:
        node = self._env.store.find(NODES, *key)
        if node is None:
            return None
        wanted, held = _wanted(node), _held(node)
        if held == wanted:
            return None
        now = self._env.timestamp()

        def change(node: Obj) -> None:
            kept = [
                taint
                for taint in taints_of(node)
                if taint["effect"] != NO_SCHEDULE
                or taint["key"] not in _OWN
                or taint["key"] in wanted
            ]
            kept.extend(
                {"key": name, "effect": NO_SCHEDULE, "timeAdded": now}
                for name in sorted(wanted - held)
            )
            put_taints(node, kept)

        self._env.store.mutate(NODES, *key, change)
        return None


def readiness_taint(node: Obj) -> str | None:
    """Return the key of the taint that the node's Ready condition calls for."""
    ready = find_condition(node, "Ready")
    if ready is None or ready["status"] == "True":
        return None
    return NOT_READY if ready["status"] == "False" else UNREACHABLE


def put_taints(node: Obj, taints: list[Obj]) -> None:
    """Set the taints of a node that is being changed."""
    spec = node.setdefault("spec", {})
    if taints:
        spec["taints"] = taints
    else:
        spec.pop("taints", None)


def _wanted(node: Obj) -> set[str]:
    wanted = {key for type_, key in _PRESSURES.items() if condition_is(node, type_, "True")}
    if node.get("spec", {}).get("unschedulable"):
        wanted.add(UNSCHEDULABLE)
    readiness = readiness_taint(node)
    if readiness is not None:
        wanted.add(readiness)
    return wanted


def _held(node: Obj) -> set[str]:
    return {
        taint["key"]
        for taint in taints_of(node)
        if taint["effect"] == NO_SCHEDULE and taint["key"] in _OWN
    }
