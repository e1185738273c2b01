"""A cluster of which only the signals exist, each at its own time, and the real engine."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.effects import AskPower, AskProbes, RecordDecision, StartAction
from remediator.engine.events import (
    ActionFinished,
    Event,
    InventorySynced,
    LeadershipGained,
    ObjectSeen,
    SignalSeen,
)
from remediator.engine.machine import Engine
from remediator.engine.model import (
    FactKind,
    Fence,
    HandsOffFacts,
    NodeFacts,
    Outcome,
    OutcomeStatus,
    Plane,
    PodFacts,
    Reading,
    Signal,
    Subject,
    Verdict,
    VmFacts,
    VmiFacts,
    node_subject,
)
from remediator.engine.settings import FenceMethod
from remediator.policy.loader import load_directory, shipped_directory

DAY_S = 86_400.0
EPOCH = 1_800_000_000.0
ZONES = ("zone-a", "zone-b", "zone-c")
_RECORDS_KEPT = 200


@dataclass(kw_only=True)
class Days:
    """What came of them."""

    what: str
    node_days: float = 0.0
    signals: int = 0
    opened: int = 0
    convicted: int = 0
    wrong_fences: int = 0
    wall_s: float = 0.0
    told: tuple[str, ...] = ()  # the records before a wrong fence


class Node:
    """One node: until when what of it is away, or lied about."""

    __slots__ = (
        "boot",
        "down_until",
        "facts",
        "false_down",
        "handler_away_until",
        "kubelet_away_until",
        "name",
        "off_until",
        "period_s",
        "subject",
    )

    def __init__(self, number: int, rng: random.Random) -> None:
        self.name = f"n{number:04d}"
        self.subject = node_subject(self.name)
        # Most renew every 10 s; a few clusters are set to 2 s or 30 s, here on single nodes.
        self.period_s = rng.choices((10.0, 2.0, 30.0), (0.9, 0.05, 0.05))[0]
        self.boot = 0
        self.down_until = 0.0  # reboots, under maintenance
        self.kubelet_away_until = 0.0
        self.handler_away_until = 0.0
        self.off_until = 0.0  # its BMC lies
        self.false_down: dict[str, float] = {}  # vantage point -> until
        self.facts = NodeFacts(
            name=self.name,
            uid=f"uid-{self.name}",
            boot_id=f"{self.name}-0",
            system_uuid=f"system-{self.name}",
            zone=ZONES[number % len(ZONES)],
            ready=True,
            kubevirt=True,
            address=f"10.0.{number // 250}.{number % 250 + 1}",
        )


class Town:
    """A cluster that only speaks: what it says reaches one engine after another.

    ``powered`` and ``probed`` are called when the engine asks for a BMC or for the vantage points.
    """

    def __init__(self, nodes: int, seed: int) -> None:
        self.rng = random.Random(f"noise/{seed}")
        self.now = EPOCH
        self.nodes = [Node(number, self.rng) for number in range(nodes)]
        self.by_name = {node.name: node for node in self.nodes}
        self.result = Days(what=f"signals of {nodes} nodes into the engine")
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._policies = load_directory(shipped_directory())
        self.nats_back_at = 0.0
        self.nats_began_at = 0.0
        self.held: dict[object, Event] = {}  # while NATS is away: the newest of each subject
        self.clock_s: dict[str, float] = dict.fromkeys(ZONES, 0.0)
        self._records: deque[Decision] = deque(maxlen=_RECORDS_KEPT)
        self._epoch = 0
        self.engine = self.lead()

    # --- time -----------------------------------------------------------------------------------

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Do something at a time."""
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, do))

    def later(self, delay_s: float, do: Callable[[], None]) -> None:
        """Do something after so many seconds."""
        self.at(self.now + delay_s, do)

    def again(self, per_day: float, do: Callable[[], None]) -> None:
        """Do something at random times, so often a day."""

        def act() -> None:
            do()
            self.later(self.rng.expovariate(per_day / DAY_S), act)

        self.later(self.rng.expovariate(per_day / DAY_S), act)

    def run(self, until: float) -> None:
        """Let time pass until then."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            when, _, do = heapq.heappop(queue)
            self.now = when
            do()
        self.now = until

    # --- the engine -----------------------------------------------------------------------------

    def lead(self) -> Engine:
        """Start a term: a new engine, its memory from the journal, its picture found anew."""
        engine = Engine(
            policies=self._policies,
            fence_methods=[FenceMethod(name="bmc", nodes=("*",))],
            enforce=True,
        )
        if self._epoch:  # what the journal would give it
            engine.restore(self.engine.snapshot())
        self._epoch += 1
        self.held.clear()
        self.engine = engine
        self.tell(LeadershipGained(identity=f"remediator-{self._epoch}", epoch=self._epoch))
        for node in self.nodes:
            where = {"namespace": "team", "name": f"vm-{node.name}"}
            vmi_uid = f"vmi-{node.name}"
            self.tell(ObjectSeen(facts=node.facts))
            self.tell(ObjectSeen(facts=VmFacts(**where, uid=f"vm-{node.name}")))
            self.tell(
                ObjectSeen(
                    facts=VmiFacts(
                        **where, uid=vmi_uid, phase="Running", node=node.name, ready=True
                    )
                )
            )
            self.tell(
                ObjectSeen(
                    facts=PodFacts(
                        namespace="team",
                        name=f"virt-launcher-{node.name}",
                        uid=f"pod-{node.name}",
                        node=node.name,
                        vmi=where["name"],
                        vmi_uid=vmi_uid,
                        phase="Running",
                    )
                )
            )
            if self.now < node.down_until:
                self.tell(ObjectSeen(facts=maintenance(node)))
            for plane in (Plane.LEASE, Plane.HANDLER, Plane.KUBELET):
                self.say(plane, f"{plane.value} watch", node.subject, Reading.UP, first=True)
        for kind in FactKind:
            self.tell(InventorySynced(kind=kind))
        return engine

    def tell(self, event: Event) -> None:
        """Hand an event to the engine and answer what it asks for."""
        effects = self.engine.handle(event, self.now)
        for effect in effects:
            match effect:
                case RecordDecision():
                    self._recorded(effect)
                case StartAction():
                    self._act(effect)
                case AskPower():
                    node = self.by_name[effect.node]
                    self.later(self.rng.uniform(0.05, 2.0), lambda node=node: self.powered(node))
                case AskProbes():
                    node = self.by_name[effect.node]
                    for zone in ZONES:
                        self.later(
                            self.rng.uniform(0.01, 1.0),
                            lambda node=node, zone=zone: self.probed(node, zone),
                        )
                case _:
                    pass

    def _recorded(self, effect: RecordDecision) -> None:
        decision = effect.decision
        self._records.append(decision)
        self.result.opened += decision.kind is DecisionKind.OPENED
        self.result.convicted += decision.verdict in (
            Verdict.DEAD,
            Verdict.UNREACHABLE,
        ) and decision.kind in (DecisionKind.VERDICT, DecisionKind.OPENED)

    def _act(self, effect: StartAction) -> None:
        action = effect.action
        fence = isinstance(action.work, Fence)
        if fence:
            self.result.wrong_fences += 1
            self.result.told += tuple(
                f"{decision.at:.1f} {decision.kind.value} {decision.why}"
                for decision in self._records
                if decision.subject == action.subject
            )
        status = OutcomeStatus.SPARED if fence else OutcomeStatus.SUCCEEDED
        outcome = Outcome(
            action_id=action.id,
            status=status,
            detail="the host lives" if fence else "done",
            started_at=self.now,
            finished_at=self.now + 0.2,
        )
        self.later(0.2, lambda: self.tell(ActionFinished(outcome=outcome)))

    # --- what travels ---------------------------------------------------------------------------

    def send(self, key: object, event: Event) -> None:
        """Let an event travel over NATS: at once, or when NATS is back, newest per subject."""
        if self.now < self.nats_back_at:
            self.held.pop(key, None)
            self.held[key] = event
        else:
            self.result.signals += 1
            self.tell(event)

    def say(
        self,
        plane: Plane,
        source: str,
        subject: Subject,
        reading: Reading,
        *,
        first: bool = False,
        zone: str = "",
    ) -> None:
        """Let somebody say something; ``zone`` is a vantage point's, whose clock may be wrong."""
        signal = Signal(
            plane=plane,
            source=source,
            subject=subject,
            reading=reading,
            at=self.now + self.clock_s.get(zone, 0.0),
            first=first,
            zone=zone,
        )
        self.send((plane, source, subject.name), SignalSeen(signal=signal))

    def powered(self, node: Node) -> None:
        """Say what a node's BMC says now."""
        raise NotImplementedError

    def probed(self, node: Node, zone: str) -> None:
        """Say what the vantage point of a zone finds now."""
        raise NotImplementedError


def maintenance(node: Node) -> HandsOffFacts:
    """Return what says that somebody is at work on a node."""
    return HandsOffFacts(
        name=f"NodeMaintenance:{node.name}",
        uid=f"maintenance-{node.name}",
        node=node.name,
        why="NodeMaintenance is in progress",
    )


def booted(node: Node) -> NodeFacts:
    """Return a node's facts after its latest boot."""
    old = node.facts
    return NodeFacts(
        name=old.name,
        uid=old.uid,
        boot_id=f"{node.name}-{node.boot}",
        system_uuid=old.system_uuid,
        zone=old.zone,
        ready=True,
        kubevirt=True,
        address=old.address,
    )
