"""Our client, reflector and election against the simulated API server, over real sockets.

Two sides that were written apart: what one takes for Kubernetes' behaviour the other must serve.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from remediator.clock import Clock
from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.cluster import ClusterTransport
from remediator.kube.election import LeaderElector
from remediator.kube.errors import AlreadyExistsError, ConflictError, NotFoundError
from remediator.kube.objects import LAUNCHER_PODS, LEASES, NODES, PODS, Lease, Node, Pod
from remediator.sim.apiserver import ApiServer
from remediator.sim.http_server import serve as serve_simulated
from remediator.sim.http_server import write_kubeconfig
from remediator.sim.resources import Registry
from remediator.sim.store import Store
from tests.kube.reflecting import reflecting, until

FAST = {"backoff_base_s": 0.02, "backoff_cap_s": 0.05, "progress_delay_s": 0.01}


@pytest.fixture
async def server():
    clock = Clock(epoch_at_start=1_800_000_000.0)
    made = ApiServer(Store(now=clock.now, rng=random.Random(1)), Registry())
    yield made
    made.close()


@pytest.fixture
async def transport(server, tmp_path):
    url, close_server = await serve_simulated(server, token="t")
    write_kubeconfig(tmp_path / "kubeconfig", url, "t")
    opened = await ClusterTransport.open(kubeconfig=str(tmp_path / "kubeconfig"))
    yield opened
    await opened.close()
    await close_server()


async def make_node(client, name):
    body = {"metadata": {"name": name}, "spec": {}}
    return await client.create(NODES.path, body, Node)


async def make_pod(client, name, **labels):
    body = {
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }
    return await client.create(PODS.collection("default"), body, Pod)


async def test_the_client_and_the_server_agree_on_conflicts_and_preconditions(transport):
    client = KubeClient(transport)
    made = await make_node(client, "n1")
    with pytest.raises(AlreadyExistsError):
        await make_node(client, "n1")
    path = NODES.object_path("n1")
    cordon: dict[str, Any] = {
        "metadata": {"resourceVersion": made.resource_version},
        "spec": {"unschedulable": True},
    }
    changed = await client.patch(path, cordon, kind=PatchKind.MERGE, result=Node)
    assert changed.unschedulable
    with pytest.raises(ConflictError):
        await client.patch(path, cordon, kind=PatchKind.MERGE)
    with pytest.raises(ConflictError):
        await client.delete(path, uid="another")
    await client.delete(path, uid=made.uid, resource_version=changed.resource_version)
    with pytest.raises(NotFoundError):
        await client.get(path, Node)


@pytest.mark.parametrize("watch_list", [True, False])
@pytest.mark.parametrize("offered", [True, False])
async def test_a_reflector_follows_the_server(server, transport, watch_list, offered):
    server.watch_list = offered
    client = KubeClient(transport)
    for number in range(5):
        await make_node(client, f"n{number}")
    settings = {**FAST, "watch_list": watch_list, "page_limit": 2}
    async with reflecting(transport, **settings) as (reflector, sink):
        await until(lambda: reflector.synced)
        assert len(reflector.store) == 5
        await make_node(client, "late")
        await client.patch(
            NODES.object_path("n1"), {"spec": {"unschedulable": True}}, kind=PatchKind.MERGE
        )
        await client.delete(NODES.object_path("n2"))
        await until(
            lambda: (
                ("", "late") in reflector.store
                and reflector.store["", "n1"].unschedulable
                and ("", "n2") not in reflector.store
            )
        )
        before = len(sink.progress)
        await make_node(client, "later")
        await until(lambda: len(sink.progress) > before)


@pytest.mark.parametrize("watch_list", [True, False])
async def test_a_reflector_survives_that_the_server_forgets_its_events(
    server, transport, watch_list
):
    client = KubeClient(transport)
    await make_node(client, "n1")
    async with reflecting(transport, **FAST, watch_list=watch_list) as (reflector, _):
        await until(lambda: reflector.synced)
        server.forget_events()
        await client.delete(NODES.object_path("n1"))
        await make_node(client, "n2")
        await until(lambda: sorted(reflector.store) == [("", "n2")])


async def test_a_selector_shows_launcher_pods_only_as_they_come_and_go(transport):
    client = KubeClient(transport)
    await make_pod(client, "web", app="web")
    async with reflecting(transport, resource=LAUNCHER_PODS, **FAST) as (reflector, _):
        await until(lambda: reflector.synced)
        await make_pod(client, "launcher", **{"kubevirt.io": "virt-launcher"})
        await until(lambda: ("default", "launcher") in reflector.store)
        path = PODS.object_path("launcher", "default")
        relabel = {"metadata": {"labels": {"kubevirt.io": None}}}
        await client.patch(path, relabel, kind=PatchKind.MERGE)
        await until(lambda: not reflector.store)


async def test_two_replicas_elect_one_leader_and_hand_over(transport):
    client = KubeClient(transport)
    led: list[tuple[str, int]] = []

    def replica(identity):
        elector = LeaderElector(
            client,
            namespace="default",
            name="remediator",
            identity=identity,
            clock=Clock(),
            rng=random.Random(identity),
        )

        async def lead(epoch):
            led.append((identity, epoch))
            await asyncio.Event().wait()

        return elector, asyncio.create_task(elector.run(lead))

    first, first_task = replica("a")
    await until(lambda: first.leader)
    second, second_task = replica("b")
    await until(lambda: second.holder == "a")
    first_task.cancel()
    await asyncio.wait({first_task})
    await until(lambda: second.leader)
    assert led == [("a", 1), ("b", 2)]
    lease = await client.get(LEASES.object_path("remediator", "default"), Lease)
    assert (lease.holder, lease.transitions) == ("b", 2)
    second_task.cancel()
    await asyncio.wait({second_task})
