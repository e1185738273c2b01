"""Deleting a Machine, the tests playing the infrastructure."""

from __future__ import annotations

import pytest
from cluster_lab import MACHINE, NAMESPACE, Cluster

from remediator.actions.fence.driver import Down, NotDown
from remediator.actions.fence.machine import MachineDriver
from remediator.actions.world import SparedError
from remediator.fence_config.document import MachineFence

OWNED = {
    "ownerReferences": [
        {
            "apiVersion": "machine.openshift.io/v1beta1",
            "kind": "MachineSet",
            "name": "workers",
            "uid": "set-uid",
            "controller": True,
        }
    ],
    "finalizers": ["machine.machine.openshift.io"],
}


@pytest.fixture
async def cluster():
    cluster = Cluster()
    yield cluster
    await cluster.close()


def driver(cluster: Cluster) -> MachineDriver:
    return MachineDriver(MachineFence(name="cloud"), cluster.objects)


def infrastructure(cluster: Cluster, after_s: float):
    began: dict[str, float] = {}

    def reconcile(tree):
        if "deletionTimestamp" not in tree["metadata"]:
            return
        since = began.setdefault(tree["metadata"]["uid"], cluster.clock.now())
        if cluster.clock.now() - since >= after_s:
            cluster.store.mutate(
                MACHINE, NAMESPACE, "n1-machine", lambda each: each["metadata"].pop("finalizers")
            )

    cluster.plays(MACHINE, reconcile)


async def test_only_a_machine_that_is_gone_is_proof(cluster):
    cluster.create(MACHINE, "n1-machine", metadata=OWNED, spec={})
    infrastructure(cluster, 40.0)
    early = await driver(cluster).take_down(cluster.target(), cluster.order(20.0))
    assert isinstance(early, NotDown)
    assert "held by machine.machine.openshift.io" in early.detail
    down = await driver(cluster).take_down(cluster.target(), cluster.order(60.0))
    assert isinstance(down, Down), down
    assert cluster.all(MACHINE) == []


async def test_a_machine_that_nobody_would_replace_is_not_deleted(cluster):
    cluster.create(MACHINE, "n1-machine", spec={})
    answer = await driver(cluster).take_down(cluster.target(), cluster.order(5.0))
    assert isinstance(answer, NotDown)
    assert "nobody would replace it" in answer.detail
    assert (await driver(cluster).check(cluster.target())).fault
    assert "deletionTimestamp" not in cluster.find(MACHINE, "n1-machine")["metadata"]


async def test_its_replacement_of_the_same_name_counts_as_gone_and_is_left(cluster):
    cluster.create(MACHINE, "n1-machine", metadata=OWNED, spec={})

    def bare_metal(tree):
        if "deletionTimestamp" in tree["metadata"]:
            cluster.store.mutate(
                MACHINE, NAMESPACE, "n1-machine", lambda each: each["metadata"].pop("finalizers")
            )
            cluster.create(MACHINE, "n1-machine", metadata=OWNED, spec={})

    cluster.plays(MACHINE, bare_metal)
    down = await driver(cluster).take_down(cluster.target(), cluster.order(10.0))
    assert isinstance(down, Down), down
    assert "deletionTimestamp" not in cluster.find(MACHINE, "n1-machine")["metadata"]


async def test_a_node_without_machine_is_a_failure(cluster):
    answer = await driver(cluster).take_down(
        cluster.target(machine="", machine_group=""), cluster.order(5.0)
    )
    assert isinstance(answer, NotDown)
    assert "names no Machine" in answer.detail


async def test_nothing_is_deleted_when_the_last_look_spares(cluster):
    cluster.create(MACHINE, "n1-machine", metadata=OWNED, spec={})

    async def look() -> None:
        raise SparedError("it lives")

    with pytest.raises(SparedError):
        await driver(cluster).take_down(cluster.target(), cluster.order(look=look))
    assert "deletionTimestamp" not in cluster.find(MACHINE, "n1-machine")["metadata"]
