"""The pods of the cluster by node and by owner: the shared informer of all controllers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from remediator.sim.controllers.metadata import Obj, controller_of, is_deleting, key_of
from remediator.sim.controllers.pod_state import node_name
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import PODS
from remediator.sim.store import Store


class PodIndex:
    """Follows the store; subscribe it before the controllers that read it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_node: dict[str, dict[Key, Obj]] = {}
        self._by_owner: dict[str, dict[Key, Obj]] = {}
        self.terminating: dict[Key, Obj] = {}
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Subscribe, and take on the pods that are there."""
        self._end = self._store.subscribe(PODS, self._changed)
        for pod in self._store.list(PODS):
            self._put(pod)

    def stop(self) -> None:
        """Unsubscribe."""
        if self._end is not None:
            self._end()

    def on_node(self, name: str) -> list[Obj]:
        """Return the pods bound to a node ("" for the unbound ones)."""
        return list(self._by_node.get(name, {}).values())

    def nodes(self) -> Iterable[str]:
        """Return the names of nodes that have pods, existing nodes or not."""
        return [name for name in self._by_node if name]

    def owned_by(self, uid: str) -> list[Obj]:
        """Return the pods whose controller has this UID (a VMI's launchers)."""
        return list(self._by_owner.get(uid, {}).values())

    def _changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        if old is not None and node_name(old) != node_name(pod):
            self._drop(old)
        if kind == "DELETED":
            self._drop(pod)
        else:
            self._put(pod)

    def _put(self, pod: Obj) -> None:
        key = key_of(pod)
        self._by_node.setdefault(node_name(pod), {})[key] = pod
        owner = _controller_uid(pod)
        if owner:
            self._by_owner.setdefault(owner, {})[key] = pod
        if is_deleting(pod):
            self.terminating[key] = pod

    def _drop(self, pod: Obj) -> None:
        key = key_of(pod)
        self.terminating.pop(key, None)
        for index, name in (
            (self._by_node, node_name(pod)),
            (self._by_owner, _controller_uid(pod)),
        ):
            held = index.get(name)
            if held is not None:
                held.pop(key, None)
                if not held:
                    del index[name]


def _controller_uid(pod: Obj) -> str:
    reference = controller_of(pod, "VirtualMachineInstance")
    return reference["uid"] if reference is not None else ""
