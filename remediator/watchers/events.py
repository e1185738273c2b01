"""Events about guests: probes that fail, panics, watchdogs, volumes that do not attach.

An Event is a word, not a state: whoever said it says it again, and counts, while its cause lasts,
but ever more rarely (client-go lets a component say 25 things about one object and then one every
five minutes), and never that it is over. So each repeat is a signal, and none means that all is
well; how long a word stands, the engine decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from remediator.clock import Clock
from remediator.engine.model import Plane, Reading, Signal, Subject, vm_subject
from remediator.kube.objects import COMPUTE, ClusterEvent, Pod
from remediator.watchers.outlet import Outlet

log = structlog.get_logger(__name__)

SOURCE: Final = "kubernetes events"

# More often than this a cluster in which every probe fails would fill the bus with what is known.
# The kubelet tries every 10 s, and a word of its stands for a minute.
PERIOD_S: Final = 15.0
# VMs and aspects that are told within a period, of all: a rate that the bus takes beside everything
# else. Beyond it a cluster has another trouble than these guests.
PERIOD_MAX: Final = 20_000

# How client-go begins a text once the texts differ too often.
_COMBINED: Final = "(combined from similar events): "
# The kubelet's words (pkg/kubelet/prober). One that "errored" could not be tried: no witness.
_PROBES: Final = {
    "Readiness probe failed": "readiness-probe",
    "Liveness probe failed": "liveness-probe",
}
_ATTACH: Final = frozenset({"FailedAttachVolume", "FailedMount"})


class EventSink:
    """Publishes each Event that speaks of a VM, and each of its repeats, but not too often.

    ``pod`` finds a launcher pod by namespace and name: only it knows its VMI for sure.
    """

    def __init__(self, outlet: Outlet, clock: Clock, pod: Callable[[str, str], Pod | None]) -> None:
        self._outlet = outlet
        self._clock = clock
        self._pod = pod
        self._told_at: dict[tuple[Subject, str], float] = {}  # within the last period, in order
        self._held_back_at = -PERIOD_S

    def seen(self, obj: ClusterEvent, old: ClusterEvent | None, *, initial: bool) -> None:
        """Publish a new Event, and one that was repeated."""
        if old is None or obj.times > old.times:
            self._tell(obj, first=initial)

    def gone(self, obj: ClusterEvent) -> None:
        """Ignore it: the API server forgets Events after an hour."""

    def synced(self) -> None:
        """Nothing to tell: Events are signals, not inventory."""

    def progressed(self, at: float) -> None:
        """Ignore it: silence of these watches means nothing."""

    def again(self, obj: ClusterEvent) -> None:
        """Offer a known Event once more, as found: who begins to listen does not know its age."""
        self._tell(obj, first=True)

    def _tell(self, event: ClusterEvent, *, first: bool) -> None:
        meaning = _meaning(event)
        if meaning is None or not self._outlet.is_open:
            return
        plane, aspect = meaning
        subject = self._subject(event)
        if subject is None or not (first or self._granted(subject, aspect)):
            return
        times = f" ({event.times} times)" if event.times > 1 else ""
        self._outlet.signal(
            Signal(
                plane=plane,
                source=SOURCE,
                subject=subject,
                reading=Reading.DOWN,
                at=self._clock.now(),
                aspect=aspect,
                detail=f"{event.said.removeprefix(_COMBINED)}{times}",
                first=first,
            )
        )

    def _subject(self, event: ClusterEvent) -> Subject | None:
        """Return the VM that an Event is about; None where that is not known, or no news."""
        about = event.involved_object
        if about.kind != "Pod":
            return vm_subject(about.namespace, about.name) if about.name else None
        pod = self._pod(about.namespace, about.name)
        if pod is None or pod.deleting or not pod.vmi_name:
            return None  # of a launcher that ends, a probe that fails is no news
        return vm_subject(pod.namespace, pod.vmi_name)

    def _granted(self, subject: Subject, aspect: str) -> bool:
        """Say whether this may be told now; at most once in ``PERIOD_S`` for a VM and aspect."""
        key, now = (subject, aspect), self._clock.now()
        while self._told_at and now - next(iter(self._told_at.values())) >= PERIOD_S:
            del self._told_at[next(iter(self._told_at))]
        if key in self._told_at:
            return False
        if len(self._told_at) >= PERIOD_MAX:
            self._note_storm(now)
            return False
        self._told_at[key] = now
        return True

    def _note_storm(self, now: float) -> None:
        if now - self._held_back_at >= PERIOD_S:
            self._held_back_at = now
            log.warning("events_held_back", told=len(self._told_at), period_s=PERIOD_S)


def _meaning(event: ClusterEvent) -> tuple[Plane, str] | None:
    """Return the plane and aspect that an Event speaks of; None for one that is not weighed."""
    reason = event.reason or ""
    if reason in _ATTACH:
        return Plane.STORAGE, "attach"
    if reason == "Unhealthy":
        place = event.involved_object.field_path
        if place and f"{{{COMPUTE}}}" not in place:
            return None  # a sidecar's probe says nothing of the guest
        text = event.said.removeprefix(_COMBINED)
        aspect = next((what for words, what in _PROBES.items() if text.startswith(words)), None)
        return (Plane.GUEST, aspect) if aspect is not None else None
    # KubeVirt's own are GuestPanicked; it has none of a watchdog, but others may write them.
    for word in ("panic", "watchdog"):
        if word in reason.lower():
            return Plane.GUEST, word
    return None
