"""What each plane says about a node now, and the evidence rows that a record keeps of it."""

from __future__ import annotations

from remediator.engine.chain import EvidenceRow
from remediator.engine.model import NodeFacts, Plane, Reading, Signal
from remediator.engine.settings import DetectionSettings
from remediator.engine.silence import Beat, BeatPlane


class Power:
    """What the fence device said last."""

    __slots__ = ("at", "detail", "off_since", "read_at", "reading", "source")

    def __init__(self) -> None:
        self.at = 0.0  # of the last reading, whatever it was
        self.reading = Reading.UNKNOWN  # the last one that was on or off
        self.read_at = 0.0  # when that was
        self.off_since: float | None = None  # first of an unbroken run of "off"
        self.source = ""
        self.detail = ""


class Ready:
    """The Ready condition as the node status reports it."""

    __slots__ = ("at", "detail", "reading", "since")

    def __init__(self) -> None:
        self.at = 0.0
        self.reading = Reading.UNKNOWN
        self.since = 0.0
        self.detail = ""


class PlaneValues:
    """One value per plane: the key into the verdict table, and the rows that a record keeps."""

    __slots__ = ("handler", "kubelet", "lease", "network", "power", "storage")

    def __init__(self, *, lease: str, handler: str, power: str, kubelet: str) -> None:
        self.lease = lease  # up, quiet, silent, unknown
        self.handler = handler  # up, silent, unknown
        self.power = power  # on, off, gone, unknown
        self.kubelet = kubelet  # up, down, unknown
        self.network = "unknown"  # no prober reports yet
        self.storage = "unknown"  # nor any storage


