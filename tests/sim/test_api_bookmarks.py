"""What a watch does over minutes: bookmarks, its end, idle partitions. On virtual time."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from remediator.kube.transport import TransportError
from remediator.sim.apiserver import ApiServer
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import CONFIG_MAPS, NODES, Registry
from remediator.sim.store import Store
from remediator.sim.virtual_time import run


def simulate(story, latency=None):
    async def main():
        loop = asyncio.get_running_loop()
        store = Store(now=lambda: 1_800_000_000.0 + loop.time(), rng=random.Random(1))
        server = ApiServer(store, Registry())
        transport = MemoryTransport(server, latency=latency, client_name="c")
        await story(server, transport)

    run(main())


async def follow(transport, path, log, **query):
    """Append (time, type, version) of each line, and (time, "end") at the end."""
    loop = asyncio.get_running_loop()
    options = (("watch", "true"), *query.items())
    async with transport.stream(path, query=options, connect_timeout_s=5) as stream:
        async for line in stream.lines():
            event = json.loads(line)
            version = int(event["object"]["metadata"]["resourceVersion"])
            log.append((loop.time(), event["type"], version))
    log.append((loop.time(), "end"))


def test_bookmarks_come_every_minute_and_just_before_the_end():
    async def story(server, transport):
        log = []
        version = str(server.store.resource_version)
        server.store.create(NODES, {"metadata": {"name": "n"}})
        now = server.store.resource_version
        await follow(
            transport,
            CONFIG_MAPS.path(),
            log,
            resourceVersion=version,
            allowWatchBookmarks="true",
            timeoutSeconds="150",
        )
        assert log == [
            (60.0, "BOOKMARK", now),
            (120.0, "BOOKMARK", now),
            (148.0, "BOOKMARK", now),
            (150.0, "end"),
        ]

    simulate(story)


def test_no_bookmark_comes_unasked():
    async def story(_server, transport):
        log = []
        await follow(transport, CONFIG_MAPS.path(), log, resourceVersion="1", timeoutSeconds="1000")
        assert log == [(1000.0, "end")]

    simulate(story)


def test_a_watch_without_a_time_lasts_half_an_hour_to_an_hour():
    async def story(_server, transport):
        log = []
        await follow(transport, CONFIG_MAPS.path(), log, resourceVersion="1")
        assert 1800 <= log[-1][0] <= 3600

    simulate(story)


def test_a_partition_outlasts_the_watch_without_a_sign():
    async def story(server, transport):
        log = []
        task = asyncio.create_task(
            follow(transport, CONFIG_MAPS.path(), log, resourceVersion="1", timeoutSeconds="60")
        )
        await asyncio.sleep(1)
        server.faults.partition("c")
        await asyncio.sleep(600)
        assert (log, task.done()) == ([], False)
        server.faults.heal("c")
        await task
        assert log == [(601.0, "end")]

    simulate(story)


def test_latency_delays_requests_and_watch_lines_alike():
    async def story(server, transport):
        loop, log = asyncio.get_running_loop(), []
        reply = await transport.request("GET", "/readyz", timeout_s=5)
        assert (reply.status, loop.time()) == (200, 0.5)
        task = asyncio.create_task(
            follow(transport, CONFIG_MAPS.path(), log, resourceVersion="1", timeoutSeconds="60")
        )
        await asyncio.sleep(1.5)
        server.store.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
        await asyncio.sleep(1)
        assert [entry[:2] for entry in log] == [(2.25, "ADDED")]
        task.cancel()
        with pytest.raises(TransportError):
            await transport.request("GET", "/readyz", timeout_s=0.4)

    simulate(story, latency=lambda: 0.5)


def test_an_answer_is_lost_when_the_partition_begins_on_its_way_back():
    async def story(server, transport):
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, server.faults.partition, "c")
        body = b'{"metadata":{"name":"a"}}'
        with pytest.raises(TransportError):
            await transport.request("POST", CONFIG_MAPS.path("default"), body=body, timeout_s=5)
        assert loop.time() == 5
        assert server.store.find(CONFIG_MAPS, "default", "a") is not None

    simulate(story, latency=lambda: 0.5)


def test_a_request_that_timed_out_in_a_partition_never_takes_effect():
    async def story(server, transport):
        server.faults.partition("c")
        body = b'{"metadata":{"name":"a"}}'
        with pytest.raises(TransportError):
            await transport.request("POST", CONFIG_MAPS.path("default"), body=body, timeout_s=5)
        server.faults.heal("c")
        await asyncio.sleep(60)
        assert server.store.find(CONFIG_MAPS, "default", "a") is None

    simulate(story)


def test_a_cancelled_opening_leaves_no_watch_behind():
    async def story(server, transport):
        task = asyncio.create_task(follow(transport, CONFIG_MAPS.path(), [], resourceVersion="1"))
        await asyncio.sleep(0.3)  # the watch is open at the server, its answer on the way
        (hub,) = server._hubs.values()
        assert len(hub.all()) == 1
        task.cancel()
        await asyncio.sleep(1)
        assert hub.all() == []

    simulate(story, latency=lambda: 0.5)
