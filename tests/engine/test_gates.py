"""Gates: each is opened in its turn, or at once where holding serves nobody."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine import chain, gates
from remediator.engine.chain import DecisionKind, Head
from remediator.engine.events import LeadershipGained, ObjectGone, ObjectSeen
from remediator.engine.machine import Engine
from remediator.engine.model import (
    FactKind,
    OutcomeStatus,
    PodFacts,
    Ungate,
    VmFacts,
    VmiFacts,
)
from remediator.engine.settings import EngineSettings, GateSettings, PacingSettings

SETTINGS = EngineSettings(
    pacing=PacingSettings(starts_at_once_cluster=2, start_timeout_s=3600.0),
    gates=GateSettings(max_age_s=600.0),
)


class Storm:
    """A led cluster in which pods of VMs wait behind our gate."""

    def __init__(self, make_cluster, **engine) -> None:
        self.cluster = make_cluster(**{"settings": SETTINGS, **engine})

    def pod(self, name: str, **facts) -> PodFacts:
        made = PodFacts(
            namespace="ns",
            name=f"virt-launcher-{name}",
            uid=f"pod-{name}",
            vmi=name,
            vmi_uid=f"vmi-{name}",
            phase="Pending",
            **{"gated": True, **facts},
        )
        vm = VmFacts(namespace="ns", name=name, uid=f"vm-{name}")
        vmi = VmiFacts(namespace="ns", name=name, uid=f"vmi-{name}", phase="Scheduling")
        for each in (vm, vmi, made):
            self.cluster.handle(ObjectSeen(facts=each))
        return made

    def open_in_the_world(self, name: str, *, up: bool = False) -> None:
        """The pod is seen without its gate, and perhaps its guest up."""
        key = ("ns", f"virt-launcher-{name}")
        pod = self.cluster.engine.context.inventory.pods[key]
        self.cluster.handle(ObjectSeen(facts=msgspec.structs.replace(pod, gated=False, node="n1")))
        if up:
            vmi = VmiFacts(
                namespace="ns",
                name=name,
                uid=f"vmi-{name}",
                phase="Running",
                node="n1",
                ready=True,
                agent_connected=True,
            )
            self.cluster.handle(ObjectSeen(facts=vmi))

    @property
    def opened(self) -> list[str]:
        """The VMs whose gates are being opened now."""
        return [each.work.vmi for each in self.cluster.actions if isinstance(each.work, Ungate)]

    def finish(self, status: OutcomeStatus = OutcomeStatus.SUCCEEDED) -> str:
        action = next(each for each in self.cluster.actions if isinstance(each.work, Ungate))
        self.cluster.answer(action, status)
        return action.work.vmi


@pytest.fixture
def storm(make_cluster):
    return Storm(make_cluster)


def test_gates_are_opened_as_far_as_there_are_places(storm):
    for name in "abcd":
        storm.pod(name)
    storm.cluster.run(1)
    assert storm.opened == ["a", "b"]
    storm.cluster.run(5)
    assert storm.opened == ["a", "b"]


def test_an_opened_gate_keeps_its_place_until_the_vm_runs(storm):
    for name in "abc":
        storm.pod(name)
    storm.cluster.run(1)
    for name in (storm.finish(), storm.finish()):
        storm.open_in_the_world(name)
    storm.cluster.run(3)
    assert storm.opened == []
    storm.open_in_the_world("a", up=True)
    storm.cluster.run(1)
    assert storm.opened == ["c"]


def test_a_gate_that_could_not_be_opened_is_tried_again_and_a_human_told(storm):
    storm.pod("a")
    storm.cluster.run(1)
    for _ in range(3):
        storm.finish(OutcomeStatus.FAILED)
        assert storm.opened == []
        storm.cluster.run(61)
        assert storm.opened == ["a"]
    assert any("ungate failed 3 times" in text for text in storm.cluster.notices)
    storm.finish()
    assert storm.cluster.engine.state.gates == {}


@pytest.mark.parametrize("facts", [{"migration_target": True}], ids=str)
def test_a_migration_target_is_never_held_back(storm, facts):
    for name in "abc":
        storm.pod(name)
    storm.pod("moving", **facts)
    storm.cluster.run(1)
    assert "moving" in storm.opened


def test_who_only_observes_opens_every_gate_that_is_there(make_cluster):
    storm = Storm(make_cluster, enforce=False)
    for name in "abcd":
        storm.pod(name)
    storm.cluster.run(1)
    assert sorted(storm.opened) == list("abcd")


def test_no_gate_stays_shut_for_longer_than_the_stated_age(storm):
    for name in "abcd":
        storm.pod(name)
    storm.cluster.run(1)
    while storm.opened:
        storm.open_in_the_world(storm.finish())  # and there they stay, and keep their places
    storm.cluster.run(595)
    assert storm.opened == []
    storm.cluster.run(6)
    assert storm.opened == ["c", "d"]
    started = [d for d in storm.cluster.decisions if d.kind is DecisionKind.STARTED]
    assert "no gate stays shut for longer than 600 s" in started[-1].why


def test_a_pod_that_is_gone_is_forgotten(storm):
    for name in "abc":
        storm.pod(name)
    storm.cluster.run(1)
    key = {"namespace": "ns", "name": "virt-launcher-c", "uid": "pod-c"}
    storm.cluster.handle(ObjectGone(kind=FactKind.POD, **key))
    storm.cluster.run(1)
    assert "pod-c" not in storm.cluster.engine.context.gates_seen


def test_a_new_leader_adopts_what_it_finds_and_says_so(storm):
    old = storm.cluster
    for name in "abcd":
        storm.pod(name)
    old.run(1)
    assert storm.opened == ["a", "b"]
    facts = list(old.engine.context.inventory.pods.values())
    old.engine = replayed(old)
    old.actions.clear()
    old.lead(sync=False)
    for each in facts:
        storm.pod(each.vmi)
    old.sync()
    said = [d for d in old.decisions if d.stage == "gates-adopted"]
    assert len(said) == 1
    assert "adopts 2 launcher pods" in said[0].why  # of the others an action was under way
    old.run(1)
    assert storm.opened == ["a", "b"]  # repeated under their old ids


def replayed(cluster) -> Engine:
    engine = Engine(**cluster.engine_options)
    head = Head()
    for payload in cluster.journal:
        decision = chain.decode(payload)
        head = chain.advance(payload, decision.seq)
        engine.replay(decision, head)
    return engine


def test_a_replay_remembers_the_tries(storm):
    storm.pod("a")
    storm.cluster.run(1)
    storm.finish(OutcomeStatus.FAILED)
    engine = replayed(storm.cluster)
    assert engine.state.gates == storm.cluster.engine.state.gates
    assert engine.state.gates["pod-a"].attempts == 1
    engine.handle(LeadershipGained(identity="next", epoch=2), storm.cluster.now)
    assert engine.state.gates == {}


def test_nothing_waits_in_quiet_times(storm):
    storm.pod("a", gated=False)
    storm.cluster.run(3)
    assert gates.waiting(storm.cluster.engine.context) == ()
    assert storm.opened == []


def test_a_vm_that_waits_behind_our_gate_is_not_taken_for_stuck(storm):
    for name in "abc":
        storm.pod(name)
    storm.cluster.run(1)
    for name in (storm.finish(), storm.finish()):
        storm.open_in_the_world(name)
    storm.cluster.run(580)
    open_on = storm.cluster.engine.state.vm_open_on
    assert "vm/ns/c" not in open_on
    assert "vm/ns/a" in open_on  # its pod starts, and does not come to run
