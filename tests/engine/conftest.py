"""Drives an engine by hand: a small cluster, a clock that is turned, actions that are answered."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from remediator.engine import chain
from remediator.engine.chain import Decision, DecisionKind, Head
from remediator.engine.effects import (
    AnswerCommand,
    AskPower,
    AskProbes,
    GiveUpLeadership,
    RaiseNotice,
    RecordDecision,
    StartAction,
)
from remediator.engine.events import (
    ActionFinished,
    InventorySynced,
    LeadershipGained,
    ObjectGone,
    ObjectSeen,
    SignalSeen,
    Tick,
    WatchProgressed,
)
from remediator.engine.machine import Engine
from remediator.engine.model import (
    Action,
    FactKind,
    Fence,
    NodeFacts,
    Outcome,
    OutcomeStatus,
    Plane,
    PodFacts,
    Proof,
    ProofKind,
    Reading,
    RunStrategy,
    Signal,
    Verdict,
    VmFacts,
    VmiFacts,
    node_subject,
)
from remediator.engine.rules import Policy
from remediator.engine.settings import EngineSettings, FenceMethod

sys.path.insert(0, str(Path(__file__).parent))  # helpers that tests import by name

POLICY = Policy(
    name="node-lost",
    source="test",
    content_hash="0" * 64,
    verdicts=(Verdict.DEAD, Verdict.UNREACHABLE),
)
LEASE_EVERY_S = 10.0
HANDLER_EVERY_S = 60.0


class Cluster:
    """What the engine sees of a cluster of healthy nodes, and what it asks for."""

    def __init__(self, *, nodes: int = 6, zones: int = 3, **engine: object) -> None:
        self.now = 1_000_000.0
        self.engine_options = {
            "policies": [POLICY],
            "fence_methods": [FenceMethod(name="bmc", nodes=("*",))],
            "enforce": True,
            **engine,
        }
        self.engine = Engine(**self.engine_options)
        self.journal: list[bytes] = []
        self.decisions: list[Decision] = []
        self.actions: list[Action] = []
        self.asked_power: list[str] = []
        self.asked_probes: list[str] = []
        self.notices: list[str] = []
        self.given_up: list[str] = []
        self.answers: list[AnswerCommand] = []
        self.silent: set[str] = set()  # nodes whose kubelet does not renew
        self.handler_silent: set[str] = set()
        self.watching = True  # whether the watches prove progress
        self.nodes: dict[str, NodeFacts] = {}
        self._serial = itertools.count(1)
        for number in range(nodes):
            name = f"n{number + 1}"
            facts = NodeFacts(
                name=name,
                uid=f"uid-{name}",
                boot_id=f"boot-{name}-1",
                zone=f"zone-{number % zones}",
                ready=True,
                kubevirt=True,
            )
            self.nodes[name] = facts

    # --- telling the engine ----------------------------------------------------------------------

    def handle(self, event: object) -> None:
        for effect in self.engine.handle(event, self.now):
            match effect:
                case RecordDecision():
                    assert chain.decode(effect.payload) == effect.decision
                    self.journal.append(effect.payload)
                    self.decisions.append(effect.decision)
                case StartAction():
                    self.actions.append(effect.action)
                case AskPower():
                    self.asked_power.append(effect.node)
                case AskProbes():
                    self.asked_probes.append(effect.node)
                case AnswerCommand():
                    self.answers.append(effect)
                case GiveUpLeadership():
                    self.given_up.append(effect.why)
                case RaiseNotice():
                    self.notices.append(effect.text)
                case _:
                    pass

    def lead(self, *, sync: bool = True) -> None:
        self.handle(LeadershipGained(identity="me", epoch=1))
        for facts in self.nodes.values():
            self.handle(ObjectSeen(facts=facts))
            self.beat(facts.name, first=True)
            self.beat(facts.name, plane=Plane.HANDLER, first=True)
        if sync:
            self.sync()
        self.run(HANDLER_EVERY_S + 1)

    def sync(self) -> None:
        for kind in FactKind:
            self.handle(InventorySynced(kind=kind))

    def beat(self, node: str, *, plane: Plane = Plane.LEASE, first: bool = False) -> None:
        self.signal(node, plane, Reading.UP, first=first)

    def signal(self, node: str, plane: Plane, reading: Reading, *, first: bool = False) -> None:
        signal = Signal(
            plane=plane,
            source="test",
            subject=node_subject(node),
            reading=reading,
            at=self.now,
            first=first,
        )
        self.handle(SignalSeen(signal=signal))

    def power(self, node: str, reading: Reading) -> None:
        self.signal(node, Plane.POWER, reading)

    def run(self, seconds: float) -> None:
        """Turn the clock second by second; healthy nodes beat, watches progress."""
        for _ in range(round(seconds)):
            self.now += 1.0
            tick = round(self.now)
            for number, name in enumerate(self.nodes):
                if name not in self.silent and tick % LEASE_EVERY_S == number % LEASE_EVERY_S:
                    self.beat(name)
                if name not in self.handler_silent and tick % HANDLER_EVERY_S == number:
                    self.beat(name, plane=Plane.HANDLER)
            if self.watching:
                self.handle(WatchProgressed(watch="leases", at=self.now))
                self.handle(WatchProgressed(watch="nodes", at=self.now))
            self.handle(Tick())

    def node_changes(self, name: str, **fields: object) -> None:
        self.nodes[name] = msgspec.structs.replace(self.nodes[name], **fields)
        self.handle(ObjectSeen(facts=self.nodes[name]))

    def add_vm(
        self,
        name: str,
        node: str,
        strategy: RunStrategy = RunStrategy.ALWAYS,
        *,
        claims: tuple[str, ...] = ("disk",),
    ) -> None:
        self.handle(
            ObjectSeen(
                facts=VmFacts(namespace="ns", name=name, uid=f"vm-{name}", run_strategy=strategy)
            )
        )
        self.place(name, node, claims=claims)
        self.vmi(name, node=node, phase="Running", agent=True, claims=claims)

    def place(self, name: str, node: str, *, claims: tuple[str, ...] = ()) -> None:
        """A new VMI and launcher pod for this VM appear, bound to ``node``."""
        number = next(self._serial)
        self.uids = getattr(self, "uids", {})
        self.uids[name] = (f"vmi-{name}-{number}", f"pod-{name}-{number}")
        self.vmi(name, node="", phase="Scheduling", claims=claims)
        vmi_uid, pod_uid = self.uids[name]
        self.handle(
            ObjectSeen(
                facts=PodFacts(
                    namespace="ns",
                    name=f"virt-launcher-{name}-{number}",
                    uid=pod_uid,
                    node=node,
                    vmi=name,
                    vmi_uid=vmi_uid,
                    phase="Running",
                )
            )
        )

    def vmi(
        self, name: str, *, node: str, phase: str, agent: bool = False, claims: tuple = ()
    ) -> None:
        self.handle(
            ObjectSeen(
                facts=VmiFacts(
                    namespace="ns",
                    name=name,
                    uid=self.uids[name][0],
                    phase=phase,
                    node=node,
                    agent_connected=agent,
                    claims=claims,
                )
            )
        )

    def drop_pods(self, name: str, node: str) -> None:
        for pod in self.engine.context.inventory.pods_on(node):
            if pod.vmi == name:
                self.handle(
                    ObjectGone(
                        kind=FactKind.POD, namespace=pod.namespace, name=pod.name, uid=pod.uid
                    )
                )

    # --- answering actions -----------------------------------------------------------------------

    def answer(
        self,
        action: Action | None = None,
        status: OutcomeStatus = OutcomeStatus.SUCCEEDED,
        detail: str = "done",
        proof: Proof | None = None,
    ) -> Action:
        """Finish the oldest unanswered action (or this one) and return it."""
        action = action or self.actions[0]
        self.actions.remove(action)
        work = action.work
        if isinstance(work, Fence) and status is OutcomeStatus.SUCCEEDED and proof is None:
            proof = Proof(
                kind=ProofKind.POWER_OFF_VERIFIED,
                node=work.node,
                boot_id=work.boot_id,
                at=self.now,
                source="bmc",
            )
        outcome = Outcome(
            action_id=action.id,
            status=status,
            detail=detail,
            started_at=self.now,
            finished_at=self.now,
            proof=proof,
        )
        self.handle(ActionFinished(outcome=outcome))
        return action

    def kill(self, node: str) -> None:
        """Power off: nothing beats any more, and the BMC says off when asked."""
        self.silent.add(node)
        self.handler_silent.add(node)

    def lose(self, node: str) -> None:
        """Kill a node; once its BMC is asked, it says off."""
        self.kill(node)
        self.until(lambda: node in self.asked_power)
        self.power(node, Reading.DOWN)

    def fence_through(self, node: str) -> None:
        """Lose a node and answer everything up to the release."""
        self.lose(node)
        self.until(lambda: len(self.actions) > 0)
        for expected in ("cordon", "fence", "release"):
            action = self.answer()
            assert action.id.split("/")[1] == expected, action.id

    def until(self, condition: Callable[[], object], limit_s: float = 600) -> None:
        end = self.now + limit_s
        while not condition():
            assert self.now < end, "the awaited did not come about"
            self.run(1)

    # --- looking ---------------------------------------------------------------------------------

    def kinds(self, *kinds: DecisionKind) -> list[Decision]:
        return [decision for decision in self.decisions if decision.kind in kinds]

    def story(self) -> list[str]:
        return [f"{each.kind} {each.subject}" for each in self.decisions]

    def incident(self, node: str):
        return self.engine.state.incident_on(f"node/{node}")

    def reborn(self) -> Cluster:
        """A second engine that has replayed this one's journal and leads."""
        other = Cluster(nodes=0, **self.engine_options)
        other.now, other.nodes = self.now, self.nodes
        other.silent, other.handler_silent = self.silent, self.handler_silent
        other.uids = getattr(self, "uids", {})
        head = Head()
        for seq, payload in enumerate(self.journal, start=1):
            head, decision = chain.check_link(head, seq, payload)
            other.engine.replay(decision, head)
        other.journal = list(self.journal)
        return other


@pytest.fixture
def make_cluster() -> Callable[..., Cluster]:
    def build(*, lead: bool = True, **options: object) -> Cluster:
        cluster = Cluster(**options)
        if lead:
            cluster.lead()
        return cluster

    return build


@pytest.fixture
def node_policy() -> Policy:
    return POLICY


@pytest.fixture
def cluster(make_cluster) -> Cluster:
    return make_cluster()


@pytest.fixture
def engine_settings() -> EngineSettings:
    return EngineSettings()
