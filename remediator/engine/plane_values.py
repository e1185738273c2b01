"""What each plane says about a node now: one word per plane, the key into the verdict table."""

from __future__ import annotations

from remediator.engine.model import NodeFacts, Reading, Record
from remediator.engine.network import Network
from remediator.engine.said import Books, Said
from remediator.engine.settings import DetectionSettings
from remediator.engine.silence import BeatPlane

INSTANCE_GONE = "instance-gone"  # aspect of a machine signal: the instance was deleted
READY = frozenset({"", "Ready"})  # aspects of a kubelet signal that mean the Ready condition

SILENT = frozenset({"silent", "lost"})  # lease values: the limit of its silence is reached

# After so long every vantage point has probed a node again, also one that was not asked to (its
# peace period is 5 s): what it said while the host was away says nothing about its return.
_PROBED_ANEW_S = 6.0


class PlaneValues(Record, frozen=True, kw_only=True):
    """One value per plane: the key into the verdict table."""

    lease: str = "unknown"  # up, quiet, silent, lost (silent for long), unknown
    network: str = "unknown"  # up, down, refuted (down, and yet its lease was renewed), unknown
    handler: str = "unknown"  # up, silent, down, unknown
    storage: str = "unknown"  # up, down, unknown
    power: str = "unknown"  # on, off, unknown
    kubelet: str = "unknown"  # up, down, unknown
    machine: str = "unknown"  # up, down, gone, unknown
    conditions: str = "unknown"  # fine, bad, unknown
    own: str = "fine"  # fine, suspended: our own health


