"""The projection off the event loop: one thread writes, another reads, each its own connection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from remediator.bus.protocols import StoredRecord
from remediator.engine.chain import Head
from remediator.journal import projection, schema
from remediator.journal import query as queries
from remediator.journal.projection import Break, Progress
from remediator.journal.query import DecisionQuery, StoredDecision
from remediator.journal.schema import StoreError

T = TypeVar("T")


class StoreLostError(Exception):
    """The file was deleted, replaced or damaged under us; a new, empty one has been begun."""


class DecisionStore:
    """The local SQLite projection. Make it with ``await DecisionStore.open(path)``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.progress = Progress(Head(), None)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="journal-write")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="journal-read")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._inode = -1
        self._reader_inode = -1

    @classmethod
    async def open(cls, path: Path) -> DecisionStore:
        """Open or make the file. Raises StoreError."""
        store = cls(path)
        try:
            await store._write(store._open)
        except BaseException:
            await store.close()
            raise
        return store

    async def project(self, records: Sequence[StoredRecord]) -> Progress:
        """Add records. With none, only see whether the file is still there.

        Raises StoreLostError (start again from its new ``progress``), StoreError (for example a
        full disk: nothing was added, try later).
        """
        return await self._write(lambda: self._project(records))

    async def mark_broken(self, broken: Break) -> Progress:
        """Remember a break of the chain that the stream itself told. Raises like ``project``."""
        return await self._write(
            lambda: self._change(lambda writer: projection.mark_broken(writer, broken))
        )

    async def restart(self) -> None:
        """Begin again with an empty file; the old one is deleted. Raises StoreError."""
        await self._write(self._restart)

    async def select(self, query: DecisionQuery) -> list[StoredDecision]:
        """Return one page of records. Raises StoreError."""
        return await self._read(lambda connection: queries.select(connection, query))

    async def get(self, seq: int) -> StoredDecision | None:
        """Return one record. Raises StoreError."""
        return await self._read(lambda connection: queries.get(connection, seq))

    async def story(self, incident: str) -> list[StoredDecision]:
        """Return an incident's records, oldest first. Raises StoreError."""
        return await self._read(lambda connection: queries.story(connection, incident))

    async def close(self) -> None:
        """Close both connections and end both threads."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._close_reader)
        await loop.run_in_executor(self._writing, self._close_writer)
        self._reading.shutdown(wait=False)
        self._writing.shutdown(wait=False)

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._reading, lambda: self._read_here(work)
        )

    # Below: on the writer's thread.

    def _open(self) -> None:
        self.progress = Progress(Head(), None)  # nobody may see the old file's while this opens
        self._writer = schema.open_for_writing(self.path)
        self._inode = self.path.stat().st_ino
        self.progress = projection.progress(self._writer)

    def _project(self, records: Sequence[StoredRecord]) -> Progress:
        return self._change(
            lambda writer: projection.project(writer, records) if records else self.progress
        )

    def _change(self, change: Callable[[sqlite3.Connection], Progress]) -> Progress:
        if self._writer is None:  # an earlier reopening failed; try it again
            self._open()
            raise StoreLostError(f"{self.path}: opened again")
        if not self._is_there():
            self._close_writer()
            self._open()
            raise StoreLostError(f"{self.path}: was deleted or replaced")
        try:
            self.progress = change(self._writer)
        except sqlite3.OperationalError as error:  # full disk, locked, I/O
            raise StoreError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:  # damaged
            self._close_writer()
            schema.move_aside(self.path)
            self._open()
            raise StoreLostError(f"{self.path}: is damaged ({error})") from error
        return self.progress

    def _restart(self) -> None:
        self._close_writer()
        if self._is_there():
            # It may be the only whole copy left, where NATS has lost its end.
            schema.move_aside(self.path)
        self._open()

    def _is_there(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def _close_writer(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(sqlite3.Error):  # a damaged file may not close cleanly
                self._writer.close()
            self._writer = None

    # Below: on the reader's thread.

    def _read_here(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._reader is None or self._reader_inode != self.path.stat().st_ino:
                self._close_reader()
                self._reader = schema.open_for_reading(self.path)
                self._reader_inode = self.path.stat().st_ino
            return work(self._reader)
        except (OSError, sqlite3.Error) as error:
            self._close_reader()  # the next question opens the file anew
            raise StoreError(f"{self.path}: cannot be read: {error}") from error

    def _close_reader(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(sqlite3.Error):
                self._reader.close()
            self._reader = None
