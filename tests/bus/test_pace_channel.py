"""The leader's word on the pace: heard by all who listen now, on a real server; never stored."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from remediator.bus.connection import connect
from remediator.bus.memory import MemoryPace
from remediator.bus.pace_channel import BODY_MAX, NatsPaceChannel


class Listener:
    """A channel that listens, and what it heard."""

    def __init__(self, connection) -> None:
        self.channel = NatsPaceChannel(connection)
        self.heard: list[bytes] = []
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


async def test_every_replica_hears_it_also_the_one_that_says_it(server, listener, until):
    other_connection = await connect(server.settings, "other")
    other = Listener(other_connection)
    await until(other.channel.listening.is_set)
    listener.channel.tell(b"one")
    await until(lambda: listener.heard == [b"one"] and other.heard == [b"one"])
    await other.stop()
    await other_connection.close()


async def test_of_words_that_could_not_be_sent_yet_the_newest_goes(listener, until):
    for number in range(50):
        listener.channel.tell(str(number).encode())
    await until(lambda: listener.heard and listener.heard[-1] == b"49")
    assert listener.channel.sent + listener.channel.dropped == 50
    assert listener.channel.dropped > 0


async def test_what_was_said_before_somebody_listened_is_gone(connection, until):
    channel = NatsPaceChannel(connection)
    channel.tell(b"early")
    await until(lambda: channel.sent == 1)
    late = Listener(connection)
    await until(late.channel.listening.is_set)
    channel.tell(b"late")
    await until(lambda: late.heard != [])
    assert late.heard == [b"late"]
    await late.stop()


async def test_a_word_that_is_too_long_is_dropped_and_the_connection_stays(listener, until):
    listener.channel.tell(b"x" * (BODY_MAX + 1))
    assert listener.channel.dropped == 1
    listener.channel.tell(b"short")
    await until(lambda: listener.heard == [b"short"])


async def test_in_memory_the_same_but_in_an_outage_words_are_lost():
    pace, heard = MemoryPace(), []
    listening = asyncio.create_task(pace.listen(heard.append))
    await asyncio.sleep(0)
    pace.tell(b"one")
    pace.outage = True
    pace.tell(b"two")
    pace.outage = False
    pace.tell(b"three")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert heard == [b"one", b"three"]
    listening.cancel()
