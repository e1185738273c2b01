"""Two engines hear the same town through intakes of their own; one of them hears garbage as well.

What the one decides, the other must decide at the same instant, whatever the garbage is.
"""

from __future__ import annotations

from collections.abc import Iterator

from signal_door import ORIGIN, Door

from remediator.bus import subjects
from remediator.engine.conviction import judge
from remediator.engine.effects import RecordDecision
from remediator.engine.events import (
    InventorySynced,
    LeadershipGained,
    ObjectSeen,
    Tick,
    WatchProgressed,
    encoder,
)
from remediator.engine.machine import Engine
from remediator.engine.model import (
    FactKind,
    NodeFacts,
    Plane,
    Reading,
    Signal,
    Subject,
    Verdict,
    VmFacts,
    VmiFacts,
    node_subject,
    vantage_subject,
)
from remediator.engine.rules import Policy
from remediator.engine.settings import FenceMethod
from remediator.signals import wire

STEP_S = 0.5
VANTAGES = ("zone-a-0", "zone-b-0", "zone-c-0")
MHC = "MachineHealthCheck openshift-machine-api/workers"

# What befalls whom, and when, in seconds; the others are well.
POWER_LOST, HUNG, KUBELET_DEAD, HANDLER_DEAD, GONE, SICK, MARKED_OFF, LATE_LOSS = (
    f"n{number}" for number in range(4, 12)
)
NODES = tuple(f"n{number}" for number in range(12))
STARTS = {POWER_LOST: 60, HUNG: 90, KUBELET_DEAD: 120, HANDLER_DEAD: 30, GONE: 180, LATE_LOSS: 420}
FUZZ_FROM_S = 400
END_S = 480

POLICY = Policy(
    name="node-lost",
    source="test",
    content_hash="0" * 64,
    verdicts=(Verdict.DEAD, Verdict.UNREACHABLE),
)

Message = tuple[str, bytes]


