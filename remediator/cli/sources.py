"""Where ``remediator decisions`` reads from: a SQLite file, or NATS (the API: http_source.py)."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import click
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

    async def last_seq(self) -> int:
        """Return about how many records ``walk`` will yield, for progress bars; 0: not known."""
        ...


async def follow(source: DecisionSource, query: DecisionQuery) -> AsyncIterator[StoredDecision]:
    """Yield what matches ``query`` (which has ``after_seq``), then what comes, for ever.

    A source that goes away (a daemon that restarts) is waited for: who follows, waits anyway.
    """
    after = query.after_seq or 0
    away = False
    while True:
        question = msgspec.structs.replace(query, after_seq=after, limit=LIMIT_MAX)
        try:
            page = await source.select(question)
        except CommandError as error:
            if error.code is ExitCode.USAGE:
                raise
            if not away:
                click.echo(f"remediator: {error.message}; waiting for it", err=True)
            away = True
            await asyncio.sleep(POLL_S)
            continue
        away = False
        for one in page:
            yield one
            after = one.seq
        if len(page) < LIMIT_MAX:
            await asyncio.sleep(POLL_S)


class SqliteSource:
    """A projection's file, opened read-only; the daemon may be running or not."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        with self._readable():
            self._open()

    async def select(self, query: DecisionQuery) -> list[StoredDecision]:
        """Return one page."""
        with self._readable():
            return queries.select(self._open(), query)

    async def get(self, seq: int) -> StoredDecision | None:
        """Return one record."""
        with self._readable():
            return queries.get(self._open(), seq)

    async def walk(self) -> AsyncIterator[StoredRecord]:
        """Yield every record, also those that could not be read as decisions."""
        with self._readable():
            for seq, payload in self._open().execute(
                "SELECT seq, payload FROM decisions"
                " UNION ALL SELECT seq, payload FROM unreadable ORDER BY seq"
            ):
                yield StoredRecord(seq, "", payload)

    async def last_seq(self) -> int:
        """Return the newest record's sequence."""
        with self._readable():
            (newest,) = self._open().execute("SELECT max(seq) FROM decisions").fetchone()
        return newest or 0

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        """Return the connection to the file that stands there now: the daemon may begin anew."""
        inode = self._path.stat().st_ino if self._path.exists() else -1
        if self._connection is None or inode != self._inode:
            self.close()
            self._connection = schema.open_for_reading(self._path)
            self._inode = inode
        return self._connection

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except schema.StoreError as error:
            raise CommandError(ExitCode.JOURNAL, str(error)) from error
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

    async def last_seq(self) -> int:
        """Return the stream's last sequence."""
        return await self._stream.last_seq()

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
