"""virt-handler's pods: each node's newest reading, from the first list to the last pod's end."""

from __future__ import annotations

import asyncio

import pytest

from remediator.engine.model import Plane, Reading
from remediator.sim.resources import NAMESPACES, NODES, PODS


def pod(name, node):
    return {
        "metadata": {
            "name": name,
            "namespace": "kubevirt",
            "labels": {"kubevirt.io": "virt-handler"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "virt-handler", "image": "x"}]},
    }


class Handlers:
    def __init__(self, cluster) -> None:
        self.cluster = cluster
        cluster.store.create(NAMESPACES, {"metadata": {"name": "kubevirt"}})

    def add(self, name, node="n1", ready="True"):
        self.cluster.store.create(PODS, pod(name, node))
        self.set_ready(name, ready)

    def remove(self, name, grace_s=0):
        self.cluster.store.delete(PODS, "kubevirt", name, grace_s=grace_s)

    def set_ready(self, name, ready):
        def change(obj):
            conditions = [{"type": "Ready", "status": ready}]
            obj["status"] = {"phase": "Running", "conditions": conditions}

        self.cluster.store.mutate(PODS, "kubevirt", name, change, subresource="status")

    def told(self):
        return [
            (signal.subject.name, signal.reading, signal.first)
            for signal in self.cluster.published.signals(Plane.HANDLER)
            if signal.aspect == "pod"
        ]


@pytest.fixture
async def handlers(cluster):
    handlers = Handlers(cluster)
    handlers.add("h1", "n1")
    handlers.add("h2", "n2.example.com")
    await cluster.start()
    return handlers


@pytest.fixture
async def quiet(handlers):
    handlers.cluster.published.clear()
    return handlers


async def test_what_the_first_list_finds_is_told_as_found(handlers):
    assert set(handlers.told()) == {
        ("n1", Reading.UP, True),
        ("n2.example.com", Reading.UP, True),
    }
    subject = "remediator.signal.handler.node.n1.virt-handler-pod.pod"
    assert subject in handlers.cluster.published.subjects


async def test_a_pod_that_is_not_ready_and_ready_again_is_told_once_each(quiet):
    for ready in ("False", "False", "True"):
        quiet.set_ready("h1", ready)
        await asyncio.sleep(1)
    assert quiet.told() == [("n1", Reading.DOWN, False), ("n1", Reading.UP, False)]


async def test_a_rollout_is_down_and_then_up(quiet):
    quiet.remove("h1")
    await asyncio.sleep(20)
    quiet.add("h1b", ready="False")
    await asyncio.sleep(15)
    quiet.set_ready("h1b", "True")
    await asyncio.sleep(1)
    assert quiet.told() == [("n1", Reading.DOWN, False), ("n1", Reading.UP, False)]
    (gone, _) = quiet.cluster.published.signals(Plane.HANDLER)
    assert gone.detail == "it has no virt-handler pod"


async def test_a_pod_that_waits_for_migrations_to_end_still_works(quiet):
    quiet.remove("h1", grace_s=330)
    await asyncio.sleep(5)
    assert quiet.told() == []


async def test_of_two_pods_on_a_node_one_ready_one_is_enough(quiet):
    quiet.add("h1b", ready="False")
    await asyncio.sleep(1)
    quiet.set_ready("h1b", "True")
    quiet.remove("h1")
    await asyncio.sleep(1)
    assert quiet.told() == []


async def test_a_new_leader_is_told_of_a_node_whose_pod_is_gone(quiet):
    quiet.cluster.watchers.follow()
    quiet.remove("h1")
    await asyncio.sleep(1)
    assert quiet.told() == []
    quiet.cluster.watchers.lead()
    await asyncio.sleep(1)
    assert set(quiet.told()) == {
        ("n1", Reading.DOWN, True),
        ("n2.example.com", Reading.UP, True),
    }


async def test_of_a_node_that_is_gone_nothing_is_told(quiet):
    quiet.cluster.watchers.follow()
    quiet.remove("h1")
    quiet.cluster.store.delete(NODES, "", "n1")
    await asyncio.sleep(1)
    quiet.cluster.watchers.lead()
    await asyncio.sleep(1)
    assert {name for name, _, _ in quiet.told()} == {"n2.example.com"}


async def test_other_pods_of_kubevirt_are_not_watched(quiet):
    other = pod("virt-api-1", "n1")
    other["metadata"]["labels"] = {"kubevirt.io": "virt-api"}
    quiet.cluster.store.create(PODS, other)
    await asyncio.sleep(1)
    assert quiet.told() == []


async def test_a_pod_without_a_node_yet_is_passed_over(quiet):
    unbound = pod("h3", "n3")
    del unbound["spec"]["nodeName"]
    quiet.cluster.store.create(PODS, unbound)
    await asyncio.sleep(1)
    assert quiet.told() == []