class Town:
    """Everything that the daemon's own watchers, probes and vantage points send, step by step."""

    def __init__(self) -> None:
        self.now = 0.0
        self.passed_s = 0.0
        self.told: dict[str, Reading] = {}  # what the vantage points said last of each node
        self.ahead_s: dict[str, float] = {}  # by how much a vantage point's clock is wrong

    def opening(self, now: float) -> Iterator[Message]:
        self.now = now
        for number, name in enumerate(NODES):
            facts = NodeFacts(
                name=name,
                uid=f"uid-{name}",
                boot_id=f"boot-{name}",
                zone=f"zone-{'abc'[number % 3]}",
                ready=True,
                kubevirt=True,
            )
            yield self._own(subjects.inventory("Node", name), ObjectSeen(facts=facts, by=ORIGIN))
            where = {"namespace": "ns", "name": f"vm-{name}"}
            for about in (
                VmFacts(**where, uid=f"vm-{name}"),
                VmiFacts(**where, uid=f"vmi-{name}", phase="Running", node=name, ready=True),
            ):
                kind = type(about).__struct_config__.tag
                subject = subjects.inventory(kind, about.name, "ns")
                yield self._own(subject, ObjectSeen(facts=about, by=ORIGIN))
            for plane, source in ((Plane.LEASE, "lease watch"), (Plane.HANDLER, "node watch")):
                yield self._said(plane, source, name, Reading.UP, first=True, beat=True)
            yield self._said(Plane.KUBELET, "node watch", name, Reading.UP, first=True)
        for kind in FactKind:
            event = InventorySynced(kind=kind, by=ORIGIN)
            yield self._own(subjects.inventory_synced(kind.value), event)

    def step(self, now: float) -> Iterator[Message]:
        """Yield what is sent in one step of time."""
        self.now = now
        self.passed_s += STEP_S
        tick = round(self.passed_s / STEP_S)
        for number, name in enumerate(NODES):
            if tick % 20 == number and not self.befallen(
                name, POWER_LOST, HUNG, KUBELET_DEAD, GONE, LATE_LOSS
            ):
                yield self._said(Plane.LEASE, "lease watch", name, Reading.UP, beat=True)
            if tick % 120 == number and not self.befallen(
                name, POWER_LOST, HUNG, HANDLER_DEAD, GONE, LATE_LOSS
            ):
                yield self._said(Plane.HANDLER, "node watch", name, Reading.UP, beat=True)
            if tick % 20 == number:
                yield from self._looked_at(name)
        if tick % 10 == 0:
            for vantage in VANTAGES:
                about = vantage_subject(vantage)
                yield self._signal(Plane.NETWORK, vantage, about, Reading.UP, beat=True)
        for watch in ("leases", "nodes"):
            mark = WatchProgressed(watch=watch, at=now, by=ORIGIN)
            yield self._own(subjects.watch_progress(watch), mark)

    def befallen(self, name: str, *of: str) -> bool:
        return name in of and self.passed_s >= STARTS.get(name, 0)

    def network(self, name: str) -> Reading:
        lost = self.befallen(name, POWER_LOST, HUNG, GONE, LATE_LOSS)
        return Reading.DOWN if lost else Reading.UP

    def power(self, name: str) -> Reading:
        off = self.befallen(name, POWER_LOST, LATE_LOSS, MARKED_OFF)
        return Reading.DOWN if off else Reading.UP

    def _looked_at(self, name: str) -> Iterator[Message]:
        self.told[name] = self.network(name)
        for vantage in VANTAGES:
            yield self._said(Plane.NETWORK, vantage, name, self.network(name), beat=True)
        if name != GONE:
            yield self._said(Plane.POWER, f"redfish {name}", name, self.power(name))
        if name == SICK:
            aspect = "KernelDeadlock"
            yield self._said(Plane.KUBELET, "node watch", name, Reading.DOWN, aspect=aspect)
        # Said once, and not again: nothing may push it out.
        starts_now = STARTS.get(name, 0) <= self.passed_s < STARTS.get(name, 0) + 20 * STEP_S
        if name == GONE and starts_now:
            aspect = "instance-gone"
            yield self._said(Plane.MACHINE, MHC, name, Reading.DOWN, aspect=aspect)

    def _said(self, plane: Plane, source: str, node: str, reading: Reading, **fields) -> Message:
        return self._signal(plane, source, node_subject(node), reading, **fields)

    def _signal(
        self,
        plane: Plane,
        source: str,
        about: Subject,
        reading: Reading,
        *,
        beat: bool = False,
        **fields,
    ) -> Message:
        stranger = plane is Plane.NETWORK  # vantage points are processes of their own
        signal = Signal(
            plane=plane,
            source=source,
            subject=about,
            reading=reading,
            at=self.now + self.ahead_s.get(source, 0.0),
            zone=source[:6] if stranger else "",
            by="" if stranger else ORIGIN,
            **fields,
        )
        return wire.subject_of(signal, beat=beat), wire.encode(signal)

    def _own(self, subject: str, event: object) -> Message:
        return subject, encoder.encode(event)


class Twin:
    """One engine behind its intake."""

    def __init__(self) -> None:
        self.door = Door()
        self.engine = Engine(
            policies=[POLICY], fence_methods=[FenceMethod(name="bmc", nodes=("*",))], enforce=True
        )
        self.story: list[tuple[float, str, str, str, str]] = []
        self.sent = 0
        self.handle(LeadershipGained(identity="me", epoch=1))

    @property
    def now(self) -> float:
        return self.door.clock.at

    def take(self, subject: str, payload: bytes) -> None:
        self.sent += 1
        event = self.door.intake.take(subject, payload)
        if event is not None:
            self.handle(event)

    def handle(self, event: object) -> None:
        for effect in self.engine.handle(event, self.now):
            if isinstance(effect, RecordDecision):
                made = effect.decision
                verdict = made.verdict.value if made.verdict else ""
                action = made.action.id if made.action else ""
                self.story.append((self.now, made.kind.value, str(made.subject), verdict, action))

    def step(self, messages: list[Message]) -> None:
        for subject, payload in messages:
            self.take(subject, payload)
        self.handle(Tick())

    def verdicts(self) -> dict[str, str]:
        context = self.engine.context
        return {
            name: judge(context, node).name
            for name, node in sorted(context.inventory.nodes.items())
        }

    @property
    def accounted(self) -> int:
        intake = self.door.intake
        return intake.accepted + intake.duplicates + intake.refused.total()
