"""Writes Kubernetes Events, as controllers do to say what hinders them."""

from __future__ import annotations

from remediator.clock import Clock
from remediator.sim.controllers.metadata import Obj, uid_of
from remediator.sim.resources import EVENTS, ResourceType
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339

_MEMORY_MAX = 4096
"""client-go EventCorrelator's LRU cache size."""


class EventRecorder:
    """Creates an Event for each new (object, reason, message); repeats are dropped.

    client-go would count repeats on the same Event; here the first says all there is to know.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._said: dict[tuple[str, str, str], None] = {}

    def warn(
        self, res: ResourceType, obj: Obj, reason: str, message: str, *, component: str
    ) -> None:
        """Record a Warning about ``obj``. Raises Problem when the API server refuses."""
        said = (uid_of(obj), reason, message)
        if said in self._said:
            return
        self._said[said] = None
        if len(self._said) > _MEMORY_MAX:
            del self._said[next(iter(self._said))]
        meta = obj["metadata"]
        now = rfc3339(self._clock.now())
        self._store.create(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "generateName": f"{meta['name']}.",
                    "namespace": meta.get("namespace") or "default",
                },
                "involvedObject": {
                    "apiVersion": res.api_version,
                    "kind": res.kind,
                    "name": meta["name"],
                    "namespace": meta.get("namespace", ""),
                    "uid": uid_of(obj),
                },
                "type": "Warning",
                "reason": reason,
                "message": message,
                "source": {"component": component},
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            },
        )
