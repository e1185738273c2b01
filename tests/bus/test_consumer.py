from __future__ import annotations

import asyncio
import os
import shutil
import signal

import pytest

from remediator.bus import subjects
from remediator.bus.connection import connect
from remediator.bus.consumer import Consumer
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.publisher import Publisher


class Collector:
    """A consumer's deliveries; ``names`` are the last tokens of their subjects."""

    def __init__(self, connection, **options) -> None:
        self.consumer = Consumer(connection, **options)
        self.got: list[tuple[str, bytes]] = []

    def run(self):
        return self.consumer.run(lambda subject, payload: self.got.append((subject, payload)))

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.got]


async def put(connection, subject: str, payload: bytes) -> None:
    await connection.request(subject, payload)


def node(n: int = 0) -> str:
    return subjects.signal("power", "node", f"n{n}")


@pytest.fixture
def collector(connection) -> Collector:
    return Collector(connection)


async def test_it_delivers_what_is_stored_after_it_attached_from_all_three_streams(
    connection, collector, run, until
):
    await put(connection, node(), b"before")
    async with run(collector.run()):
        await collector.consumer.attached(5)
        await put(connection, node(), b"signal")
        await put(connection, subjects.heartbeat("lease", "node", "n"), b"beat")
        await put(connection, subjects.inventory("Node", "n"), b"facts")
        await until(lambda: len(collector.got) == 3)
    assert collector.payloads.count(b"before") == 0
    assert sorted(collector.payloads) == [b"beat", b"facts", b"signal"]


async def test_a_backlog_is_delivered_in_order_without_a_gap_at_ten_thousand_a_second(
    connection, run, until
):
    collector = Collector(connection, streams=("SIGNALS",))
    publisher = Publisher(connection)
    async with run(collector.run()), run(publisher.run()):
        await collector.consumer.attached(5)
        for n in range(20_000):
            publisher.offer(node(n), b"%d" % n)
        assert await publisher.flush(30)
        await until(lambda: len(collector.got) == 20_000, 20)
    assert collector.payloads == [b"%d" % n for n in range(20_000)]
    assert collector.consumer.recreated == 0


async def test_a_restart_of_the_server_is_survived_with_its_memory_streams_lost(
    watched, connection, collector, run, until
):
    beat = subjects.heartbeat("lease", "node", "n")
    async with run(collector.run()):
        await collector.consumer.attached(5)
        for n in range(50):
            await put(connection, beat, b"old %d" % n)
        await put(connection, node(), b"old signal")
        await until(lambda: len(collector.got) == 51)
        os.kill(watched.pid, signal.SIGKILL)
        await until(lambda: not connection.connected)
        await connection.wait_connected(10)
        # Sequence numbers begin anew; what is published at once must not be missed.
        async with asyncio.timeout(6):
            while b"new" not in collector.payloads:
                try:
                    await put(connection, beat, b"new")
                except BusUnavailableError:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0)
            await put(connection, node(), b"new signal")
            await until(lambda: b"new signal" in collector.payloads)
    assert collector.payloads.count(b"old signal") == 1


async def test_a_stream_that_lost_its_end_is_followed_from_where_time_stopped(
    watched, connection, run, until, pause
):
    """SIGNALS is not synced: after a crash the sequences of lost messages are given again."""
    collector = Collector(connection, streams=("SIGNALS",))
    async with run(collector.run()):
        await collector.consumer.attached(5)
        await put(connection, node(), b"kept")
        await until(lambda: len(collector.got) == 1)
        pid, before = watched.pid, watched.directory / "store"
        pause(pid)
        copy = watched.directory / "copy"
        shutil.copytree(before, copy)
        os.kill(pid, signal.SIGCONT)
        await connection.wait_connected(10)
        for n in range(3):
            await put(connection, node(), b"lost %d" % n)
        await until(lambda: len(collector.got) == 4)
        pause(pid)
        shutil.rmtree(before)
        copy.rename(before)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not connection.connected)
        await connection.wait_connected(10)
        for n in range(5):  # two more than were lost, before the feed can look
            await connection.client.publish(node(), b"new %d" % n)
        await until(lambda: len(collector.got) >= 9, 10)
    assert collector.payloads[4:] == [b"new %d" % n for n in range(5)]


