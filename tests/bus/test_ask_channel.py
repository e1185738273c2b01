"""Calls to the vantage points: heard by all who listen now, on a real server."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from remediator.bus.ask_channel import NatsAskChannel
from remediator.bus.connection import connect
from remediator.bus.memory import MemoryAsks
from remediator.bus.subjects import ASK_PROBES


class Listener:
    """A channel that listens, and what it heard."""

    def __init__(self, connection) -> None:
        self.channel = NatsAskChannel(connection)
        self.heard: list[str] = []
        self.task = asyncio.create_task(self.channel.listen(self.heard.append))

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def listener(connection):
    listening = Listener(connection)
    async with asyncio.timeout(5):
        await listening.channel.listening.wait()
    yield listening
    await listening.stop()


async def test_every_vantage_point_hears_a_call(server, connection, listener, until):
    other_connection = await connect(server.settings, "other")
    other = Listener(other_connection)
    await until(other.channel.listening.is_set)
    NatsAskChannel(connection).ask("n1")
    await until(lambda: listener.heard == ["n1"] and other.heard == ["n1"])
    await other.stop()
    await other_connection.close()


async def test_calls_arrive_in_order_and_a_node_that_waits_is_called_once(
    connection, listener, until
):
    asking = NatsAskChannel(connection)
    for node in ("n1", "n2", "n1", "n3"):
        asking.ask(node)
    await until(lambda: len(listener.heard) >= 3)
    assert listener.heard == ["n1", "n2", "n3"]
    assert asking.sent == 3


async def test_what_is_no_call_is_counted_and_ends_nothing(connection, listener, until):
    client = connection.client
    for body in (b"", b"\xff", b"[]", b'{"node": 7}', b'{"node": "n"' + b" " * 2000 + b"}"):
        await client.publish(ASK_PROBES, body)
    await client.publish(ASK_PROBES, b'{"node": "n1", "why": "a field of later versions"}')
    await until(lambda: listener.heard == ["n1"])
    assert listener.channel.unreadable == 5


async def test_calls_are_heard_again_after_the_server_restarted(
    watched, connection, listener, until
):
    watched._process.kill()
    await until(lambda: not listener.channel.listening.is_set())
    await until(listener.channel.listening.is_set, 20.0)
    NatsAskChannel(connection).ask("n1")
    await until(lambda: listener.heard == ["n1"])


async def test_a_call_while_nats_is_away_is_dropped_and_not_sent_later(
    watched, connection, listener, until
):
    asking = NatsAskChannel(connection)
    watched._process.kill()
    await until(lambda: not connection.connected)
    asking.ask("old")
    assert asking.dropped == 1
    await until(listener.channel.listening.is_set, 20.0)
    asking.ask("new")
    await until(lambda: listener.heard)
    assert listener.heard == ["new"]


async def test_calls_on_a_half_open_link_are_heard_once_it_is_replaced(
    server, proxied, proxy, until
):
    far = Listener(proxied)
    await until(far.channel.listening.is_set)
    near_connection = await connect(server.settings, "near")
    asking = NatsAskChannel(near_connection)
    proxy.half_open()
    proxied.suspect("a test says so")
    await until(lambda: not far.channel.listening.is_set(), 20.0)
    await until(far.channel.listening.is_set, 20.0)
    asking.ask("n1")
    await until(lambda: far.heard == ["n1"])
    await far.stop()
    await near_connection.close()


async def test_in_memory_calls_reach_all_listeners_and_none_during_an_outage():
    channel = MemoryAsks()
    first: list[str] = []
    second: list[str] = []
    tasks = [asyncio.create_task(channel.listen(heard.append)) for heard in (first, second)]
    await asyncio.sleep(0)
    channel.ask("n1")
    channel.outage = True
    channel.ask("n2")
    channel.outage = False
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait({tasks[1]})
    channel.ask("n3")
    await asyncio.sleep(0)
    assert (first, second) == (["n1", "n3"], ["n1"])
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
