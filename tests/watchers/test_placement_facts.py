"""What placement needs reaches NATS: named labels, needs of launchers, sums of other pods."""

from __future__ import annotations

import asyncio

import pytest

from remediator.engine.model import NodeFacts, NodeUseFacts, PodFacts
from remediator.sim.resources import NAMESPACES, PODS

NS = "payments"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def a_pod(name, *, spec=None, labels=None, node="n1"):
    return {
        "metadata": {"name": name, "namespace": NS, "labels": labels or {}},
        "spec": {
            "nodeName": node,
            "containers": [
                {
                    "name": "c",
                    "image": "x",
                    "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}},
                }
            ],
            **(spec or {}),
        },
        "status": {"phase": "Running"},
    }


def launcher(name, *, spec=None, **labels):
    marks = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": name, **labels}
    return a_pod(name, spec=spec, labels=marks)


@pytest.fixture
def town(cluster):
    cluster.store.create(NAMESPACES, {"metadata": {"name": NS}})
    return cluster


def labels_of(cluster, name):
    return [facts.labels for facts in cluster.published.facts(NodeFacts) if facts.name == name][-1]


async def test_a_label_is_told_once_somebody_names_it(town):
    town.change_node("n1", lambda node: node["metadata"]["labels"].update(disk="ssd", rack="7"))
    await town.start()
    assert "disk" not in labels_of(town, "n1")
    town.store.create(PODS, launcher("l1", spec={"nodeSelector": {"disk": "ssd"}}))
    await asyncio.sleep(1)
    assert labels_of(town, "n1")["disk"] == "ssd"
    assert "rack" not in labels_of(town, "n1")


async def test_a_follower_knows_the_names_when_it_leads(town):
    town.change_node("n1", lambda node: node["metadata"]["labels"].update(disk="ssd"))
    town.store.create(PODS, launcher("l1", spec={"nodeSelector": {"disk": "ssd"}}))
    await town.start(lead=False)
    town.watchers.lead()
    await asyncio.sleep(1)
    assert labels_of(town, "n1")["disk"] == "ssd"


async def test_labels_of_pods_are_told_that_some_affinity_asks_for(town):
    town.store.create(PODS, launcher("l1", app="db", tier="1"))
    await town.start()
    assert town.published.facts(PodFacts)[-1].labels == {}
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "db"}},
    }
    town.store.create(
        PODS, launcher("l2", spec={"affinity": {"podAntiAffinity": {REQUIRED: [term]}}})
    )
    await asyncio.sleep(1)
    told = {facts.name: facts for facts in town.published.facts(PodFacts)}
    assert told["l1"].labels == {"app": "db"}
    assert told["l1"].group == "payments/db"
    assert told["l2"].needs.rules.anti_affinity[0].topology_key == "kubernetes.io/hostname"
    assert (told["l2"].needs.cpu_m, told["l2"].needs.memory) == (250, 64 * 2**20)


async def test_other_pods_are_summed_by_node(town):
    for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2.example.com")):
        town.store.create(PODS, a_pod(name, node=node))
    town.store.create(PODS, launcher("l1"))
    await town.start()
    told = {facts.name: facts for facts in town.published.facts(NodeUseFacts)}
    assert {name: (f.cpu_m, f.memory, f.pods) for name, f in told.items()} == {
        "n1": (500, 128 * 2**20, 2),
        "n2.example.com": (250, 64 * 2**20, 1),
    }


async def test_the_sums_follow_within_minutes_and_tell_changes_only(town):
    town.store.create(PODS, a_pod("a"))
    town.store.create(PODS, a_pod("c", node="n2.example.com"))
    await town.start()
    town.published.clear()
    town.store.create(PODS, a_pod("b"))
    town.store.delete(PODS, NS, "c", grace_s=0)
    await asyncio.sleep(400)
    assert [(f.name, f.pods) for f in town.published.facts(NodeUseFacts)] == [("n1", 2)]
    assert [event.name for event in town.published.gone() if event.kind == "NodeUse"] == [
        "n2.example.com"
    ]


async def test_a_follower_lists_no_other_pods(town):
    town.store.create(PODS, a_pod("a"))
    await town.start(lead=False)
    await asyncio.sleep(400)
    assert town.published.facts(NodeUseFacts) == []
    town.watchers.lead()
    await asyncio.sleep(1)
    assert {f.name for f in town.published.facts(NodeUseFacts)} == {"n1"}
