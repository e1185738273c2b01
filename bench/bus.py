"""NATS: the publisher's window, the consumer, the journal; all over a real embedded server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from facts import STARTED_AT, beat, node_name
from table import Row, rate

from remediator.bus import subjects
from remediator.bus.connection import BusConnection, connect
from remediator.bus.consumer import Consumer
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.journal_stream import NatsJournal
from remediator.bus.publisher import Publisher, PublisherSettings
from remediator.bus.streams import ensure_all
from remediator.engine.chain import Decision, DecisionKind, Head, advance, encode
from remediator.engine.model import Subject
from remediator.journal.projector import Projector
from remediator.journal.store import DecisionStore
from remediator.journal.writer import JournalWriter
from remediator.signals import wire

LIMIT_S = 120.0


async def measure(directory: Path, messages: int, records: int) -> list[Row]:
    """Return the rows of one server in ``directory``."""
    async with EmbeddedServer(directory / "nats") as server:
        connection = await connect(server.settings, "bench")
        await ensure_all(connection)
        try:
            rows = []
            few = max(200, messages // 20)
            one = await _publish(connection, few, PublisherSettings(window=1))
            one_by_one = rate("NATS", "publisher, one by one", few, one)
            many = await _publish(connection, messages, PublisherSettings())
            window = rate("NATS", "publisher, window of 256", messages, many, one_by_one)
            through = await _through(connection, messages)
            rows += [
                one_by_one,
                window,
                rate("NATS", "published and consumed in one process", messages, through, window),
            ]
            journal = NatsJournal(connection)
            rows += await _journal(journal, directory, records)
            return rows
        finally:
            await connection.close()


async def _publish(connection: BusConnection, messages: int, settings: PublisherSettings) -> float:
    """Return the seconds until so many beats of as many nodes were acknowledged."""
    publisher = Publisher(connection, settings=settings)  # its own ids: no duplicates
    running = asyncio.create_task(publisher.run())
    began = time.perf_counter()
    for number in range(messages):
        publisher.offer(_subject(number), wire.encode(beat(number, STARTED_AT).signal))
    if not await publisher.flush(LIMIT_S):
        raise TimeoutError(f"{publisher.pending} messages were not acknowledged")
    seconds = time.perf_counter() - began
    running.cancel()
    await asyncio.wait({running})
    return seconds


async def _through(connection: BusConnection, messages: int) -> float:
    """Return the seconds until so many beats were published and delivered in this process."""
    consumer = Consumer(connection)
    done = asyncio.Event()
    left = messages

    def deliver(_subject: str, _payload: bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    running = asyncio.create_task(consumer.run(deliver))
    await consumer.attached(10.0)
    began = time.perf_counter()
    await _publish(connection, messages, PublisherSettings())
    async with asyncio.timeout(LIMIT_S):
        await done.wait()
    seconds = time.perf_counter() - began
    running.cancel()
    await asyncio.wait({running})
    return seconds


async def _journal(journal: NatsJournal, directory: Path, records: int) -> list[Row]:
    writer = JournalWriter(journal)
    head = Head()
    began = time.perf_counter()
    for seq in range(1, records + 1):
        decision = Decision(
            seq=seq,
            prev=head.digest,
            at=STARTED_AT + seq,
            leader="bench",
            epoch=1,
            kind=DecisionKind.VERDICT,
            subject=Subject("node", node_name(seq % 100)),
            why="a record of the usual size, which says in a sentence or two what was decided" * 3,
        )
        payload = encode(decision)
        await writer.append(decision, payload)
        head = advance(payload, seq)
    append = rate("journal", "appended one by one", records, time.perf_counter() - began)
    store = await DecisionStore.open(directory / "journal.sqlite")
    projector = Projector(journal, store)
    began = time.perf_counter()
    running = asyncio.create_task(projector.run())
    while store.progress.head.seq < records:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.002)
    seconds = time.perf_counter() - began
    running.cancel()
    await asyncio.wait({running})
    await store.close()
    return [append, rate("journal", "projected into SQLite", records, seconds, append)]


def _subject(number: int) -> str:
    return subjects.heartbeat("lease", "node", node_name(number))
