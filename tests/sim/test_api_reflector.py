"""The daemon's own client and reflector against the simulated server, under random faults.

Whatever the API server does in between, a reflector ends with exactly what the server holds, and
has told its sink of every step on the way consistently.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from remediator.clock import Clock
from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.errors import ConflictError, NotFoundError
from remediator.kube.reflector import Reflector
from remediator.kube.resources import LAUNCHER_PODS
from remediator.sim.apiserver import ApiServer
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.problems import Problem
from remediator.sim.resources import NODES, PODS, Registry
from remediator.sim.store import Store
from remediator.sim.virtual_time import run


class Mirror:
    """A sink that keeps its own picture from what it is told."""

    def __init__(self):
        self.picture: dict[tuple[str, str], str] = {}

    def seen(self, obj, old, *, initial):
        del initial
        key = (obj.namespace, obj.name)
        assert (old is not None) == (key in self.picture)
        self.picture[key] = obj.resource_version

    def gone(self, obj):
        del self.picture[obj.namespace, obj.name]

    def synced(self):
        pass

    def progressed(self, at):
        pass


def held(store: Store) -> dict[tuple[str, str], str]:
    pods = store.list(PODS, labels="kubevirt.io=virt-launcher")
    return {
        (pod["metadata"]["namespace"], pod["metadata"]["name"]): pod["metadata"]["resourceVersion"]
        for pod in pods
    }


def change(store: Store, rng: random.Random) -> None:
    """Create, relabel or delete a pod at random; some changes are refused."""
    name = f"p{rng.randrange(30)}"
    label = rng.choice(["virt-launcher", "other"])
    try:
        match rng.randrange(4):
            case 0 | 1:
                metadata = {"name": name, "labels": {"kubevirt.io": label}}
                store.create(PODS, {"metadata": metadata, "spec": {"containers": [{"name": "c"}]}})
            case 2:
                store.mutate(
                    PODS,
                    "default",
                    name,
                    lambda pod: pod["metadata"].update(labels={"kubevirt.io": label}),
                )
            case _:
                store.delete(PODS, "default", name, grace_s=0)
    except Problem as problem:
        if problem.status not in (404, 409):
            raise


async def disturb(server: ApiServer, rng: random.Random) -> None:
    """Switch one fault on for a while."""
    faults = server.faults
    pause_s = rng.uniform(0.1, 40)
    switches = [
        faults.hang,
        faults.reset,
        faults.drop_connections,
        faults.cut_half_line,
        faults.unavailable_html,
        faults.gone,
        lambda: faults.too_many(rng.randrange(1, 10)),
        lambda: faults.partition("daemon"),
    ]
    rng.choice(switches)()
    await asyncio.sleep(pause_s)
    faults.clear()
    faults.heal("daemon")


@pytest.mark.parametrize("seed", range(25))
def test_a_reflector_ends_with_what_the_server_holds(seed):
    async def main():
        rng, loop = random.Random(seed), asyncio.get_running_loop()
        store = Store(now=lambda: 1.8e9 + loop.time(), rng=rng, history=50)
        server = ApiServer(store, Registry(), watch_list=rng.random() < 0.5)
        transport = MemoryTransport(
            server, latency=lambda: rng.uniform(0.001, 0.05), client_name="daemon"
        )
        mirror = Mirror()
        reflector = Reflector(
            transport, LAUNCHER_PODS, mirror, clock=Clock(epoch_at_start=1.8e9), rng=rng
        )
        for _ in range(20):
            change(store, rng)
        task = asyncio.create_task(reflector.run())
        for _ in range(12):
            for _ in range(rng.randrange(40)):
                change(store, rng)
                await asyncio.sleep(rng.choice([0, 0, 0.01, 1]))
            if rng.random() < 0.7:
                await disturb(server, rng)
        # The longest a reflector may need: its inactivity timeout and its backoff.
        await asyncio.sleep(150)
        assert not task.done()
        assert reflector.synced
        assert mirror.picture == held(store)
        task.cancel()

    run(main())


@pytest.mark.parametrize("simulated", ["memory", "http"], indirect=True)
async def test_the_typed_client_reads_refusals_by_their_meaning(simulated):
    api = await simulated.client("daemon")
    client = KubeClient(api.transport)
    path = NODES.path(name="n1")
    with pytest.raises(NotFoundError):
        await client.get(path, dict)
    made = await client.create(NODES.path(), {"metadata": {"name": "n1"}}, dict)
    await client.patch(path, {"spec": {"unschedulable": True}}, kind=PatchKind.MERGE, result=None)
    with pytest.raises(ConflictError):
        await client.replace(path, made)
    with pytest.raises(ConflictError):
        await client.delete(path, uid="another")
    await client.delete(path, uid=made["metadata"]["uid"])
    with pytest.raises(NotFoundError):
        await client.get(path, dict)
