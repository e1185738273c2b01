"""What follows a fence once its incident is over: power on again, take back, wait for a return."""

from __future__ import annotations

import pytest

from remediator.engine.events import CommandGiven, ObjectGone, ObjectSeen, Verb
from remediator.engine.model import (
    FactKind,
    HandsOffFacts,
    OutcomeStatus,
    PowerOn,
    Uncordon,
)
from remediator.engine.settings import FenceLevel, FenceMethod

FAILED = OutcomeStatus.FAILED


@pytest.fixture
def fenced(make_cluster):
    """A node that was fenced, and whose only VM is up again elsewhere."""

    def build(*, hands_off: bool = False, confirmed: bool = False, **changes):
        method = FenceMethod(name="rack", nodes=("*",), levels=(FenceLevel(),), **changes)
        cluster = make_cluster(fence_methods=[method])
        cluster.add_vm("db", "n1")
        if confirmed:
            by_word(cluster)
        else:
            cluster.fence_through("n1")
        cluster.until(lambda: cluster.actions)
        cluster.answer()  # the launcher pod is deleted
        if hands_off:
            why = "under maintenance"
            facts = HandsOffFacts(name="NodeMaintenance:m", uid="m", node="n1", why=why)
            cluster.handle(ObjectSeen(facts=facts))
        cluster.drop_pods("db", "n1")
        cluster.place("db", "n2")
        cluster.vmi("db", node="n2", phase="Running", agent=True)
        cluster.until(lambda: cluster.incident("n1") is None)
        return cluster

    return build


def by_word(cluster) -> None:
    """The fence fails, and a person says that the host is off."""
    cluster.kill("n1")
    cluster.handler_silent.add("n1")
    cluster.until(lambda: cluster.actions, 900)
    cluster.answer()  # the cordon
    cluster.until(lambda: cluster.actions)
    cluster.answer(status=FAILED)
    command = CommandGiven(id="c", verb=Verb.CONFIRM_OFF, target="n1", by="ana", reason="unplugged")
    cluster.handle(command)
    assert cluster.answers[-1].accepted
    cluster.until(lambda: cluster.actions)
    cluster.answer()  # the release


def works(cluster) -> list:
    return [action.work for action in cluster.actions]


def test_a_fenced_host_stays_off_unless_its_configuration_says_otherwise(fenced):
    cluster = fenced()
    cluster.run(120)
    assert works(cluster) == []


def test_a_host_is_switched_on_again_once_its_vms_are_back(fenced):
    cluster = fenced(power_on=True)
    cluster.run(2)
    (work,) = works(cluster)
    assert isinstance(work, PowerOn)
    assert (work.method, work.fenced_boot_id) == ("rack", "boot-n1-1")
    cluster.answer()
    cluster.run(120)
    assert works(cluster) == []


def test_a_host_that_somebody_else_works_on_is_not_switched_on(fenced):
    cluster = fenced(power_on=True, hands_off=True)
    cluster.run(120)
    assert works(cluster) == []
    cluster.handle(ObjectGone(kind=FactKind.HANDS_OFF, name="NodeMaintenance:m", uid="m"))
    cluster.run(2)
    (work,) = works(cluster)
    assert isinstance(work, PowerOn)


def test_a_host_that_a_person_saw_off_stays_off_until_that_person_switches_it_on(fenced):
    cluster = fenced(power_on=True, confirmed=True)
    cluster.run(120)
    assert works(cluster) == []
    order = CommandGiven(id="on", verb=Verb.FENCE_ON, target="n1", by="ana", reason="it is mended")
    cluster.handle(order)
    assert cluster.answers[-1].accepted
    (work,) = works(cluster)
    assert isinstance(work, PowerOn)


def test_switching_on_is_tried_a_few_times_and_then_left(fenced):
    cluster = fenced(power_on=True)
    for _ in range(3):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=FAILED)
    cluster.run(600)
    assert works(cluster) == []


def test_the_clean_up_names_the_configuration_that_fenced(fenced):
    cluster = fenced()
    cluster.silent.discard("n1")
    cluster.node_changes("n1", boot_id="boot-n1-2", ready=True)
    cluster.until(lambda: cluster.actions)
    (work,) = works(cluster)
    assert isinstance(work, Uncordon)
    assert work.fence_method == "rack"


def test_a_clean_up_that_is_not_through_is_tried_on(fenced):
    cluster = fenced()
    cluster.silent.discard("n1")
    cluster.node_changes("n1", boot_id="boot-n1-2", ready=True)
    for _ in range(5):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=FAILED, detail="not yet: NetworkFence remediator-n1")
    assert "n1" in cluster.engine.state.residues


@pytest.mark.parametrize("leaves_objects", [False, True])
def test_what_outlives_the_node_object_waits_for_a_node_of_that_name(fenced, leaves_objects):
    cluster = fenced(leaves_objects=leaves_objects)
    cluster.handle(ObjectGone(kind=FactKind.NODE, name="n1", uid="uid-n1"))
    cluster.run(5)
    assert ("n1" in cluster.engine.state.residues) is leaves_objects
    cluster.silent.discard("n1")
    cluster.node_changes("n1", uid="uid-n1-new", boot_id="boot-n1-2", ready=True)
    cluster.run(15)
    found = [work for work in works(cluster) if isinstance(work, Uncordon)]
    assert [work.node_uid for work in found] == (["uid-n1-new"] if leaves_objects else [])


def test_a_new_leader_goes_on_with_switching_on(fenced):
    cluster = fenced(power_on=True)
    cluster.run(2)
    other = cluster.reborn()
    other.lead()
    other.until(lambda: other.actions)
    assert isinstance(other.actions[0].work, PowerOn)
