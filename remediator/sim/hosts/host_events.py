"""Writes Kubernetes Events from a host: the kubelet's of its pods, virt-handler's of its VMIs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from remediator.kube.transport import TransportError
from remediator.sim.event_correlator import EventCorrelator, Series
from remediator.sim.hosts.wire import STRATEGIC_PATCH, HostProcess, Obj, RefusedError
from remediator.sim.timestamps import rfc3339

if TYPE_CHECKING:
    from remediator.sim.hosts.host import Host

# client-go: maxQueuedEvents, maxTriesPerEvent, defaultSleepDuration.
_WAITING_MAX = 1000
_TRIES = 12
_RETRY_S = 10.0


class HostEvents:
    """The recorder of one process; what it cannot write for two minutes is lost."""

    def __init__(self, process: HostProcess, component: str, host: Host) -> None:
        self._process = process
        self._component = component
        self._host = host
        self._correlator = EventCorrelator()
        self._waiting: deque[tuple[Series, int, Obj]] = deque(maxlen=_WAITING_MAX)
        self._writing = False

    def clear(self) -> None:
        """Forget everything: the process starts anew."""
        self._correlator = EventCorrelator()
        self._waiting.clear()
        self._writing = False

    def record(
        self, about: Obj, kind: str, reason: str, message: str, *, type_: str = "Warning"
    ) -> None:
        """Record an Event about an object of this ``kind``, given as the API shows it."""
        meta = about["metadata"]
        now = self._host.now()
        key = (meta["uid"], type_, reason, message)
        series = self._correlator.take(meta["uid"], key, meta["name"], now)
        if series is None:
            return
        event: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": series.name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": about.get("apiVersion", "v1"),
                "kind": kind,
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "type": type_,
            "reason": reason,
            "message": message,
            "source": {"component": self._component, "host": self._host.name},
            "reportingComponent": self._component,
            "reportingInstance": self._host.name,
            "firstTimestamp": rfc3339(series.first_at),
            "lastTimestamp": rfc3339(now),
        }
        if kind == "Pod":
            event["involvedObject"]["fieldPath"] = "spec.containers{compute}"
        self._waiting.append((series, series.count, event))
        if not self._writing and self._process.running:
            self._writing = True
            self._process.spawn(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            series, count, event = self._waiting.popleft()
            await self._write(series, count, event)
        self._writing = False

    async def _write(self, series: Series, count: int, event: Obj) -> None:
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        for _ in range(_TRIES):
            try:
                if count > 1:
                    await self._process.request(
                        "PATCH",
                        f"{path}/{series.name}",
                        {"count": count, "lastTimestamp": event["lastTimestamp"]},
                        content_type=STRATEGIC_PATCH,
                    )
                else:
                    await self._process.request("POST", path, {**event, "count": 1})
            except RefusedError as error:
                if error.status == 404 and count > 1:
                    count = 1  # it has expired: written anew, as client-go does
                    continue
                if not error.transient:
                    return
            except TransportError:
                pass  # tried again below
            else:
                return
            await self._process.sleep(_RETRY_S)