class Evidence:
    """All evidence about all nodes."""

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings
        self.leases = BeatPlane(settings.lease_watch_gap_s, settings.lease_silent_after_s)
        self.handlers = BeatPlane(settings.node_watch_gap_s, settings.handler_silent_after_s)
        self.power: dict[str, Power] = {}
        self.ready: dict[str, Ready] = {}
        self.not_ready: set[str] = set()

    def signal(self, signal: Signal) -> bool:
        """Take in one observation of a node; True when the node should be looked at again."""
        node = signal.subject.name
        match signal.plane:
            case Plane.LEASE:
                if signal.reading is not Reading.UP:
                    return False
                return self._note_life(node, signal.at, first=signal.first)
            case Plane.HANDLER:
                if signal.reading is not Reading.UP:
                    return False  # unparsable: no beat, and no proof of silence either
                woke = self.handlers.beat(node, signal.at, first=signal.first)
                return woke or self.leases.silence_s(node) >= self._settings.lease_silent_after_s
            case Plane.POWER:
                return self._note_power(node, signal)
            case Plane.KUBELET:
                return self._note_ready(node, signal)
            case _:
                return False  # planes that this version does not weigh

    def _note_life(self, node: str, at: float, *, first: bool) -> bool:
        """Note that the kubelet lives; True when it was silent or unknown before."""
        woke = self.leases.beat(node, at, first=first)
        if woke and not first:
            # Whatever kept the host from being heard kept virt-handler, too: it beats within 132 s.
            self.handlers.restart(node)
        return woke

    def rebooted(self, node: str) -> None:
        """Start over for a node that shows a new boot: its old silence and power are history."""
        self.leases.restart(node)
        self.handlers.restart(node)
        self.power.pop(node, None)

    def forget(self, node: str) -> None:
        """Forget a deleted node."""
        self.leases.forget(node)
        self.handlers.forget(node)
        self.power.pop(node, None)
        self.ready.pop(node, None)
        self.not_ready.discard(node)

    def overdue(self, node: str) -> bool:
        """Whether the node's lease renewal is late, be it not yet long enough to suspect it."""
        return self.leases.silence_s(node) >= self._settings.lease_overdue_after_s

    def beaten_since(self, node: str, at: float) -> bool:
        """Whether a lease renewal was seen to happen after ``at``."""
        beat = self.leases.beats.get(node)
        return beat is not None and beat.live and beat.at > at

    def values(self, node: NodeFacts, now: float) -> PlaneValues:
        """Return what each plane says of this node at ``now``."""
        power = self._power_value(node.name, now)
        return PlaneValues(
            lease=self._lease_value(node.name, power),
            handler=self._handler_value(node, now),
            power=power,
            kubelet=self._kubelet_value(node.name, now),
        )

    def rows(self, node: NodeFacts, now: float) -> tuple[EvidenceRow, ...]:
        """Return the evidence as a record keeps it."""
        values = self.values(node, now)
        lease, handler = self.leases.beats.get(node.name), self.handlers.beats.get(node.name)
        power = self.power.get(node.name) or Power()
        ready = self.ready.get(node.name) or Ready()
        return (
            _beat_row("lease", values.lease, lease, self.leases.silence_s(node.name), now),
            _beat_row("handler", values.handler, handler, self.handlers.silence_s(node.name), now),
            EvidenceRow(
                plane="power",
                value=values.power,
                since_s=round(now - power.at, 3) if power.at else 0.0,
                source=power.source,
                detail=power.detail,
            ),
            EvidenceRow(
                plane="kubelet",
                value=values.kubelet,
                since_s=round(now - ready.since, 3) if ready.since else 0.0,
                source="node status",
                detail=ready.detail,
            ),
        )

    def _note_power(self, node: str, signal: Signal) -> bool:
        power = self.power.setdefault(node, Power())
        if signal.at < power.at:
            return False  # out of order
        power.at, power.source, power.detail = signal.at, signal.source, signal.detail
        if signal.reading is Reading.UNKNOWN:
            return False  # no answer takes nothing back: it was off, or on, when last asked
        changed = signal.reading is not power.reading
        power.reading, power.read_at = signal.reading, signal.at
        if signal.reading is Reading.UP:
            power.off_since = None
        elif power.off_since is None:
            power.off_since = signal.at
        return changed or signal.reading is Reading.DOWN

    def _note_ready(self, node: str, signal: Signal) -> bool:
        ready = self.ready.setdefault(node, Ready())
        if signal.at < ready.at:
            return False
        if signal.reading is not ready.reading:
            ready.since = signal.at
            if signal.reading is not Reading.UNKNOWN and not signal.first:
                # Unknown is the node controller's word; any other is the kubelet's own.
                self._note_life(node, signal.at, first=False)
        ready.at, ready.reading, ready.detail = signal.at, signal.reading, signal.detail
        if signal.reading is Reading.DOWN:
            self.not_ready.add(node)
        else:
            self.not_ready.discard(node)
        return True

    def _lease_value(self, node: str, power: str) -> str:
        beat = self.leases.beats.get(node)
        if beat is None:
            return "unknown"
        silence_s = self.leases.silence_s(node)
        if silence_s >= self._settings.lease_silent_after_s:
            return "silent"
        if not beat.live or beat.mark_s < self.leases.time.floor_s:
            return "unknown"  # not heard since we began, or since we were deaf
        if power == "off":
            off_since = self.power[node].off_since or 0.0
            heard_after_off = beat.at > off_since + self._settings.contradiction_after_s
            return "up" if heard_after_off else "quiet"
        return "quiet" if silence_s >= self._settings.lease_overdue_after_s else "up"

    def _handler_value(self, node: NodeFacts, now: float) -> str:
        beat = self.handlers.beats.get(node.name)
        if not node.kubevirt or beat is None:
            return "unknown"
        if self.handlers.silence_s(node.name) >= self._settings.handler_silent_after_s:
            return "silent"
        if not beat.live:
            return "unknown"
        lease = self.leases.beats.get(node.name)
        silent_s = self._settings.lease_silent_after_s
        if lease is not None and self.leases.silence_s(node.name) >= silent_s:
            # Beats are up to 132 s apart: one from before the lease fell silent says nothing now.
            # And a host that has just come back renews its lease within a period: wait for that.
            after = beat.at > lease.at + silent_s
            return "up" if after and now - beat.at >= silent_s else "unknown"
        return "up"

    def _power_value(self, node: str, now: float) -> str:
        power = self.power.get(node)
        if power is None or power.reading is Reading.UNKNOWN:
            return "unknown"
        fresh = now - power.read_at <= self._settings.power_fresh_s
        if power.reading is Reading.UP:
            return "on" if fresh else "unknown"
        # What was once off cannot still be writing from before, so "off" does not grow stale,
        # unless the node has been heard since: then it says nothing about this boot.
        since = power.read_at + self._settings.contradiction_after_s
        return "off" if fresh or not self.beaten_since(node, since) else "unknown"

    def _kubelet_value(self, node: str, now: float) -> str:
        ready = self.ready.get(node)
        if ready is None or ready.reading is Reading.UNKNOWN:
            return "unknown"  # Unknown is the node controller's reading of the same lease
        if ready.reading is Reading.UP:
            return "up"
        stood = now - ready.since >= self._settings.degraded_after_s
        return "down" if stood else "unknown"


def _beat_row(
    plane: str, value: str, beat: Beat | None, silence_s: float, now: float
) -> EvidenceRow:
    if beat is None:
        return EvidenceRow(plane=plane, value=value, since_s=0.0, detail="never seen")
    kind = "last seen" if beat.live else "found at start"
    return EvidenceRow(
        plane=plane,
        value=value,
        since_s=round(silence_s, 3),
        source="watch",
        detail=f"{kind} {now - beat.at:.1f} s ago",
    )
