"""The attach-detach controller (k8s): which volume is attached to which node.

It works on one PersistentVolume at a time and remembers, as the real one does, what it attached
itself; a VolumeAttachment that somebody else deletes is noticed only at the next verification.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers.conditions import condition_is
from remediator.sim.controllers.environment import Environment, Ticker
from remediator.sim.controllers.metadata import (
    Obj,
    annotations_of,
    is_deleting,
    key_of,
)
from remediator.sim.controllers.pod_state import claim_names, node_name, releases_volumes
from remediator.sim.controllers.taints import OUT_OF_SERVICE, has_taint
from remediator.sim.controllers.volumes import (
    attachment_name,
    csi_driver,
    is_shared,
    unique_volume_name,
)
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
)

MANAGED_ANNOTATION = "volumes.kubernetes.io/controller-managed-attach-detach"
"""Kubelets set it to "true"; the controller ignores nodes without it."""

Attachment = tuple[str, str]
"""(volume, node)."""


class AttachDetach:
    """Creates and deletes VolumeAttachments as pods come and go."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._nodes: dict[str, Obj] = {}
        # What each node last reported as in use; kept when the Node object goes.
        self._in_use: dict[str, frozenset[str]] = {}
        # Pods that want a volume, by volume: pod key to node.
        self._wanted: dict[str, dict[Key, str]] = {}
        self._volumes_of_pod: dict[Key, list[str]] = {}
        # What this controller believes attached: volume to nodes, and the other way round. Dicts,
        # as a set's order would differ from run to run.
        self._attached: dict[str, dict[str, None]] = {}
        self._volumes_on: dict[str, dict[str, None]] = {}
        self._detach_asked_at: dict[Attachment, float] = {}
        self._queue = env.queue("attach-detach", self._reconcile)
        self._verify = Ticker(env, env.settings.attach_verify_period_s, self._verify_attached)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe, and take on pods and attachments that are there."""
        store = self._env.store
        self._ends = [
            store.subscribe(NODES, self._node_changed),
            store.subscribe(PODS, self._pod_changed),
            store.subscribe(PERSISTENT_VOLUME_CLAIMS, self._claim_changed),
            store.subscribe(VOLUME_ATTACHMENTS, self._attachment_changed),
        ]
        for node in store.list(NODES):
            self._node_changed("ADDED", node, None)
        self.forget()
        self._verify.start()

    def forget(self) -> None:
        """Rebuild the picture from the API; waits for unmounting begin again."""
        self._detach_asked_at.clear()
        self._wanted.clear()
        self._volumes_of_pod.clear()
        self._attached.clear()
        self._volumes_on.clear()
        for attachment in self._env.store.list(VOLUME_ATTACHMENTS):
            self._remember(*_parts(attachment))
        for pod in self._env.store.list(PODS):
            self._pod_changed("ADDED", pod, None)
        for volume in self._attached:
            self._queue.add(("", volume))

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._verify.stop()
        self._queue.close()

    def _remember(self, volume: str, node: str) -> None:
        self._attached.setdefault(volume, {})[node] = None
        self._volumes_on.setdefault(node, {})[volume] = None

    def _drop(self, volume: str, node: str) -> None:
        self._attached.get(volume, {}).pop(node, None)
        self._volumes_on.get(node, {}).pop(volume, None)
        self._detach_asked_at.pop((volume, node), None)

    def _node_changed(self, kind: str, node: Obj, old: Obj | None) -> None:
        name = key_of(node)[1]
        self._in_use[name] = frozenset((node.get("status") or {}).get("volumesInUse") or ())
        if kind == "DELETED":
            self._nodes.pop(name, None)
            return
        self._nodes[name] = node
        if old is None or _bears_on_detach(old) != _bears_on_detach(node):
            for volume in self._volumes_on.get(name, ()):
                self._queue.add(("", volume))
        if not _is_managed(old) and _is_managed(node):
            for volume, pods in self._wanted.items():
                if name in pods.values():
                    self._queue.add(("", volume))

    def _pod_changed(self, kind: str, pod: Obj, _old: Obj | None) -> None:
        key = key_of(pod)
        node = node_name(pod)
        if kind == "DELETED" or not node or releases_volumes(pod):
            for volume in self._volumes_of_pod.pop(key, ()):
                self._wanted[volume].pop(key, None)
                self._queue.add(("", volume))
        elif key not in self._volumes_of_pod:
            self._want_volumes(key, node, claim_names(pod))

    def _want_volumes(self, key: Key, node: str, claims: list[str]) -> None:
        found: list[str] = []
        for claim_name in claims:
            claim = self._env.store.find(PERSISTENT_VOLUME_CLAIMS, key[0], claim_name)
            volume = (claim or {}).get("spec", {}).get("volumeName")
            if not volume:
                return  # a claim that is bound later brings the pod back (_claim_changed)
            found.append(volume)
        self._volumes_of_pod[key] = found
        for volume in found:
            self._wanted.setdefault(volume, {})[key] = node
            self._queue.add(("", volume))

    def _claim_changed(self, kind: str, claim: Obj, old: Obj | None) -> None:
        if kind == "DELETED" or not claim["spec"].get("volumeName"):
            return
        if old is not None and old["spec"].get("volumeName"):
            return
        namespace, name = key_of(claim)
        for pod in self._env.store.list(PODS, namespace=namespace):
            if name in claim_names(pod):
                self._pod_changed("MODIFIED", pod, None)

    def _attachment_changed(self, kind: str, attachment: Obj, _old: Obj | None) -> None:
        if kind != "DELETED":
            return
        volume, node = _parts(attachment)
        if (volume, node) in self._detach_asked_at:
            self._drop(volume, node)
            self._queue.add(("", volume))
        # Else somebody else deleted it: the next verification will notice.

    def _verify_attached(self) -> None:
        there = {_parts(each) for each in self._env.store.list(VOLUME_ATTACHMENTS)}
        for volume, nodes in self._attached.items():
            for node in [node for node in nodes if (volume, node) not in there]:
                self._drop(volume, node)
                self._queue.add(("", volume))

    def _reconcile(self, key: Key) -> float | None:
        name = key[1]
        volume = self._env.store.find(PERSISTENT_VOLUMES, "", name)
        if volume is None or not csi_driver(volume):
            return None
        wanted = set(self._wanted.get(name, {}).values())
        attached = set(self._attached.get(name, ()))
        waits = [self._detach(volume, node) for node in sorted(attached - wanted)]
        for node in sorted(wanted & attached):
            self._detach_asked_at.pop((name, node), None)
        for node in sorted(wanted - attached):
            self._attach(volume, node)
        later = [wait_s for wait_s in waits if wait_s is not None]
        return min(later) if later else None

    def _detach(self, volume: Obj, node: str) -> float | None:
        """Detach, or return how long to wait for the node to unmount first."""
        name = key_of(volume)[1]
        now = self._env.loop.time()
        asked_at = self._detach_asked_at.setdefault((name, node), now)
        if unique_volume_name(volume) in self._in_use.get(node, frozenset()):
            left_s = asked_at + self._env.settings.force_detach_after_s - now
            there = self._nodes.get(node)
            out_of_service = there is not None and has_taint(there, OUT_OF_SERVICE)
            healthy = there is not None and condition_is(there, "Ready", "True")
            if not out_of_service and (healthy or left_s > 1e-6):
                # A healthy node is waited for without end; its next report brings us back.
                return left_s if left_s > 1e-6 else None
        attachment = self._env.store.find(VOLUME_ATTACHMENTS, "", attachment_name(volume, node))
        if attachment is None:
            self._drop(name, node)
            self._queue.add(("", name))
        elif not is_deleting(attachment):
            self._env.store.delete(VOLUME_ATTACHMENTS, "", key_of(attachment)[1])
        return None

    def _attach(self, volume: Obj, node: str) -> None:
        name = key_of(volume)[1]
        there = self._nodes.get(node)
        if not _is_managed(there):
            return
        if self._attached.get(name) and not is_shared(volume):
            self._warn_multi_attach(volume, node)
            return  # the end of the other attachment brings us back
        attachment = attachment_name(volume, node)
        if self._env.store.find(VOLUME_ATTACHMENTS, "", attachment) is None:
            self._env.store.create(
                VOLUME_ATTACHMENTS,
                {
                    "apiVersion": VOLUME_ATTACHMENTS.api_version,
                    "kind": VOLUME_ATTACHMENTS.kind,
                    "metadata": {"name": attachment},
                    "spec": {
                        "attacher": csi_driver(volume),
                        "nodeName": node,
                        "source": {"persistentVolumeName": name},
                    },
                },
            )
        self._remember(name, node)

    def _warn_multi_attach(self, volume: Obj, node: str) -> None:
        name = key_of(volume)[1]
        for key, wanted_on in self._wanted.get(name, {}).items():
            pod = self._env.store.find(PODS, *key)
            if wanted_on == node and pod is not None:
                self._env.events.warn(
                    PODS,
                    pod,
                    "FailedAttachVolume",
                    f'Multi-Attach error for volume "{name}" Volume is already exclusively '
                    "attached to one node and can't be attached to another",
                    component="attachdetach-controller",
                )


def _parts(attachment: Obj) -> Attachment:
    spec = attachment["spec"]
    return spec["source"].get("persistentVolumeName", ""), spec["nodeName"]


def _is_managed(node: Obj | None) -> bool:
    return node is not None and annotations_of(node).get(MANAGED_ANNOTATION) == "true"


def _bears_on_detach(node: Obj) -> tuple[bool, bool, list[str]]:
    return (
        has_taint(node, OUT_OF_SERVICE),
        condition_is(node, "Ready", "True"),
        (node.get("status") or {}).get("volumesInUse") or [],
    )
