"""What the leader tells: read off an engine that has seen this and that."""

from __future__ import annotations

import pytest

from remediator.admission.state import encode, state_of
from remediator.engine.events import InventorySynced, LeadershipGained, ObjectSeen, Tick
from remediator.engine.machine import Engine
from remediator.engine.model import (
    FactKind,
    NodeFacts,
    PodFacts,
    VmFacts,
    VmiFacts,
    vm_subject,
)
from remediator.engine.settings import EngineSettings, PacingSettings
from remediator.engine.standing import Pause

SETTINGS = EngineSettings(pacing=PacingSettings(starts_at_once_cluster=3))


class Leader:
    """An engine that leads a cluster of four nodes."""

    def __init__(self, *, enforce: bool = True, synced: bool = True) -> None:
        self.now = 1_000_000.0
        self.engine = Engine(SETTINGS, (), (), enforce=enforce)
        self.handle(LeadershipGained(identity="me", epoch=3))
        for number in range(4):
            name = f"n{number}"
            self.handle(
                ObjectSeen(
                    facts=NodeFacts(
                        name=name, uid=name, boot_id=f"b-{name}", ready=True, kubevirt=True
                    )
                )
            )
        if synced:
            for kind in FactKind:
                self.handle(InventorySynced(kind=kind))

    def handle(self, event: object) -> None:
        self.engine.handle(event, self.now)

    def vm(self, name: str, phase: str, **pod: object) -> None:
        facts = {"namespace": "shop", "name": name}
        self.handle(ObjectSeen(facts=VmFacts(uid=f"vm-{name}", **facts)))
        self.handle(ObjectSeen(facts=VmiFacts(uid=f"vmi-{name}", phase=phase, **facts)))
        self.handle(
            ObjectSeen(
                facts=PodFacts(
                    namespace="shop",
                    name=f"virt-launcher-{name}",
                    uid=f"pod-{name}",
                    vmi=name,
                    vmi_uid=f"vmi-{name}",
                    phase="Pending",
                    **pod,
                )
            )
        )

    def tick(self) -> None:
        self.now += 1.0
        self.handle(Tick())

    def says(self, **told: object):
        return state_of(self.engine.context, 7, **told)


def test_in_peace_all_places_are_free():
    said = Leader().says()
    assert (said.by, said.epoch, said.number) == ("me", 3, 7)
    assert (said.gating, said.storm, said.places) == (True, False, 3)
    assert said.starting == frozenset()


def test_who_boots_holds_a_place_and_is_named():
    leader = Leader()
    leader.vm("a", "Scheduling")
    leader.tick()
    said = leader.says()
    assert said.starting == {"shop/a"}
    assert said.places == 2


def test_pods_that_wait_are_a_storm():
    leader = Leader()
    for name in ("a", "b", "c", "d", "e"):
        leader.vm(name, "Scheduling", gated=True)
    leader.tick()
    said = leader.says()
    assert said.storm
    assert said.places == 0
    assert len(said.starting) == 3  # their gates are being opened


@pytest.mark.parametrize("what", [{"enforce": False}, {"synced": False}], ids=str)
def test_who_observes_or_has_no_whole_picture_holds_nothing_back(what):
    leader = Leader(**what)
    leader.vm("a", "Scheduling", gated=True)
    said = leader.says()
    assert (said.gating, said.storm, said.places) == (False, False, 0)


def test_while_everything_is_paused_nothing_is_held_back():
    leader = Leader()
    pause = Pause(scope="cluster", by="anna", reason="storage work", since_at=leader.now)
    leader.engine.state.pauses["cluster"] = pause
    assert not leader.says().gating


def test_hints_go_with_it_by_name():
    said = Leader().says(hints={vm_subject("shop", "a"): ("n2", "n3")})
    assert said.hints == {"shop/a": ("n2", "n3")}


def test_the_message_of_a_large_storm_fits_into_one_of_nats():
    nodes = tuple(f"worker-{number:04d}.example.com" for number in range(3))
    hints = {
        vm_subject("a-namespace-of-some-length", f"a-virtual-machine-{number:05d}"): nodes
        for number in range(10_000)
    }
    assert len(encode(Leader().says(hints=hints))) < 900_000