class PlaneReader:
    """Reads the pictures of all planes; changes nothing."""

    def __init__(
        self,
        settings: DetectionSettings,
        leases: BeatPlane,
        handlers: BeatPlane,
        network: Network,
        said: Books,
    ) -> None:
        self._settings = settings
        self._leases = leases
        self._handlers = handlers
        self._network = network
        self._said = said
        self._conditions = {rule.type: rule for rule in settings.conditions}

    def values(self, node: NodeFacts, now: float, *, suspended: bool) -> PlaneValues:
        """Return what each plane says of this node at ``now``."""
        name = node.name
        power = self._power_value(name, now)
        lease = self._lease_value(name, power, now)
        return PlaneValues(
            lease=lease,
            network=self._network_value(name, lease, now),
            handler=self._handler_value(node, lease, now),
            storage=self._storage_value(name, lease, now),
            power=power,
            kubelet=self._kubelet_value(name, now),
            machine=self._machine_value(name),
            conditions=self._conditions_value(name, now),
            own="suspended" if suspended else "fine",
        )

    def is_configured(self, condition: str) -> bool:
        """Whether the settings name this condition type."""
        return condition in self._conditions

    def beaten_since(self, node: str, at: float) -> bool:
        """Whether a lease renewal was seen to happen after ``at``."""
        beat = self._leases.beats.get(node)
        return beat is not None and beat.live and beat.at > at

    def off_since(self, node: str, now: float) -> float:
        """Return from when on a renewal would contradict that the power is off; 0 if it is not."""
        return self._heard_after_off(node) if self._power_value(node, now) == "off" else 0.0

    def bad_conditions(self, node: str, now: float) -> list[Said]:
        """Return the configured conditions that have been bad for longer than their hold."""
        return [
            said
            for said in self._said.kubelet.of(node)
            if said.reading is Reading.DOWN
            and (rule := self._conditions.get(said.aspect)) is not None
            and now - said.since >= rule.hold_s
        ]

    def _lease_value(self, node: str, power: str, now: float) -> str:
        beat = self._leases.beats.get(node)
        if beat is None:
            return "unknown"
        if self._leases.silent(node):
            lost = self._leases.missed(node) >= self._settings.lease_lost_after_beats
            # A host that has just come back renews its lease within a period: wait for that.
            up_since = self._network.up_since(node, now)
            back = up_since is not None and now - up_since < beat.silent_s
            return "lost" if lost and not back else "silent"
        if not beat.live or beat.mark_s < self._leases.time.floor_s:
            return "unknown"  # not heard since we began, or since we were deaf
        if power == "off":
            heard_after_off = self.beaten_since(node, self._heard_after_off(node))
            return "up" if heard_after_off else "quiet"
        return "quiet" if self._leases.overdue(node) else "up"

    def _network_value(self, node: str, lease: str, now: float) -> str:
        network = self._network.value(node, now)
        if network == "down" and self._network.is_refuted(node):
            return "refuted"
        if network == "down" and lease in ("up", "quiet"):
            back_at = self._leases.beats[node].back_at  # a host that is back is probed anew first
            return "unknown" if now - back_at < _PROBED_ANEW_S else "down"
        return network

    def unreached(self, now: float) -> set[str]:
        """Return the nodes that the vantage points call down, where nothing refutes them."""
        return {node for node in self._network.unreached(now) if not self._network.is_refuted(node)}

    def _handler_value(self, node: NodeFacts, lease: str, now: float) -> str:
        if not node.kubevirt:
            return "unknown"
        beat = self._handlers.beats.get(node.name)
        if beat is not None and self._handlers.silent(node.name):
            return "silent"
        if lease in ("up", "quiet") and self._pod_is_down(node.name, now):
            return "down"  # once the lease is silent, the node controller says so of every pod
        if beat is None or not beat.live:
            return "unknown"
        if lease in SILENT:
            # Beats are up to 132 s apart: one from before the lease fell silent says nothing now.
            # And a host that has just come back renews its lease within a period: wait for that.
            silent_s = self._leases.beats[node.name].silent_s
            late = now - beat.at >= silent_s
            return "up" if self._after_silence(node.name, beat.at) and late else "unknown"
        return "up"

    def _pod_is_down(self, node: str, now: float) -> bool:
        lease = self._leases.beats.get(node)
        back_at = 0.0 if lease is None else lease.back_at
        limit_s = self._settings.handler_silent_after_s * self._handlers.stretch
        return any(
            said.reading is Reading.DOWN and now - max(said.since, back_at) >= limit_s
            for said in self._said.handler.of(node)
        )

    def _after_silence(self, node: str, at: float) -> bool:
        """Whether something at ``at`` came after the node's lease had fallen silent."""
        lease = self._leases.beats.get(node)
        return lease is None or at > lease.at + lease.silent_s

    def _storage_value(self, node: str, lease: str, now: float) -> str:
        said = list(self._said.storage.of(node))
        for each in said:
            if each.reading is not Reading.UP:
                continue
            fresh = now - each.arrived_at <= self._settings.storage_fresh_s
            # What storage heard before the lease fell silent is no sign of life now.
            if fresh and (lease not in SILENT or self._after_silence(node, each.arrived_at)):
                return "up"
        return "down" if any(each.reading is Reading.DOWN for each in said) else "unknown"

    def _heard_after_off(self, node: str) -> float:
        """Return from when on a beat contradicts "off": a write in flight may come after it."""
        off = [each for each in self._said.power.of(node) if each.firm is Reading.DOWN]
        first_at = min((each.firm_since for each in off), default=0.0)
        return first_at + self._settings.contradiction_after_s

    def _power_value(self, node: str, now: float) -> str:
        off = False
        for said in self._said.power.of(node):
            fresh = now - said.firm_at <= self._settings.power_fresh_s
            if said.firm is Reading.UP and fresh:
                return "on"
            if said.firm is Reading.DOWN:
                # What was once off cannot still be writing from before, so "off" does not grow
                # stale, unless the node was heard since: then it says nothing about this boot.
                since = said.firm_at + self._settings.contradiction_after_s
                off = off or fresh or not self.beaten_since(node, since)
        return "off" if off else "unknown"

    def _kubelet_value(self, node: str, now: float) -> str:
        value = "unknown"  # Unknown is the node controller's reading of the same lease
        for said in self._said.kubelet.of(node):
            if said.aspect not in READY:
                continue
            if said.reading is Reading.DOWN:
                stood = now - said.since >= self._settings.degraded_after_s
                return "down" if stood else "unknown"
            if said.reading is Reading.UP:
                value = "up"
        return value

    def _conditions_value(self, node: str, now: float) -> str:
        if self.bad_conditions(node, now):
            return "bad"
        named = any(said.aspect in self._conditions for said in self._said.kubelet.of(node))
        return "fine" if named else "unknown"

    def _machine_value(self, node: str) -> str:
        values = {self._machine_reading(node, said): None for said in self._said.machine.of(node)}
        return next((value for value in ("gone", "down", "up") if value in values), "unknown")

    def _machine_reading(self, node: str, said: Said) -> str:
        if said.aspect != INSTANCE_GONE:
            return said.reading.value
        if said.reading is not Reading.DOWN:
            return "unknown"
        # A node that is heard after its instance was said to be gone is another instance's.
        since = said.arrived_at + self._settings.contradiction_after_s
        return "unknown" if self.beaten_since(node, since) else "gone"
