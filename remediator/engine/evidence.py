"""All evidence about all nodes: what comes in, and what may be asked of it.

Evidence is the newest signal per node, plane, source and aspect. Ages are measured from arrival, on
our own clock; a source's ``at`` only orders its own signals.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine.accrual import Tempo
from remediator.engine.chain import EvidenceRow
from remediator.engine.evidence_rows import node_rows
from remediator.engine.model import NodeFacts, Plane, Reading, Signal
from remediator.engine.network import Network
from remediator.engine.own_health import OwnHealth
from remediator.engine.plane_values import READY, PlaneReader, PlaneValues
from remediator.engine.said import Books, Said
from remediator.engine.settings import DetectionSettings, OwnHealthSettings
from remediator.engine.silence import BeatPlane

# virt-handler beats every 60 to 132 s (JitterUntil factor 1.2): from here on a beat is late.
_HANDLER_OVERDUE_S = 132.0
# Nodes that signals speak of and no Node object is known of (yet); the oldest makes place.
_STRANGERS_MAX = 10_000


class Evidence:
    """All evidence about all nodes.

    For health views: ``values``, ``rows``, ``suspicion``, ``silence_s``, ``limits_s``,
    ``rhythm_s``, ``network.zones``, ``network.vantages`` and ``own_health`` read only, and may be
    called at any time with the engine's clock.
    """

    def __init__(self, settings: DetectionSettings, own: OwnHealthSettings | None = None) -> None:
        self._settings = settings
        lease_tempo = Tempo(
            settings.lease_overdue_after_s,
            settings.lease_silent_after_s,
            overdue_phi=settings.lease_overdue_phi,
            silent_phi=settings.lease_silent_phi,
            least_s=settings.lease_silent_min_s,
        )
        handler_tempo = Tempo(
            min(_HANDLER_OVERDUE_S, settings.handler_silent_after_s),
            settings.handler_silent_after_s,
        )
        self.leases = BeatPlane(
            settings.lease_watch_gap_s, lease_tempo, learns=settings.lease_adaptive
        )
        self.handlers = BeatPlane(settings.node_watch_gap_s, handler_tempo)
        self.network = Network(settings)
        self.own_health = OwnHealth(own or OwnHealthSettings())
        self.said = Books()
        self._reader = PlaneReader(settings, self.leases, self.handlers, self.network, self.said)
        self._holding: set[str] = set()  # nodes with a reading that must stand for a while yet
        self._fell_overdue: dict[str, float] = {}  # node -> when its lease was found overdue
        self._strangers: dict[str, None] = {}
        self._take: dict[Plane, Callable[[str, Signal, float], bool]] = {
            Plane.LEASE: self._lease_beat,
            Plane.HANDLER: self._handler,
            Plane.NETWORK: self.network.sight,
            Plane.KUBELET: self._kubelet,
            Plane.POWER: self._power,
            Plane.STORAGE: lambda _, signal, now: self.said.storage.take(signal, now),
            Plane.MACHINE: lambda _, signal, now: self.said.machine.take(signal, now),
        }  # guests are not nodes

    # --- what comes in ------------------------------------------------------------------------

    def signal(self, signal: Signal, now: float, *, known: bool = True) -> bool:
        """Take in one observation of a node; True when the node should be looked at again.

        ``known`` is False for a node of which no Node object was seen.
        """
        node = signal.subject.name
        if not known:
            self._remember_stranger(node)
        take = self._take.get(signal.plane)
        return take is not None and take(node, signal, now)

    def rebooted(self, node: str) -> None:
        """Start over for a node that shows a new boot: its old silence and power are history."""
        self.leases.restart(node)
        self.handlers.restart(node)
        self.said.power.forget(node)

    def forget(self, node: str) -> None:
        """Forget a deleted node."""
        self.leases.forget(node)
        self.handlers.forget(node)
        self.network.forget(node)
        self.said.forget(node)
        self._holding.discard(node)
        self._fell_overdue.pop(node, None)
        self._strangers.pop(node, None)

    def made_known(self, node: str) -> None:
        """Note that a Node object of this name exists."""
        if self._strangers:
            self._strangers.pop(node, None)

    def progressed(self, watch: str, at: float, now: float) -> bool:
        """Note that a watch proved at ``at`` that it hears; False for one that is not weighed."""
        match watch:
            case "leases":
                plane, gap_s = self.leases, self._settings.lease_watch_gap_s
            case "nodes":
                plane, gap_s = self.handlers, self._settings.node_watch_gap_s
            case _:
                return False
        plane.time.progress(at)
        self.own_health.progressed(f"the watch of {watch}", gap_s, now)
        return True

    def due(self, now: float) -> list[str]:
        """Return the nodes that may have become overdue or silent, on either watch, since."""
        self.leases.stretch = self.handlers.stretch = self.own_health.multiplier
        late = self.leases.newly_due()
        for node in late:
            self._fell_overdue.setdefault(node, now)
        return late + self.handlers.newly_due()

    # --- what is asked ------------------------------------------------------------------------

    def suspicion(self, node: str) -> float:
        """Return the suspicion level φ of the node's lease (accrual.py): 0 to 300."""
        return self.leases.suspicion(node)

    def silence_s(self, node: str) -> float:
        """Return for how many seconds of proven watching the node's lease was not renewed."""
        return self.leases.silence_s(node)

    def limits_s(self, node: str) -> tuple[float, float]:
        """Return after how long the node's lease is overdue, and after how long silent, seconds.

        By its rhythm; the second is stretched by our own trouble.
        """
        return self.leases.limits_s(node)

    def rhythm_s(self, node: str) -> float | None:
        """Return at what interval the node renews its lease, in seconds; None while not known."""
        return self.leases.rhythm_s(node)

    def overdue(self, node: str) -> bool:
        """Whether the node's lease renewal is late, be it not yet long enough to suspect it."""
        return self.leases.overdue(node)

    def overdue_nodes(self) -> dict[str, float]:
        """Return the nodes whose lease renewal is late, and when each was found so. Read only."""
        for node in [each for each in self._fell_overdue if not self.leases.overdue(each)]:
            del self._fell_overdue[node]
        return self._fell_overdue

    def overdue_lately(self, now: float) -> int:
        """Return how many nodes became overdue within one interval past, and still are."""
        since = now - self._settings.lease_silent_after_s
        return sum(at >= since for at in self.overdue_nodes().values())

    def holding(self) -> list[str]:
        """Return the nodes with a reading that counts only once it has stood for a while."""
        return sorted(self._holding)

    def is_holding(self, node: str) -> bool:
        """Whether something speaks against a node that has not stood for long enough to count."""
        return node in self._holding

    def beaten_since(self, node: str, at: float) -> bool:
        """Whether a lease renewal was seen to happen after ``at``."""
        return self._reader.beaten_since(node, at)

    def unreached(self, now: float) -> set[str]:
        """Return the nodes that nobody reaches, but for those whose lease was renewed since."""
        return self._reader.unreached(now)

    def off_since(self, node: NodeFacts, now: float) -> float:
        """Return from when on a renewal would contradict that the power is off; 0 if it is not."""
        return self._reader.off_since(node.name, now)

    def missed_at(self, node: str) -> float | None:
        """Return when the renewal was due that did not come; None where none was ever heard."""
        beat = self.leases.beats.get(node)
        return None if beat is None else beat.at + self.leases.limits_s(node)[0]

    def heard_after(self, node: str, at: float) -> bool:
        """Whether a node renewed its lease, or answered a probe, after ``at``.

        Also true where nothing of it was ever heard, since nothing can be missed then.
        """
        if node not in self.leases.beats or self.beaten_since(node, at):
            return True
        return self.network.reached_after(node, at)

    def values(self, node: NodeFacts, now: float) -> PlaneValues:
        """Return what each plane says of this node at ``now``."""
        own = self.own_health
        self.leases.stretch = self.handlers.stretch = own.multiplier
        return self._reader.values(node, now, suspended=own.suspended)

    def rows(self, node: NodeFacts, now: float) -> tuple[EvidenceRow, ...]:
        """Return the evidence as a record keeps it: at most 24 rows, in a fixed order."""
        return node_rows(self, node, self.values(node, now), now)

    def bad_conditions(self, node: str, now: float) -> list[Said]:
        """Return the configured conditions that have been bad for longer than their hold."""
        return self._reader.bad_conditions(node, now)

    # --- taking in ----------------------------------------------------------------------------

    def _lease_beat(self, node: str, signal: Signal, now: float) -> bool:
        if signal.reading is not Reading.UP:
            return False
        woke = self.leases.beat(node, signal.at, now, source=signal.source, first=signal.first)
        if woke and not signal.first:
            # Whatever kept the host from being heard kept virt-handler, too: it beats within 132 s.
            self.handlers.restart(node)
        if woke is False and not signal.first:
            beat = self.leases.beats[node]
            self.network.renewed(node, beat.at, beat.back_at, now)
        return bool(woke)

    def _handler(self, node: str, signal: Signal, now: float) -> bool:
        if signal.aspect:  # not its heartbeat but its pod
            changed = self.said.handler.take(signal, now)
            self._hold(node)
            return changed
        if signal.reading is not Reading.UP:
            return False  # unparsable: no beat, and no proof of silence either
        woke = self.handlers.beat(node, signal.at, now, source=signal.source, first=signal.first)
        return woke is not None and (woke or self.leases.silent(node))

    def _power(self, node: str, signal: Signal, now: float) -> bool:
        del node
        changed = self.said.power.take(signal, now)
        return changed or signal.reading is Reading.DOWN

    def _kubelet(self, node: str, signal: Signal, now: float) -> bool:
        ready = signal.aspect in READY
        if not ready and not self._reader.is_configured(signal.aspect):
            return False  # a condition that nobody has configured
        changed = self.said.kubelet.take(signal, now)
        if changed and ready and signal.reading is not Reading.UNKNOWN and not signal.first:
            # Unknown is the node controller's word; any other is the kubelet's own.
            woke = self.leases.sign_of_life(node, now)
            if woke:
                self.handlers.restart(node)
        self._hold(node)
        return changed

    def _hold(self, node: str) -> None:
        standing = (*self.said.kubelet.of(node), *self.said.handler.of(node))
        if any(said.reading is Reading.DOWN for said in standing):
            self._holding.add(node)
        else:
            self._holding.discard(node)

    def _remember_stranger(self, node: str) -> None:
        self._strangers[node] = None
        if len(self._strangers) > _STRANGERS_MAX:
            self.forget(next(iter(self._strangers)))
