"""The CSI external-attacher: carries out VolumeAttachments on the storage backend."""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import (
    Obj,
    add_finalizer,
    finalizers_of,
    is_deleting,
    key_of,
    remove_finalizer,
)
from remediator.sim.controllers.pod_state import claim_names
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import PERSISTENT_VOLUME_CLAIMS, PODS, VOLUME_ATTACHMENTS

# k8s exponentialbackoff of volume operations: initialDurationBeforeRetry, maxDurationBeforeRetry.
_BACKOFF_S = 0.5
_BACKOFF_CAP_S = 122.0


class ExternalAttacher:
    """Publishes and unpublishes volumes; each call takes ``attach_s`` or ``detach_s``."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._queue = env.queue("external-attacher", self._reconcile)
        # The store's state that each call in flight will bring about: attached, or gone.
        self._due: dict[Key, tuple[bool, float]] = {}
        self._refusals: dict[str, int] = {}  # in a row, by VolumeAttachment
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Subscribe to VolumeAttachments."""
        self._end = self._env.store.subscribe(VOLUME_ATTACHMENTS, self._changed)
        self.forget()

    def forget(self) -> None:
        """Begin every call again that had not ended."""
        self._due.clear()
        for attachment in self._env.store.list(VOLUME_ATTACHMENTS):
            self._queue.add(key_of(attachment))

    def stop(self) -> None:
        """End the subscription and timers."""
        if self._end is not None:
            self._end()
        self._queue.close()

    def _changed(self, kind: str, attachment: Obj, _old: Obj | None) -> None:
        if kind == "DELETED":
            self._due.pop(key_of(attachment), None)
        else:
            self._queue.add(key_of(attachment))

    def _reconcile(self, key: Key) -> float | None:
        store = self._env.store
        attachment = store.find(VOLUME_ATTACHMENTS, *key)
        if attachment is None:
            return None
        finalizer = f"external-attacher/{attachment['spec']['attacher']}".replace(".", "-")
        deleting = is_deleting(attachment)
        attached = (attachment.get("status") or {}).get("attached", False)
        if not deleting and finalizer not in finalizers_of(attachment):
            store.mutate(VOLUME_ATTACHMENTS, *key, lambda obj: add_finalizer(obj, finalizer))
        if attached and not deleting:
            return None
        if not deleting and (refused_s := self._refused(attachment)) is not None:
            return refused_s
        wait_s = self._call(key, detach=deleting)
        if wait_s > 0.0:
            return wait_s
        if deleting:
            store.mutate(VOLUME_ATTACHMENTS, *key, lambda obj: remove_finalizer(obj, finalizer))
        else:
            store.mutate(VOLUME_ATTACHMENTS, *key, _set_attached, subresource="status")
        return None

    def _refused(self, attachment: Obj) -> float | None:
        """Say that the storage refuses; return when it is tried again, None where it does not."""
        spec, name = attachment["spec"], attachment["metadata"]["name"]
        volume = spec["source"].get("persistentVolumeName", "")
        if volume not in self._env.troubles.no_attach:
            self._refusals.pop(name, None)
            return None
        count = self._refusals[name] = self._refusals.get(name, 0) + 1
        for pod in self._env.store.list(PODS, fields=f"spec.nodeName={spec['nodeName']}"):
            if volume in self._volumes_of(pod):
                self._env.events.warn(
                    PODS,
                    pod,
                    "FailedAttachVolume",
                    f'AttachVolume.Attach failed for volume "{volume}" : rpc error: code = '
                    "DeadlineExceeded desc = context deadline exceeded",
                    component="attachdetach-controller",
                )
        return min(_BACKOFF_CAP_S, _BACKOFF_S * 2.0 ** (count - 1))

    def _volumes_of(self, pod: Obj) -> set[str]:
        namespace = key_of(pod)[0]
        claims = (
            self._env.store.find(PERSISTENT_VOLUME_CLAIMS, namespace, claim)
            for claim in claim_names(pod)
        )
        return {claim["spec"].get("volumeName", "") for claim in claims if claim is not None}

    def _call(self, key: Key, *, detach: bool) -> float:
        """Return how long the call to the storage still takes; begin it if need be."""
        now = self._env.loop.time()
        begun = self._due.get(key)
        if begun is None or begun[0] is not detach:
            settings = self._env.settings
            took_s = self._env.rng.uniform(*(settings.detach_s if detach else settings.attach_s))
            begun = self._due[key] = (detach, now + took_s)
        left_s = begun[1] - now
        if left_s > 1e-6:
            return left_s
        del self._due[key]
        return 0.0


def _set_attached(attachment: Obj) -> None:
    attachment["status"] = {"attached": True}
