"""The contract with the Bare Metal Operator, the tests playing it."""

from __future__ import annotations

import pytest
from cluster_lab import HOST, MACHINE, NAMESPACE, Cluster, satisfies_crd

from remediator.actions.fence.driver import Down, NotDown
from remediator.actions.fence.metal3 import ANNOTATION, Metal3Driver
from remediator.engine.model import Reading
from remediator.fence_config.document import Metal3Fence

PROVISIONED = {"poweredOn": True, "provisioning": {"state": "provisioned"}}


@pytest.fixture
async def cluster():
    cluster = Cluster()
    cluster.create(HOST, "host-1", spec={"online": True}, status=PROVISIONED)
    cluster.create(
        MACHINE,
        "n1-machine",
        spec={},
        metadata={"annotations": {"metal3.io/BareMetalHost": f"{NAMESPACE}/host-1"}},
    )
    yield cluster
    await cluster.close()


def driver(cluster: Cluster, host: str = "") -> Metal3Driver:
    return Metal3Driver(Metal3Fence(name="bm", host=host), cluster.objects, cluster.clock)


def operator(cluster: Cluster, delay_s: float = 8.0):
    """Power off while a reboot annotation stands, on again when it is gone."""
    since: dict[str, float] = {}

    def reconcile(tree):
        name = tree["metadata"]["name"]
        held = any(
            key.startswith("reboot.metal3.io") for key in tree["metadata"].get("annotations") or {}
        )
        if tree["status"]["poweredOn"] != held:
            since.pop(name, None)
            return
        began = since.setdefault(name, cluster.clock.now())
        if cluster.clock.now() - began >= delay_s:
            cluster.status(HOST, name, {"poweredOn": not held})

    cluster.plays(HOST, reconcile)


async def test_the_host_of_the_nodes_machine_is_powered_off_and_kept_off(cluster):
    operator(cluster)
    down = await driver(cluster).take_down(cluster.target(), cluster.order(120.0))
    assert isinstance(down, Down), down
    assert down.ordered
    host = cluster.find(HOST, "host-1")
    assert host["metadata"]["annotations"][ANNOTATION] == '{"mode": "hard"}'
    satisfies_crd(
        {key: host[key] for key in ("apiVersion", "kind", "metadata", "spec")},
        "baremetalhosts.metal3.io.yaml",
    )
    assert (await driver(cluster).check(cluster.target())).power.reading is Reading.DOWN


async def test_the_host_is_found_by_the_provider_id_and_by_configuration(cluster):
    operator(cluster)
    by_id = cluster.target(machine="", provider_id=f"baremetalhost:///{NAMESPACE}/host-1/uid")
    assert (await driver(cluster).check(by_id)).power.reading is Reading.UP
    named = cluster.target(machine="", node="1")
    assert (await driver(cluster, "host-{node}").check(named)).power.reading is Reading.UP
    nowhere = await driver(cluster).check(cluster.target(machine=""))
    assert "cannot be told" in nowhere.fault


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({"online": False}, {}, "online is false"),
        ({"online": True, "disablePowerOff": True}, {}, "disablePowerOff"),
        ({"online": True}, {"provisioning": {"state": "inspecting"}}, "inspecting"),
        (
            {"online": True},
            {"errorType": "power management error", "errorMessage": "bmc away"},
            "bmc away",
        ),
    ],
)
async def test_a_host_that_the_operator_would_not_switch_off_is_not_asked(
    cluster, spec, status, words
):
    cluster.store.mutate(HOST, NAMESPACE, "host-1", lambda tree: tree.update(spec=spec))
    cluster.status(HOST, "host-1", status)
    answer = await driver(cluster).take_down(cluster.target(), cluster.order(5.0))
    assert isinstance(answer, NotDown)
    assert words in answer.detail
    assert words in (await driver(cluster).check(cluster.target())).fault
    assert "annotations" not in cluster.find(HOST, "host-1")["metadata"]


async def test_an_operator_that_does_nothing_is_a_failure(cluster):
    answer = await driver(cluster).take_down(cluster.target(), cluster.order(10.0))
    assert isinstance(answer, NotDown)
    assert "poweredOn is True" in answer.detail


async def test_an_old_reading_of_off_must_outlast_the_operators_own_round(cluster):
    cluster.status(HOST, "host-1", {"poweredOn": False})
    began_at = cluster.clock.now()
    down = await driver(cluster).take_down(cluster.target(), cluster.order(120.0))
    assert isinstance(down, Down)
    assert not down.ordered
    assert cluster.clock.now() - began_at > 60.0


async def test_somebody_who_takes_the_annotation_off_spoils_the_proof(cluster):
    def meddler(tree):
        if cluster.clock.now() > 1_700_000_004.0 and tree["metadata"].get("annotations"):
            cluster.store.mutate(
                HOST, NAMESPACE, "host-1", lambda each: each["metadata"].pop("annotations")
            )

    cluster.plays(HOST, meddler)
    answer = await driver(cluster).take_down(cluster.target(), cluster.order(30.0))
    assert isinstance(answer, NotDown)
    assert "took our annotation off" in answer.detail


async def test_taking_it_back_switches_the_host_on_again(cluster):
    operator(cluster)
    await driver(cluster).take_down(cluster.target(), cluster.order(120.0))
    assert await driver(cluster).take_back(cluster.target()) == ""
    assert ANNOTATION not in (cluster.find(HOST, "host-1")["metadata"].get("annotations") or {})
    assert await driver(cluster).take_back(cluster.target()) == ""
