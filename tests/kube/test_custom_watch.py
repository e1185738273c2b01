"""A custom resource's watch sleeps, wakes, changes its version and sleeps again."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

import pytest
import structlog

from remediator.clock import Clock
from remediator.kube.custom_watch import CustomResource, CustomWatch
from remediator.kube.discovery import ApiDiscovery
from remediator.kube.metadata import KubeObject
from remediator.sim.custom_kinds import CustomKinds, as_stored
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import ResourceType
from tests.kube.reflecting import EPOCH, RecordingSink
from tests.kube.scripted import on_virtual_time
from tests.kube.test_discovery import Counted, server

STORED = ResourceType("cluster.x-k8s.io", "v1beta2", "machines", "Machine")
MACHINES = CustomResource(
    group="cluster.x-k8s.io",
    plural="machines",
    item=KubeObject,
    namespaced=True,
    known=("v1beta2", "v1beta1"),
)


def older(obj):
    return {**obj, "apiVersion": "cluster.x-k8s.io/v1beta1"}


class World:
    """A server, its custom kinds, and one watch of machines."""

    def __init__(self) -> None:
        self.api = server()
        self.kinds = CustomKinds(self.api)
        self.transport = Counted(MemoryTransport(self.api, client_name="c"))
        self.discovery = ApiDiscovery(
            self.transport, [("cluster.x-k8s.io", "machines")], rng=random.Random(1)
        )
        self.sink = RecordingSink()
        self.settled = []
        self.watch = CustomWatch(
            self.transport,
            MACHINES,
            self.sink,
            self.discovery,
            clock=Clock(epoch_at_start=EPOCH),
            rng=random.Random(2),
            on_settled=lambda: self.settled.append(self.watch.settled),
        )

    @asynccontextmanager
    async def running(self):
        tasks = [asyncio.create_task(each.run()) for each in (self.discovery, self.watch)]
        try:
            yield self
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self.api.close()

    def make(self, name="m1"):
        return self.api.store.create(STORED, {"metadata": {"name": name, "namespace": "ns"}})

    def of_the_watch(self):
        """Return the requests that were no discovery."""
        return [path for path in self.transport.take() if path.endswith("machines")]


@on_virtual_time
async def test_while_the_crd_is_absent_nothing_is_asked_for_it_and_that_is_known_at_once():
    async with World().running() as world:
        assert not world.watch.settled
        await asyncio.sleep(0.1)
        assert (world.watch.absent, world.watch.settled, world.watch.synced) == (True, True, False)
        assert world.settled == [True]
        await asyncio.sleep(3600)
        assert world.of_the_watch() == []
        assert world.sink.take() == []


@on_virtual_time
async def test_it_wakes_within_a_minute_of_the_installation():
    async with World().running() as world:
        for moment in range(20):  # wherever in the period it falls
            await asyncio.sleep(200 + 1.7 * moment)
            world.kinds.install(STORED)
            world.make()
            await asyncio.sleep(40)
            assert (world.watch.synced, world.watch.absent) == (True, False)
            assert [told[:2] for told in world.sink.take()] == [("seen", "m1"), ("synced",)]
            world.kinds.remove(STORED)
            await asyncio.sleep(40)
            assert (world.watch.synced, world.watch.absent) == (False, True)
            assert [told[:2] for told in world.sink.take()] == [("gone", "m1")]


@on_virtual_time
async def test_the_version_that_the_server_prefers_is_read_first_if_we_know_it():
    assert MACHINES.choose(("v1beta1", "v1beta2")) == "v1beta1"
    assert MACHINES.choose(("v1", "v1beta2")) == "v1beta2"
    assert MACHINES.choose(("v1",)) == "v1"
    world = World()
    world.kinds.install(STORED, also={"v1beta1": older})
    async with world.running():
        await asyncio.sleep(1)
        assert world.watch.version == "v1beta2"


@on_virtual_time
async def test_when_the_version_changes_the_objects_stay_and_nobody_hears_of_it():
    world = World()
    world.kinds.install(STORED)
    world.make()
    async with world.running():
        await asyncio.sleep(10)
        world.sink.take()
        world.kinds.serve(STORED, only={"v1beta1": older})
        await asyncio.sleep(40)
        assert world.watch.version == "v1beta1"
        assert (world.watch.synced, world.watch.absent) == (True, False)
        assert world.sink.take() == []
        world.make("m2")
        world.api.store.delete(STORED, "ns", "m1")
        await asyncio.sleep(1)
        told = world.sink.take()
        assert [each[:2] for each in told] == [("seen", "m2"), ("gone", "m1")]
        assert told[0][-1] is False  # seen to happen, not found by a first list


@on_virtual_time
async def test_what_went_while_the_version_changed_is_told_as_gone():
    world = World()
    world.kinds.install(STORED)
    world.make("m1")
    world.make("m2")
    async with world.running():
        await asyncio.sleep(10)
        world.sink.take()
        world.kinds.serve(STORED, only={"v1": as_stored})  # a version from the future
        world.api.store.delete(STORED, "ns", "m1")
        await asyncio.sleep(40)
        assert world.watch.version == "v1"
        assert [told[:2] for told in world.sink.take()] == [("gone", "m1")]


@on_virtual_time
async def test_the_version_that_is_read_is_kept_while_it_is_served():
    world = World()
    world.kinds.install(STORED, also={"v1beta1": older})
    async with world.running():
        await asyncio.sleep(10)
        lists = len(world.of_the_watch())
        world.kinds.serve(STORED, only={"v1beta1": older, "v1beta2": as_stored})
        await asyncio.sleep(300)
        assert world.watch.version == "v1beta2"
        assert lists


@on_virtual_time
async def test_a_discovery_that_lacks_it_for_a_moment_takes_no_object_away():
    """An API server that starts may serve a document that lacks groups."""
    world = World()
    world.kinds.install(STORED)
    world.make()
    async with world.running():
        await asyncio.sleep(10)
        world.sink.take()
        whole = world.transport.request

        async def lacking(method, path, **more):
            response = await whole(method, path, **more)
            if path == "/apis":
                empty = b'{"kind":"APIGroupDiscoveryList","items":[]}'
                return type(response)(status=200, headers={}, body=empty)
            return response

        world.transport.request = lacking
        await asyncio.sleep(600)
        assert world.discovery.served("cluster.x-k8s.io", "machines") == ()
        assert (world.watch.synced, len(world.watch.store)) == (True, 1)
        assert world.sink.take() == []
        world.make("m2")
        await asyncio.sleep(1)
        assert [told[:2] for told in world.sink.take()] == [("seen", "m2")]


@on_virtual_time
async def test_while_the_api_server_is_away_nothing_is_gone():
    world = World()
    world.kinds.install(STORED)
    world.make()
    async with world.running():
        await asyncio.sleep(10)
        world.sink.take()
        world.api.faults.reset()
        await asyncio.sleep(600)
        world.api.faults.unavailable_html()
        await asyncio.sleep(600)
        world.api.faults.clear()
        await asyncio.sleep(60)
        assert world.sink.take() == []
        assert world.watch.synced


@on_virtual_time
async def test_a_crd_whose_storage_is_still_being_made_is_waited_for():
    async with World().running() as world:
        await asyncio.sleep(100)
        world.api.initializing.add("machines.cluster.x-k8s.io")
        world.kinds.install(STORED)
        world.make()
        await asyncio.sleep(40)
        assert not world.watch.settled
        world.api.initializing.clear()
        await asyncio.sleep(11)
        assert world.watch.synced
        assert len(world.watch.store) == 1


@on_virtual_time
async def test_a_watch_that_is_refused_says_so_once_and_counts_as_settled():
    world = World()
    world.kinds.install(STORED)
    world.api.may_read = lambda _user, _verb, res: res.plural != "machines"
    with structlog.testing.capture_logs() as logs:
        async with world.running():
            await asyncio.sleep(1)
            assert (world.watch.forbidden, world.watch.settled) == (True, True)
            assert (world.watch.absent, world.watch.synced) == (False, False)
            await asyncio.sleep(3600)
            assert len(world.of_the_watch()) < 150
            world.api.may_read = lambda *_: True
            await asyncio.sleep(61)
            assert (world.watch.forbidden, world.watch.synced) == (False, True)
    said = [each for each in logs if each["event"] == "watch_forbidden"]
    assert len(said) == 1


@on_virtual_time
async def test_a_resource_that_is_refused_and_then_removed_sleeps():
    world = World()
    world.kinds.install(STORED)
    world.api.may_read = lambda _user, _verb, res: res.plural != "machines"
    async with world.running():
        await asyncio.sleep(10)
        world.kinds.remove(STORED)
        await asyncio.sleep(40)
        assert (world.watch.forbidden, world.watch.absent) == (False, True)


@on_virtual_time
async def test_where_nobody_may_look_the_version_that_we_know_best_is_tried():
    world = World()
    world.kinds.install(STORED)
    world.make()
    whole = world.transport.request

    async def no_discovery(method, path, **more):
        response = await whole(method, path, **more)
        return type(response)(status=403, headers={}, body=b"") if path == "/apis" else response

    world.transport.request = no_discovery
    async with world.running():
        await asyncio.sleep(5)
        assert (world.watch.synced, world.watch.version) == (True, "v1beta2")
        world.kinds.remove(STORED)
        await asyncio.sleep(60)
        assert world.watch.absent


@on_virtual_time
async def test_a_fault_of_the_sink_ends_the_watch():
    world = World()
    world.sink.told = None  # the sink cannot take anything in
    world.kinds.install(STORED)
    world.make()
    looking = asyncio.create_task(world.discovery.run())
    with pytest.raises(AttributeError):
        await asyncio.wait_for(world.watch.run(), 60)
    looking.cancel()