async def test_messages_stored_while_it_was_cut_off_are_delivered_once(
    server, proxied, proxy, run, until
):
    collector = Collector(proxied, streams=("SIGNALS",))
    direct = await connect(server.settings, "direct")
    async with run(collector.run()):
        await collector.consumer.attached(5)
        await put(direct, node(), b"0")
        await until(lambda: len(collector.got) == 1)
        proxy.half_open()
        for n in range(1, 100):
            await put(direct, node(), b"%d" % n)
        await until(lambda: len(collector.got) >= 100, 12)
    await direct.close()
    assert collector.payloads == [b"%d" % n for n in range(100)]


async def test_a_stopped_server_that_goes_on_costs_nothing(
    server, connection, collector, run, until, pause
):
    async with run(collector.run()):
        await collector.consumer.attached(5)
        for n in range(10):
            await put(connection, node(), b"%d" % n)
        pause(server.pid)
        await until(lambda: not connection.connected, 8)
        os.kill(server.pid, signal.SIGCONT)
        await connection.wait_connected(10)
        for n in range(10, 20):
            await put(connection, node(), b"%d" % n)
        await until(lambda: len(collector.got) >= 20, 8)
    assert collector.payloads == [b"%d" % n for n in range(20)]


async def test_a_deleted_consumer_is_made_again(connection, run, until):
    collector = Collector(connection, streams=("SIGNALS",))
    async with run(collector.run()):
        await collector.consumer.attached(5)
        await put(connection, node(), b"0")
        await until(lambda: collector.got)
        (name,) = (await connection.api("CONSUMER.NAMES.SIGNALS"))["consumers"]
        await connection.api(f"CONSUMER.DELETE.SIGNALS.{name}")
        await put(connection, node(), b"1")
        await until(lambda: len(collector.got) == 2, 8)
    assert collector.payloads == [b"0", b"1"]


async def test_a_message_lost_on_the_way_is_fetched_again(connection, run, until):
    """nats-py drops messages when its own queue is full ("slow consumer")."""
    collector = Collector(connection, streams=("SIGNALS",))
    async with run(collector.run()):
        await collector.consumer.attached(5)
        client = connection.client
        real, lost = client._process_msg, []

        async def lossy(sid, subject, reply, data, headers):
            if data == b"5" and not lost:
                lost.append(data)
                return
            await real(sid, subject, reply, data, headers)

        client._process_msg = lossy
        for n in range(10):
            await put(connection, node(), b"%d" % n)
        await until(lambda: len(collector.got) >= 10, 8)
    assert lost
    assert collector.payloads == [b"%d" % n for n in range(10)]


async def test_the_last_message_lost_is_noticed_by_the_next_heartbeat(connection, run, until):
    collector = Collector(connection, streams=("SIGNALS",))
    async with run(collector.run()):
        await collector.consumer.attached(5)
        client = connection.client
        real, lost = client._process_msg, []

        async def lossy(sid, subject, reply, data, headers):
            if data == b"only" and not lost:
                lost.append(data)
                return
            await real(sid, subject, reply, data, headers)

        client._process_msg = lossy
        await put(connection, node(), b"only")
        await until(lambda: collector.got, 5)
    assert lost
    assert collector.payloads == [b"only"]


async def test_an_empty_stream_is_quiet_and_healthy(collector, run):
    """A pull fetch would raise TimeoutError here."""
    async with run(collector.run()) as task:
        await collector.consumer.attached(5)
        await asyncio.sleep(1.5)
        assert not task.done()
    assert collector.consumer.recreated == 0


async def test_what_the_engine_raises_ends_the_run(connection):
    consumer = Consumer(connection, streams=("SIGNALS",))

    def deliver(subject: str, payload: bytes) -> None:
        raise ZeroDivisionError(subject, payload)

    task = asyncio.create_task(consumer.run(deliver))
    await consumer.attached(5)
    await put(connection, node(), b"x")
    async with asyncio.timeout(5):
        with pytest.raises(ZeroDivisionError):
            await task


async def test_nothing_is_left_on_the_server_when_it_ends(connection, collector, run):
    async with run(collector.run()):
        await collector.consumer.attached(5)
    left = [0]
    async with asyncio.timeout(5):
        while left:
            answers = [
                await connection.api(f"CONSUMER.NAMES.{stream}")
                for stream in ("HEARTBEATS", "INVENTORY", "SIGNALS")
            ]
            left = [name for answer in answers for name in answer["consumers"]]


async def test_attaching_in_vain_is_told_in_time(connection, run):
    collector = Collector(connection, streams=("NOPE",))
    async with run(collector.run()):
        with pytest.raises(BusUnavailableError, match="no stream to follow"):
            await collector.consumer.attached(0.3)
