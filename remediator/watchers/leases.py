"""The lease watch: the kubelets' heartbeats, and the canary that proves that silence counts."""

from __future__ import annotations

from typing import Final

from remediator.clock import Clock
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.kube.objects import Lease
from remediator.watchers.canary import ProgressCanary, is_canary
from remediator.watchers.outlet import Outlet, ProgressMark

SOURCE: Final = "lease watch"
WATCH: Final = "leases"


class LeaseSink:
    """Publishes every renewal of a node's Lease as a beat on the plane ``lease``.

    A renewal is any change of ``renewTime``, backward too: it is the node's clock, not ours.
    Progress of the watch is what the canary proves; where there is none, what events and bookmarks
    prove.
    """

    def __init__(self, outlet: Outlet, clock: Clock, canary: ProgressCanary | None) -> None:
        self._outlet = outlet
        self._clock = clock
        self._canary = canary
        self._mark = ProgressMark(WATCH, outlet, clock)
        self._beats: dict[str, tuple[str, float]] = {}

    def last_beat(self, node: str) -> tuple[str, float] | None:
        """Return the newest renewTime seen, and when it was seen to change.

        The time is ours; 0.0 where the renewal was found by a list, so that its age is not known.
        """
        return self._beats.get(node)

    def seen(self, obj: Lease, old: Lease | None, *, initial: bool) -> None:
        """Publish a renewal."""
        del initial  # a lease without an older version is of unknown age, whenever it is found
        if is_canary(obj.name):
            self._take_canary(obj)
            return
        renew_time = _renew_time(obj)
        if not renew_time or (old is not None and _renew_time(old) == renew_time):
            return
        now = self._clock.now()
        self._beats[obj.name] = (renew_time, 0.0 if old is None else now)
        self._beat(obj, now, first=old is None)

    def gone(self, obj: Lease) -> None:
        """Forget the lease; its node's silence begins with the last beat."""
        if is_canary(obj.name):
            if self._canary is not None:
                self._canary.gone(obj.name)
            return
        self._beats.pop(obj.name, None)

    def synced(self) -> None:
        """Nothing to tell: leases are signals, not inventory."""

    def progressed(self, at: float) -> None:
        """Publish the progress that events and bookmarks prove, where no canary proves more."""
        if self._canary is None or self._canary.refused:
            self._mark.note(at)

    def again(self, obj: Lease) -> None:
        """Offer a known lease once more, as found: who begins to listen does not know its age."""
        if not is_canary(obj.name) and _renew_time(obj):
            self._beat(obj, self._clock.now(), first=True)

    def close(self) -> None:
        """Publish nothing more."""
        self._mark.close()

    def _take_canary(self, obj: Lease) -> None:
        if self._canary is None:
            return
        written_at = self._canary.seen(obj.name, _renew_time(obj))
        if written_at is not None:
            # Everything that was written before the canary has been delivered before it.
            self._outlet.progress(WATCH, written_at)

    def _beat(self, obj: Lease, at: float, *, first: bool) -> None:
        if not self._outlet.is_open:
            return
        signal = Signal(
            plane=Plane.LEASE,
            source=SOURCE,
            subject=node_subject(obj.name),
            reading=Reading.UP,
            at=at,
            first=first,
        )
        self._outlet.beat(signal)


def _renew_time(lease: Lease) -> str:
    return (lease.spec.renew_time if lease.spec is not None else None) or ""
