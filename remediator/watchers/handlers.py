"""The virt-handler pods: whether each KubeVirt node has one that passes its readiness probe.

The heartbeat that virt-handler writes on its node is the first word on this plane; its pod is the
second, an aspect of its own. During a rollout a node is without a ready pod for half a minute or
so: how long is too long, the engine decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from remediator.clock import Clock
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.kube.objects import HandlerPod
from remediator.watchers.outlet import Outlet

SOURCE: Final = "virt-handler pod"
ASPECT: Final = "pod"


class HandlerPodSink:
    """Publishes, for each node, whether one of its virt-handler pods is ready, when that changes.

    ``node_exists`` tells of a node whose last pod is gone whether it is still a node.
    """

    def __init__(self, outlet: Outlet, clock: Clock, node_exists: Callable[[str], bool]) -> None:
        self._outlet = outlet
        self._clock = clock
        self._node_exists = node_exists
        self._pods: dict[str, dict[str, HandlerPod]] = {}  # node -> UID -> pod
        self._told: dict[str, Reading] = {}

    def seen(self, obj: HandlerPod, old: HandlerPod | None, *, initial: bool) -> None:
        """Take a pod as it is now."""
        del old
        if obj.node_name:
            self._pods.setdefault(obj.node_name, {})[obj.uid] = obj
            self._tell_change(obj.node_name, first=initial)

    def gone(self, obj: HandlerPod) -> None:
        """Take note that a pod is gone."""
        if obj.node_name:
            self._pods.get(obj.node_name, {}).pop(obj.uid, None)
            self._tell_change(obj.node_name, first=False)

    def synced(self) -> None:
        """Tell of the nodes that have no pod any more: none is offered of them otherwise."""
        for node in [node for node, pods in self._pods.items() if not pods]:
            if self._node_exists(node):
                self._tell(node, first=True)
            else:
                del self._pods[node]
                self._told.pop(node, None)

    def progressed(self, at: float) -> None:
        """Ignore it: silence of this watch means nothing."""

    def again(self, obj: HandlerPod) -> None:
        """Offer what is known of a node once more, as found."""
        if obj.node_name:
            self._tell(obj.node_name, first=True)

    def _tell_change(self, node: str, *, first: bool) -> None:
        reading, _ = self._read(node)
        known = self._told.get(node)
        self._told[node] = reading
        if reading is not known:
            self._tell(node, first=first or known is None)

    def _tell(self, node: str, *, first: bool) -> None:
        reading, detail = self._read(node)
        self._outlet.signal(
            Signal(
                plane=Plane.HANDLER,
                source=SOURCE,
                subject=node_subject(node),
                reading=reading,
                at=self._clock.now(),
                aspect=ASPECT,
                detail=detail,
                first=first,
            )
        )

    def _read(self, node: str) -> tuple[Reading, str]:
        pods = self._pods.get(node, {}).values()
        if any(pod.ready for pod in pods):
            return Reading.UP, ""
        names = ", ".join(sorted(pod.name for pod in pods))
        return Reading.DOWN, f"{names} is not ready" if names else "it has no virt-handler pod"
