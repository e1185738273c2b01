"""The writer and the projector over a real NATS server."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from remediator.bus.connection import connect
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.journal_stream import NatsJournal
from remediator.bus.protocols import AppendRefusedError
from remediator.bus.streams import ensure_all
from remediator.journal.projector import Projector
from remediator.journal.replay import replay
from remediator.journal.store import DecisionStore
from remediator.journal.writer import JournalWriter
from remediator.metrics import Metrics


@pytest.fixture
async def server(tmp_path):
    async with EmbeddedServer(tmp_path / "nats") as made:
        yield made


@pytest.fixture
async def connection(server):
    made = await connect(server.settings, "test")
    await ensure_all(made)
    yield made
    await made.close()


async def until(condition, within_s=20.0):
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_appended_is_projected_also_after_the_server_restarts(
    server, connection, dead_node, tmp_path
):
    journal = NatsJournal(connection)
    writer = JournalWriter(journal, metrics=Metrics(CollectorRegistry()))
    store = await DecisionStore.open(tmp_path / "journal.sqlite")
    projector = Projector(journal, store, metrics=Metrics(CollectorRegistry()))
    task = asyncio.create_task(projector.run())
    for decision, payload in dead_node.written[:5]:
        await writer.append(decision, payload)
    await until(lambda: projector.progress.head.seq == 5)
    await server.stop()
    await server.start()
    for decision, payload in dead_node.written[5:]:
        await writer.append(decision, payload)
    await until(lambda: projector.progress.head == dead_node.head)
    assert projector.broken_at is None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.close()
    assert [pair async for pair in replay(journal)] == dead_node.written


async def test_of_two_writers_only_one_goes_on(connection, book):
    journal = NatsJournal(connection)
    first = JournalWriter(journal, metrics=Metrics(CollectorRegistry()))
    second = JournalWriter(journal, metrics=Metrics(CollectorRegistry()))
    other = type(book)()
    await first.append(*book.write(why="the leader"))
    with pytest.raises(AppendRefusedError):
        await second.append(*other.write(why="the deposed"))
    await first.append(*book.write(why="goes on"))
