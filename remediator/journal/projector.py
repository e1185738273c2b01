"""Keeps the SQLite projection up to date with the journal's stream, for as long as the daemon runs.

A broken link does not stop it. It is logged as an error once, kept in the file, shown on /readyz
and as a metric, and named by ``remediator decisions verify``; what follows it is projected all the
same, because an operator needs the log most when something is wrong with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog

from remediator.backoff import Backoff
from remediator.bus.journal_stream import JournalGapError
from remediator.bus.protocols import BusUnavailableError, StoredRecord
from remediator.engine.chain import advance
from remediator.journal.projection import Break, Progress
from remediator.journal.schema import StoreError
from remediator.journal.store import DecisionStore, StoreLostError
from remediator.journal.stream import FollowedStream
from remediator.metrics import METRICS, Metrics

_log = structlog.get_logger(__name__)

BATCH_MAX = 500  # one transaction; at 31 k rows a second that is 16 ms
QUEUE_MAX = 2 * BATCH_MAX
LOOK_EVERY_S = 5.0  # how often an idle projector sees whether somebody deleted the file


class Projector:
    """Follows the stream into the store."""

    def __init__(
        self,
        stream: FollowedStream,
        store: DecisionStore,
        *,
        backoff: Backoff | None = None,
        metrics: Metrics = METRICS,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._stream = stream
        self._store = store
        self._backoff = backoff or Backoff(base_s=0.2, cap_s=10.0)
        self._metrics = metrics
        self._look_every_s = look_every_s
        self._told: Break | None = None

    @property
    def progress(self) -> Progress:
        """How far the projection is."""
        return self._store.progress

    @property
    def broken_at(self) -> int | None:
        """The first bad sequence of the chain, if one was found."""
        broken = self._store.progress.broken
        return broken.seq if broken else None

    async def run(self) -> None:
        """Project until cancelled; every trouble is logged and met with another try."""
        while True:
            await self._attempt()
            await asyncio.sleep(self._backoff.next_s(at_least_s=0.05))

    async def _attempt(self) -> None:
        """Follow until something goes wrong, and say what."""
        try:
            await self._begin()
            await self._follow()
        except* StoreLostError as group:
            _log.warning("projection_rebuilding", why=_first(group))
        except* BusUnavailableError as group:
            _log.warning("projection_waits_for_nats", why=_first(group))
        except* StoreError as group:
            _log.error("projection_stalled", why=_first(group))
        except* JournalGapError as group:
            # The stream refuses to go on over a hole; what stands before it has been projected.
            _log.error("projection_stalled", why=_first(group))
            await self._mark(Break(self.progress.head.seq + 1, f"missing: {_first(group)}"))

    async def _mark(self, broken: Break) -> None:
        try:
            self._show(await self._store.mark_broken(broken))
        except (StoreLostError, StoreError) as error:
            _log.error("projection_stalled", why=str(error))  # the next attempt finds it again

    async def _begin(self) -> None:
        """Make sure that the file is about this stream, and not about an earlier or other one."""
        head = self._store.progress.head
        if head.seq == 0:
            return
        if await self._stream.last_seq() >= head.seq:
            async for record in self._stream.read(head.seq):
                if record.seq == head.seq and advance(record.payload, head.seq) == head:
                    return
                break
        _log.warning(
            "projection_is_of_another_journal", path=str(self._store.path), projected=head.seq
        )
        await self._store.restart()

    async def _follow(self) -> None:
        queue: asyncio.Queue[StoredRecord | Exception] = asyncio.Queue(QUEUE_MAX)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fill(queue))
            while True:
                batch, ended = await self._batch(queue)
                self._show(await self._store.project(batch))
                if batch:
                    self._backoff.reset()
                if ended is not None:
                    raise ended

    async def _fill(self, queue: asyncio.Queue[StoredRecord | Exception]) -> None:
        """Read ahead; what ends the reading comes last, so that all before it is projected."""
        records: AsyncIterator[StoredRecord] = self._stream.tail(self._store.progress.head.seq + 1)
        try:
            async for record in records:
                await queue.put(record)
        except (BusUnavailableError, JournalGapError) as error:
            await queue.put(error)
        else:
            await queue.put(BusUnavailableError("the stream ended instead of being followed"))

    async def _batch(
        self, queue: asyncio.Queue[StoredRecord | Exception]
    ) -> tuple[list[StoredRecord], Exception | None]:
        """Return what has come, and what ended it; nothing after a quiet while."""
        batch: list[StoredRecord] = []
        try:
            async with asyncio.timeout(self._look_every_s):
                item = await queue.get()
        except TimeoutError:
            return batch, None
        while isinstance(item, StoredRecord):
            batch.append(item)
            if len(batch) == BATCH_MAX or queue.empty():
                return batch, None
            item = queue.get_nowait()
        return batch, item

    def _show(self, progress: Progress) -> None:
        self._metrics.projected_head.set(progress.head.seq)
        self._metrics.journal_broken.set(1 if progress.broken else 0)
        if progress.broken is not None and progress.broken != self._told:
            self._told = progress.broken
            _log.error(
                "journal_chain_broken",
                seq=progress.broken.seq,
                problem=progress.broken.problem,
                advice="run: remediator decisions verify",
            )


def _first(group: BaseExceptionGroup[Exception]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
