"""Writes Kubernetes Events, as controllers do to say what hinders them."""

from __future__ import annotations

from remediator.clock import Clock
from remediator.sim.controllers.metadata import Obj, uid_of
from remediator.sim.event_correlator import EventCorrelator
from remediator.sim.resources import EVENTS, ResourceType
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339


class EventRecorder:
    """Creates an Event for each new (object, reason, message) and counts its repeats."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._correlator = EventCorrelator()

    def warn(
        self, res: ResourceType, obj: Obj, reason: str, message: str, *, component: str
    ) -> None:
        """Record a Warning about ``obj``. Raises Problem when the API server refuses."""
        meta = obj["metadata"]
        at = self._clock.now()
        now = rfc3339(at)
        about = f"{component}/{uid_of(obj)}"
        series = self._correlator.take(about, (about, reason, message), meta["name"], at)
        if series is None:
            return
        namespace = meta.get("namespace") or "default"
        if series.count > 1 and self._store.find(EVENTS, namespace, series.name) is not None:

            def count(event: Obj) -> None:
                event.update(count=series.count, lastTimestamp=now)

            self._store.mutate(EVENTS, namespace, series.name, count)
            return
        self._store.create(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": series.name, "namespace": namespace},
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
                "firstTimestamp": rfc3339(series.first_at),
                "lastTimestamp": now,
                "count": series.count,
            },
        )
