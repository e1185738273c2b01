"""The hosts' sockets on loopback: answered while a host lives, silent otherwise. Time is real."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from remediator.clock import Clock
from remediator.sim.cluster import SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.probe_ports import ProbePorts
from remediator.sim.resources import NODES

DEADLINE_S = 10.0
TIMEOUT_S = 0.3

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127/8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def cluster():
    spec = ClusterSpec(nodes=3, vms=0, address_prefix="127", kubelet_port=free_port())
    made = SimCluster(spec, clock=Clock())
    await made.start()
    ports = ProbePorts(made.hosts)
    ports.start()
    yield made
    await ports.stop()
    await made.stop()


async def answers(cluster, node: str) -> bool:
    """Whether a connection to a host's kubelet port comes about."""
    spec = cluster.hosts[node].spec
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(spec.address, spec.kubelet_port)
    except TimeoutError:
        return False
    writer.close()
    return True


async def until(cluster, node: str, *, alive: bool) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await answers(cluster, node) is not alive:
            await asyncio.sleep(0.02)


async def test_every_host_answers_at_its_own_address(cluster):
    assert {host.spec.address for host in cluster.hosts.values()} == {
        "127.77.0.1",
        "127.77.0.2",
        "127.77.0.3",
    }
    for node in cluster.hosts:
        for _ in range(5):
            assert await answers(cluster, node)


@pytest.mark.parametrize("fault", ["power_loss", "kernel_panic", "host_hang", "partition"])
async def test_a_lost_host_falls_silent_and_the_others_do_not(cluster, fault):
    getattr(cluster.faults, fault)("n02")
    await until(cluster, "n02", alive=False)
    assert not await answers(cluster, "n02")
    assert await answers(cluster, "n01")


async def test_a_host_that_is_back_answers_again(cluster):
    cluster.faults.partition("n02")
    await until(cluster, "n02", alive=False)
    cluster.faults.heal("n02")
    await until(cluster, "n02", alive=True)
    for _ in range(5):
        assert await answers(cluster, "n02")


async def test_the_node_reports_the_port_that_it_listens_on(cluster):
    status = cluster.store.get(NODES, "", "n02")["status"]
    port = cluster.spec.kubelet_port
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == port


async def test_an_address_that_is_taken_is_an_error_that_leaves_nothing_open(cluster):
    second = ProbePorts(cluster.hosts)
    with pytest.raises(OSError, match="in use"):
        second.start()
    assert await answers(cluster, "n01")
