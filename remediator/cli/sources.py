"""Where ``remediator decisions`` reads from: a SQLite file, or NATS (the API: http_source.py)."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from remediator.bus.protocols import JournalStream, StoredRecord
from remediator.cli.entry import CommandError
from remediator.exit_codes import ExitCode
from remediator.journal import query as queries
from remediator.journal import schema
from remediator.journal.query import LIMIT_MAX, DecisionQuery, StoredDecision

POLL_S = 0.5  # how often following asks for more


class DecisionSource(Protocol):
    """One place to read decisions from."""

    name: str

    async def select(self, query: DecisionQuery) -> list[StoredDecision]:
        """Return one page."""
        ...

    async def get(self, seq: int) -> StoredDecision | None:
        """Return one record."""
        ...

    def walk(self) -> AsyncIterator[StoredRecord]:
        """Yield every record's sequence and bytes, oldest first, to check the chain."""
        ...


async def follow(source: DecisionSource, query: DecisionQuery) -> AsyncIterator[StoredDecision]:
    """Yield what matches ``query`` (which has ``after_seq``), then what comes, for ever."""
    after = query.after_seq or 0
    while True:
        page = await source.select(msgspec.structs.replace(query, after_seq=after, limit=LIMIT_MAX))
        for one in page:
            yield one
            after = one.seq
        if len(page) < LIMIT_MAX:
            await asyncio.sleep(POLL_S)


class SqliteSource:
    """A projection's file, opened read-only; the daemon may be running or not."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._connection = schema.open_for_reading(path)
        except schema.StoreError as error:
            raise CommandError(ExitCode.JOURNAL, str(error)) from error

    async def select(self, query: DecisionQuery) -> list[StoredDecision]:
        """Return one page."""
        with self._readable():
            return queries.select(self._connection, query)

    async def get(self, seq: int) -> StoredDecision | None:
        """Return one record."""
        with self._readable():
            return queries.get(self._connection, seq)

    async def walk(self) -> AsyncIterator[StoredRecord]:
        """Yield every record, also those that could not be read as decisions."""
        with self._readable():
            for seq, payload in self._connection.execute(
                "SELECT seq, payload FROM decisions"
                " UNION ALL SELECT seq, payload FROM unreadable ORDER BY seq"
            ):
                yield StoredRecord(seq, "", payload)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def _readable(self) -> Any:
        try:
            yield
        except sqlite3.Error as error:
            raise CommandError(ExitCode.JOURNAL, f"{self.name}: cannot be read: {error}") from error


class StreamSource:
    """The journal's stream itself, read into a projection in memory before the first answer."""

    def __init__(self, stream: JournalStream, name: str) -> None:
        self.name = name
        self._stream = stream
        self._connection = schema.open_in_memory()

    async def select(self, query: DecisionQuery) -> list[StoredDecision]:
        """Return one page."""
        await self._catch_up()
        return queries.select(self._connection, query)

    async def get(self, seq: int) -> StoredDecision | None:
        """Return one record."""
        await self._catch_up()
        return queries.get(self._connection, seq)

    async def walk(self) -> AsyncIterator[StoredRecord]:
        """Yield every record of the stream."""
        async for record in self._stream.read(1):
            yield record

    def close(self) -> None:
        """Forget the projection."""
        self._connection.close()

    async def _catch_up(self) -> None:
        from remediator.journal import projection  # noqa: PLC0415 - only this source projects

        head = projection.progress(self._connection).head
        batch: list[StoredRecord] = []
        async for record in self._stream.read(head.seq + 1):
            batch.append(record)
            if len(batch) == LIMIT_MAX:
                projection.project(self._connection, batch)
                batch = []
        projection.project(self._connection, batch)
