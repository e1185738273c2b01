"""Maintenance and upgrades hold our hands off; a cordon does not."""

from __future__ import annotations

import pytest

from remediator.engine.model import HandsOffFacts, NodeFacts
from remediator.sim.resources import NODES
from tests.kube import custom_examples as examples
from tests.watchers.custom_world import WAKE_S, CustomWorld

MEDIK8S = "nodemaintenances.nodemaintenance.medik8s.io"
KUBEVIRT = "nodemaintenances.nodemaintenance.kubevirt.io"
VERSIONS = "clusterversions.config.openshift.io"
CURRENT = "machineconfiguration.openshift.io/currentConfig"
DESIRED = "machineconfiguration.openshift.io/desiredConfig"


@pytest.fixture
def world(cluster):
    made = CustomWorld(cluster)
    made.install(MEDIK8S, KUBEVIRT, VERSIONS)
    return made


@pytest.mark.parametrize(
    ("kind", "name"),
    [(MEDIK8S, "NodeMaintenance:nm-n1"), (KUBEVIRT, "NodeMaintenance.kubevirt:nm-n1")],
)
async def test_a_node_under_maintenance_is_left_alone_until_it_is_taken_back(world, kind, name):
    maintenance = examples.node_maintenance(finalizers=["x/y"])
    world.make(kind, maintenance)
    await world.start()
    assert world.held() == [("n1", name)]
    (facts,) = world.published.facts(HandsOffFacts)
    assert facts.why == "NodeMaintenance nm-n1: new memory"
    world.delete(kind, maintenance)  # its operator need not be there to finish it
    await world.settle()
    assert world.held() == []


async def test_two_groups_may_have_objects_of_one_name(world):
    world.make(MEDIK8S, examples.node_maintenance())
    world.make(KUBEVIRT, examples.node_maintenance(node="n2.example.com"))
    await world.start()
    assert [node for node, _ in world.held()] == ["n1", "n2.example.com"]
    world.delete(KUBEVIRT, examples.node_maintenance())
    await world.settle()
    assert world.held() == [("n1", "NodeMaintenance:nm-n1")]


async def test_a_maintenance_of_no_node_is_none(world):
    world.make(MEDIK8S, examples.node_maintenance(node=""))
    await world.start()
    assert world.held() == []


async def test_an_upgrade_of_openshift_holds_all_nodes_while_it_progresses(world):
    world.make(VERSIONS, examples.cluster_version())
    await world.start()
    assert world.held() == [("", "ClusterVersion:version")]
    (facts,) = world.published.facts(HandsOffFacts)
    assert facts.why == "OpenShift is being upgraded to 4.20.1"
    world.put(VERSIONS, examples.cluster_version("False"))
    await world.settle()
    assert world.held() == []
    world.put(VERSIONS, examples.cluster_version("True", "4.20.2"))
    await world.settle()
    assert world.held() == [("", "ClusterVersion:version")]


async def test_another_clusterversion_than_the_one_that_counts_holds_nobody(world):
    other = examples.cluster_version()
    other["metadata"]["name"] = "other"
    world.make(VERSIONS, other)
    await world.start()
    assert world.held() == []


async def test_with_the_crd_of_clusterversions_an_upgrade_ends(world):
    world.make(VERSIONS, examples.cluster_version())
    await world.start()
    world.remove(VERSIONS)
    await world.settle(WAKE_S)
    assert world.held() == []


@pytest.mark.parametrize(
    ("marks", "held"),
    [
        ({CURRENT: "a", DESIRED: "b"}, True),
        ({CURRENT: "a", DESIRED: "a"}, False),
        ({DESIRED: "b"}, False),
        ({CURRENT: "a"}, False),
        ({CURRENT: "", DESIRED: "b"}, False),
    ],
)
async def test_a_node_that_is_brought_to_another_configuration_is_left_alone(world, marks, held):
    world.mark_node("n1", **marks)
    await world.start()
    assert world.held() == ([("n1", "MachineConfig:n1")] if held else [])


@pytest.mark.parametrize(
    ("marks", "why"),
    [
        ({"harvesterhci.io/maintain-status": "running"}, "Harvester: maintenance running"),
        ({"harvesterhci.io/maintain-status": "completed"}, "Harvester: maintenance completed"),
        ({"harvesterhci.io/drain-requested": "true"}, "Harvester: maintenance requested"),
    ],
)
async def test_a_node_in_harvesters_maintenance_is_left_alone(world, marks, why):
    world.mark_node("n1", **marks)
    await world.start()
    assert world.held() == [("n1", "Harvester:n1")]
    assert [facts.why for facts in world.published.facts(HandsOffFacts)] == [why]


async def test_marks_come_and_go_and_each_time_it_is_told(world):
    await world.start()
    for _ in range(3):
        world.mark_node("n1", **{CURRENT: "a", DESIRED: "b"})
        await world.settle()
        assert world.held() == [("n1", "MachineConfig:n1")]
        world.mark_node("n1", **{CURRENT: "b"})
        await world.settle()
        assert world.held() == []
        world.mark_node("n1", **{CURRENT: "a", DESIRED: "a"})
    ids = [i for subject, _, i in world.published.offers if ".HandsOff." in subject]
    assert len(ids) == len(set(ids)) == 6


async def test_a_node_that_goes_takes_its_marks_with_it(world):
    world.mark_node("n1", **{CURRENT: "a", DESIRED: "b"})
    await world.start()
    world.store.delete(NODES, "", "n1")
    await world.settle()
    assert world.held() == []


async def test_a_cordon_holds_nobody(world):
    world.store.mutate(NODES, "", "n1", lambda node: node["spec"].update(unschedulable=True))
    await world.start()
    assert world.held() == []
    assert any(facts.unschedulable for facts in world.published.facts(NodeFacts))


async def test_a_change_of_a_node_that_is_no_mark_is_not_told(world):
    world.mark_node("n1", **{CURRENT: "a", DESIRED: "b"})
    await world.start()
    world.published.clear()
    for number in range(50):
        world.mark_node("n1", **{"kubevirt.io/heartbeat": f"2026-11-20T08:00:{number:02}Z"})
    await world.settle()
    assert world.published.facts(HandsOffFacts) == []


async def test_a_new_leader_is_told_what_is_held(world):
    world.make(MEDIK8S, examples.node_maintenance())
    world.make(VERSIONS, examples.cluster_version())
    world.mark_node("n1", **{CURRENT: "a", DESIRED: "b"})
    await world.start(lead=False)
    assert world.published.offers == []
    world.cluster.watchers.lead()
    await world.settle()
    assert world.held() == [
        ("", "ClusterVersion:version"),
        ("n1", "MachineConfig:n1"),
        ("n1", "NodeMaintenance:nm-n1"),
    ]


@pytest.mark.parametrize("body", [{"spec": {"nodeName": 7}}, {"spec": "n1"}, {}], ids=str)
async def test_garbage_hides_no_other(world, body):
    world.make(MEDIK8S, {**examples.named("odd"), **body})
    world.make(MEDIK8S, examples.node_maintenance())
    await world.start()
    assert world.held() == [("n1", "NodeMaintenance:nm-n1")]
