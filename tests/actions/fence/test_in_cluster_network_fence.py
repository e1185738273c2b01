"""The contract with csi-addons, the tests playing its controller."""

from __future__ import annotations

import pytest
from cluster_lab import CSI_NODE, NETWORK_FENCE, Cluster, satisfies_crd

from remediator.actions.fence.driver import Down, NotDown
from remediator.actions.fence.network_fence import (
    FENCED_MESSAGE,
    UNFENCED_MESSAGE,
    NetworkFenceDriver,
)
from remediator.fence_config.document import NetworkFence, SecretKeys

NAME = "remediator-n1"


@pytest.fixture
async def cluster():
    cluster = Cluster()
    yield cluster
    await cluster.close()


def driver(cluster: Cluster, **changes) -> NetworkFenceDriver:
    settings = {"name": "net", "class_name": "ceph", **changes}
    return NetworkFenceDriver(NetworkFence(**settings), cluster.objects)


def controller(cluster: Cluster, *, results=("Succeeded",), unfences: bool = True):
    """Act on each change of the specification, as csi-addons does."""
    done: dict[str, int] = {}
    answers = list(results)

    def reconcile(tree):
        name, generation = tree["metadata"]["name"], tree["metadata"].get("generation", 1)
        if done.get(tree["metadata"]["uid"]) == generation:
            return
        done[tree["metadata"]["uid"]] = generation
        if tree["spec"].get("fenceState", "Fenced") == "Fenced":
            result = answers.pop(0) if len(answers) > 1 else answers[0]
            message = FENCED_MESSAGE if result == "Succeeded" else "driver says no"
        elif unfences:
            result, message = "Succeeded", UNFENCED_MESSAGE
        else:
            return
        cluster.status(NETWORK_FENCE, name, {"result": result, "message": message})

    cluster.plays(NETWORK_FENCE, reconcile)


async def test_the_nodes_addresses_are_fenced_and_the_storage_says_so(cluster):
    controller(cluster)
    down = await driver(cluster).take_down(
        cluster.target(addresses=("10.0.0.1", "fd00::1")), cluster.order()
    )
    assert isinstance(down, Down), down
    made = cluster.find(NETWORK_FENCE, NAME)
    assert made["spec"]["cidrs"] == ["10.0.0.1/32", "fd00::1/128"]
    satisfies_crd(
        {key: made[key] for key in ("apiVersion", "kind", "metadata", "spec")},
        "networkfences.csiaddons.openshift.io.yaml",
    )


async def test_the_older_form_names_driver_and_secret(cluster):
    controller(cluster)
    secret = SecretKeys(name="rook", namespace="rook-ceph")
    down = await driver(
        cluster, class_name="", driver="rbd.csi.ceph.com", secret=secret, parameters={"a": "b"}
    ).take_down(cluster.target(), cluster.order())
    assert isinstance(down, Down), down
    made = cluster.find(NETWORK_FENCE, NAME)
    assert made["spec"]["secret"] == {"name": "rook", "namespace": "rook-ceph"}
    satisfies_crd(
        {key: made[key] for key in ("apiVersion", "kind", "metadata", "spec")},
        "networkfences.csiaddons.openshift.io.yaml",
    )


async def test_what_the_driver_itself_says_of_the_node_goes_before_its_addresses(cluster):
    controller(cluster)
    cluster.create(
        CSI_NODE,
        "csi-n1",
        spec={"driver": {"name": "rbd", "nodeID": "n1"}},
        status={
            "networkFenceClientStatus": [
                {
                    "networkFenceClassName": "ceph",
                    "ClientDetails": [{"id": "a", "cidrs": ["192.168.1.7/32"]}],
                }
            ]
        },
    )
    await driver(cluster).take_down(cluster.target(), cluster.order())
    assert cluster.find(NETWORK_FENCE, NAME)["spec"]["cidrs"] == ["192.168.1.7/32"]


async def test_a_failure_is_waited_out_to_the_deadline_and_told(cluster):
    controller(cluster, results=("Failed",))
    answer = await driver(cluster).take_down(cluster.target(), cluster.order(10.0))
    assert isinstance(answer, NotDown)
    assert "driver says no" in answer.detail


async def test_a_success_of_the_unfence_before_is_not_taken_for_a_fence(cluster):
    controller(cluster)
    assert isinstance(await driver(cluster).take_down(cluster.target(), cluster.order()), Down)
    # An unfence that a crash broke off: the object stands there, unfenced with success.
    cluster.store.mutate(
        NETWORK_FENCE, "", NAME, lambda tree: tree["spec"].update(fenceState="Unfenced")
    )
    cluster.status(NETWORK_FENCE, NAME, {"result": "Succeeded", "message": UNFENCED_MESSAGE})
    before = cluster.find(NETWORK_FENCE, NAME)["metadata"]["uid"]
    down = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(down, Down)
    after = cluster.find(NETWORK_FENCE, NAME)
    assert after["metadata"]["uid"] != before
    assert after["spec"]["fenceState"] == "Fenced"


async def test_it_is_deleted_only_after_the_storage_has_unfenced(cluster):
    controller(cluster, unfences=False)
    await driver(cluster).take_down(cluster.target(), cluster.order())
    left = await driver(cluster).take_back(cluster.target())
    assert "not unfenced yet" in left
    assert cluster.find(NETWORK_FENCE, NAME)["spec"]["fenceState"] == "Unfenced"
    cluster.status(NETWORK_FENCE, NAME, {"result": "Succeeded", "message": UNFENCED_MESSAGE})
    assert await driver(cluster).take_back(cluster.target()) == ""
    assert cluster.find(NETWORK_FENCE, NAME) is None


async def test_somebody_elses_fence_of_that_name_is_left_alone(cluster):
    cluster.create(NETWORK_FENCE, NAME, spec={"cidrs": ["10.0.0.1/32"], "driver": "x"})
    answer = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(answer, NotDown)
    assert "somebody else" in answer.detail
    assert await driver(cluster).take_back(cluster.target()) == ""
    assert cluster.find(NETWORK_FENCE, NAME) is not None


async def test_a_node_without_an_address_cannot_be_fenced(cluster):
    target = cluster.target(addresses=())
    assert (await driver(cluster).check(target)).fault
    assert isinstance(await driver(cluster).take_down(target, cluster.order()), NotDown)
    assert cluster.all(NETWORK_FENCE) == []
