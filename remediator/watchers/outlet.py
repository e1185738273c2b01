"""The way out: events to the bus, open only while this daemon leads."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import msgspec
import structlog

from remediator.bus import subjects
from remediator.bus.protocols import EventPublisher
from remediator.clock import Clock
from remediator.engine.events import (
    InventorySynced,
    ObjectGone,
    ObjectSeen,
    WatchProgressed,
    WireEvent,
    encoder,
)
from remediator.engine.model import FactKind, Facts, Signal
from remediator.signals import wire

log = structlog.get_logger(__name__)

PROGRESS_PERIOD_S: Final = 1.0  # at most one progress mark per watch in this time


class Outlet:
    """Encodes events and offers them to the publisher while ``is_open``.

    A message id names the object's version, or the signal (``wire.signal_id``), and the
    ``edition``, so that a repeat by the publisher is stored once. Without the edition a new
    leader's observations would be taken for those that the leader before it published (the
    deduplication window is two minutes), and never reach its engine.

    Everything carries the ``origin``, by which this process knows its own again: what another
    leader left on its way is of another picture and another clock.
    """

    def __init__(self, publisher: EventPublisher, rng: random.Random) -> None:
        self._publisher = publisher
        self._rng = rng
        self.is_open = False
        self.edition = self._new_edition()
        self.origin = self.edition  # of the process; editions come and go

    @property
    def pending(self) -> int:
        """How many messages wait for NATS."""
        return self._publisher.pending

    def renew_edition(self) -> None:
        """Begin a new edition: everything is going to be offered again."""
        self.edition = self._new_edition()

    def facts(self, facts: Facts, version: str) -> None:
        """Send an object's facts; ``version`` is its resourceVersion."""
        if self.is_open and (subject := _inventory_subject(facts)):
            self._send(subject, ObjectSeen(facts=facts, by=self.origin), f"{facts.uid}:{version}")

    def gone(self, kind: FactKind, facts: Facts, version: str = "") -> None:
        """Send that an object is gone; ``version`` where facts may come and go more than once."""
        if self.is_open and (subject := _inventory_subject(facts)):
            namespace = getattr(facts, "namespace", "")
            event = ObjectGone(
                kind=kind, name=facts.name, namespace=namespace, uid=facts.uid, by=self.origin
            )
            self._send(subject, event, f"{facts.uid}:gone{version}")

    def synced(self, kind: FactKind) -> None:
        """Send that every object of a kind has been reported."""
        if self.is_open:
            subject = subjects.inventory_synced(kind.value)
            event = InventorySynced(kind=kind, by=self.origin)
            self._send(subject, event, f"synced:{kind.value}")

    def beat(self, signal: Signal) -> None:
        """Send a repeated proof of life."""
        self._offer(signal, beat=True)

    def signal(self, signal: Signal) -> None:
        """Send a change of state."""
        self._offer(signal, beat=False)

    def progress(self, watch: str, at: float) -> None:
        """Send that a watch proved progress at ``at``."""
        if self.is_open:
            event = WatchProgressed(watch=watch, at=at, by=self.origin)
            subject = subjects.watch_progress(watch, self.origin)
            self._send(subject, event, f"progress:{watch}:{at:.6f}")

    def _offer(self, signal: Signal, *, beat: bool) -> None:
        if self.is_open:
            signal = msgspec.structs.replace(signal, by=self.origin)
            wire.offer(self._publisher, signal, beat=beat, edition=self.edition)

    def _send(self, subject: str, event: WireEvent, message_id: str) -> None:
        message_id = f"{message_id}:{self.edition}"
        self._publisher.offer(subject, encoder.encode(event), message_id=message_id)

    def _new_edition(self) -> str:
        return f"{self._rng.getrandbits(48):012x}"


class ProgressMark:
    """Publishes the progress of one watch, at most once per period, the newest at its end.

    The reflector reports progress only after it has handed on everything that arrived with it, so
    a mark never overtakes the beats that it vouches for.
    """

    def __init__(
        self, watch: str, outlet: Outlet, clock: Clock, *, period_s: float = PROGRESS_PERIOD_S
    ) -> None:
        self._watch = watch
        self._outlet = outlet
        self._clock = clock
        self._period_s = period_s
        self._at = 0.0
        self._next_at = 0.0  # when the next mark may go out
        self._timer: asyncio.TimerHandle | None = None

    def note(self, at: float) -> None:
        """Note that the watch heard the API server as of ``at``."""
        if not self._outlet.is_open:
            return
        self._at = at
        if self._timer is None:
            wait_s = max(0.0, self._next_at - self._clock.now())
            if wait_s > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._publish)
            else:
                self._publish()

    def close(self) -> None:
        """Publish nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _publish(self) -> None:
        self._timer = None
        self._next_at = self._clock.now() + self._period_s
        self._outlet.progress(self._watch, self._at)


def _inventory_subject(facts: Facts) -> str:
    """Return an object's subject; empty, with a warning, where its name is no name."""
    kind = str(type(facts).__struct_config__.tag)
    try:
        return subjects.inventory(kind, facts.name, getattr(facts, "namespace", ""))
    except subjects.SubjectNameError as error:
        log.warning("object_ignored", kind=kind, error=str(error))
        return ""
