from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from remediator.backoff import Backoff
from remediator.bus.journal_stream import JournalGapError
from remediator.bus.protocols import StoredRecord
from remediator.engine.chain import Head
from remediator.journal.projector import Projector
from remediator.journal.query import DecisionQuery
from remediator.journal.store import DecisionStore
from remediator.metrics import Metrics


@pytest.fixture
async def store(tmp_path):
    made = await DecisionStore.open(tmp_path / "journal.sqlite")
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def running(stream, store, metrics=None):
    projector = Projector(
        stream,
        store,
        backoff=Backoff(base_s=0.01, cap_s=0.02, rng=random.Random(1)),
        metrics=metrics or Metrics(CollectorRegistry()),
        look_every_s=0.05,
    )
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition, within_s=5.0):
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def publish(stream, book, number):
    for _ in range(number):
        stream.put(book.write()[1])


async def test_follows_what_is_there_and_what_comes(stream, store, book):
    publish(stream, book, 1200)
    async with running(stream, store) as projector:
        await until(lambda: projector.progress.head == book.head)
        publish(stream, book, 3)
        await until(lambda: projector.progress.head == book.head)
        assert projector.broken_at is None
    assert (await store.select(DecisionQuery(limit=1)))[0].seq == 1203


async def test_a_break_is_shown_and_told_once_and_projecting_goes_on(stream, store, book):
    metrics = Metrics(CollectorRegistry())
    publish(stream, book, 2)
    stream.put(b"somebody else's message")
    with capture_logs() as lines:
        async with running(stream, store, metrics) as projector:
            await until(lambda: projector.progress.head.seq == 3)
            stream.put(b"and another")
            await until(lambda: projector.progress.head.seq == 4)
            assert projector.broken_at == 3
    assert [line["seq"] for line in lines if line["event"] == "journal_chain_broken"] == [3]
    assert b"remediator_journal_broken 1.0" in metrics.render()


async def test_waits_for_nats_and_goes_on(stream, store, book):
    publish(stream, book, 5)
    stream.reads_down = 3
    async with running(stream, store) as projector:
        await until(lambda: projector.progress.head == book.head)


async def test_a_deleted_file_is_filled_again(stream, store, book):
    publish(stream, book, 10)
    async with running(stream, store) as projector:
        await until(lambda: projector.progress.head == book.head)
        store.path.unlink()
        await until(lambda: store.path.exists() and projector.progress.head == book.head)
    assert len(await store.select(DecisionQuery())) == 10


async def test_a_file_damaged_while_in_use_is_filled_again(stream, store, book, tmp_path):
    publish(stream, book, 300)
    async with running(stream, store) as projector:
        await until(lambda: projector.progress.head == book.head)
        store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store._writer.execute("PRAGMA shrink_memory")  # else its cache hides the damage
        size = store.path.stat().st_size
        with store.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
        publish(stream, book, 300)
        await until((tmp_path / "journal.sqlite.corrupt-1").exists)
        await until(lambda: projector.progress.head == book.head)
    assert len(await store.select(DecisionQuery(limit=1000))) == 600


@pytest.mark.parametrize("length", [2, 8])
async def test_a_file_about_another_journal_is_begun_again(stream, store, book, length):
    other = type(book)()
    for number in range(5):
        other.write(why=f"another journal {number}")
    await store.project([StoredRecord(d.seq, "s", payload) for d, payload in other.written])
    publish(stream, book, length)
    async with running(stream, store) as projector:
        await until(lambda: projector.progress.head == book.head)
        assert projector.broken_at is None
    assert len(await store.select(DecisionQuery())) == length


async def test_a_full_disk_stalls_the_projection_and_nothing_else(stream, store, book, monkeypatch):
    from remediator.journal.schema import StoreError  # noqa: PLC0415

    publish(stream, book, 3)
    original = store.project
    failures = 2

    async def project(records):
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreError("journal.sqlite: database or disk is full")
        return await original(records)

    monkeypatch.setattr(store, "project", project)
    with capture_logs() as lines:
        async with running(stream, store) as projector:
            await until(lambda: projector.progress.head == book.head)
    assert [line["event"] for line in lines].count("projection_stalled") == 2


async def test_an_empty_journal_is_no_trouble(stream, store):
    async with running(stream, store) as projector:
        await asyncio.sleep(0.12)  # longer than one look at the file
        assert projector.progress.head == Head()


async def test_a_hole_that_the_stream_refuses_to_cross_is_a_break(stream, store, book):
    publish(stream, book, 7)
    records = stream.records

    async def tail(from_seq):
        for record in records[from_seq - 1 :]:
            yield record
        raise JournalGapError("the journal goes from record 7 to 9")

    stream.tail = tail
    async with running(stream, store) as projector:
        await until(lambda: projector.broken_at is not None)
        assert projector.broken_at == 8
        assert projector.progress.head == book.head
