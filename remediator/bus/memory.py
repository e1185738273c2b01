"""The bus and the journal in memory, for simulations on virtual time; same semantics, no server.

``tests/bus/test_conformance.py`` holds both journals to the same behaviour. Faults are injected by
plain attributes; nothing here reads a real clock or draws a random number.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from remediator.bus import subjects
from remediator.bus.protocols import AppendRefusedError, BusUnavailableError, StoredRecord

BURIED_KEPT = 1000
IDS_KEPT = 100_000  # ids remembered for duplicates, as JetStream's window bounds them by time


class MemoryBus:
    """An EventPublisher, a DeadLetterOffice and an EventSource in one.

    ``outage``: while True nothing arrives and the newest message per subject is kept, as with NATS
    away. ``delay_s``: how long each message travels. A source receives what is stored after its
    ``run`` began. Counters as in ``Publisher``.
    """

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.published = 0
        self.duplicates = 0
        self.replaced = 0
        self.buried: deque[tuple[str, bytes, dict[str, str]]] = deque(maxlen=BURIED_KEPT)
        self._outage = False
        self._waiting: dict[str, tuple[bytes, str | None]] = {}
        self._seen_ids: dict[str, None] = {}
        self._inboxes: list[_Inbox] = []
        self._attached = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()

    @property
    def outage(self) -> bool:
        """Whether the bus is away; set it to inject a fault."""
        return self._outage

    @outage.setter
    def outage(self, away: bool) -> None:
        self._outage = away
        if away:
            return
        waiting, self._waiting = self._waiting, {}
        for subject, (payload, message_id) in waiting.items():
            self._store(subject, payload, message_id)
        self._flushed.set()

    @property
    def pending(self) -> int:
        """Messages that wait for the end of the outage."""
        return len(self._waiting)

    def offer(
        self, subject: str, payload: bytes, *, message_id: str | None = None, barrier: bool = False
    ) -> None:
        """Store one message now, or keep it while the bus is away (newest per subject)."""
        if not self._outage:
            self._store(subject, payload, message_id)
            return
        self.replaced += subject in self._waiting
        if barrier or subjects.is_marker(subject):
            self._waiting.pop(subject, None)  # vouches for all before it: to the end
        self._waiting[subject] = (payload, message_id)
        self._flushed.clear()

    def bury(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Keep the newest dead letters, for tests to look at; they are delivered to nobody."""
        self.buried.append((subject, payload, dict(headers)))

    async def flush(self, deadline_s: float) -> bool:
        """Wait until nothing is pending, at most ``deadline_s``; return whether that came true."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._flushed.wait()
        except TimeoutError:
            return False
        return True

    async def run(self, deliver: Callable[[str, bytes], None]) -> None:
        """Deliver each message stored from now on, in order, until cancelled."""
        loop = asyncio.get_running_loop()
        inbox = _Inbox()
        self._inboxes.append(inbox)
        self._attached.set()
        try:
            while True:
                while inbox.messages:
                    due_at, subject, payload = inbox.messages[0]
                    if due_at > loop.time():
                        await asyncio.sleep(due_at - loop.time())
                    inbox.messages.popleft()
                    deliver(subject, payload)
                inbox.arrived.clear()
                await inbox.arrived.wait()
        finally:
            self._inboxes.remove(inbox)
            if not self._inboxes:
                self._attached.clear()

    async def attached(self, timeout_s: float) -> None:
        """Wait until a source runs. Raises BusUnavailableError after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._attached.wait()
        except TimeoutError as error:
            raise BusUnavailableError(f"no stream to follow in {timeout_s:g} s") from error

    def _store(self, subject: str, payload: bytes, message_id: str | None) -> None:
        self.published += 1
        if message_id is not None:
            if message_id in self._seen_ids:
                self.duplicates += 1
                return
            self._seen_ids[message_id] = None
            if len(self._seen_ids) > IDS_KEPT:
                del self._seen_ids[next(iter(self._seen_ids))]
        due_at = asyncio.get_running_loop().time() + self.delay_s
        for inbox in self._inboxes:
            inbox.messages.append((due_at, subject, payload))
            inbox.arrived.set()


class MemoryAsks:
    """An AskChannel for all who share it. ``outage``: calls made meanwhile are lost."""

    def __init__(self) -> None:
        self.outage = False
        self.asked: list[str] = []
        self._listeners: list[Callable[[str], None]] = []

    def ask(self, node: str) -> None:
        """Call whoever listens, in a later turn of the event loop."""
        if self.outage:
            return
        self.asked.append(node)
        loop = asyncio.get_running_loop()
        for heard in self._listeners:
            loop.call_soon(heard, node)

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call ``heard`` with each node that is asked for, until cancelled."""
        self._listeners.append(heard)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._listeners.remove(heard)


class MemoryPace:
    """A PaceChannel for all who share it. ``outage``: what is told meanwhile is lost."""

    def __init__(self) -> None:
        self.outage = False
        self._listeners: list[Callable[[bytes], None]] = []

    def tell(self, payload: bytes) -> None:
        """Tell whoever listens, in a later turn of the event loop."""
        if self.outage:
            return
        loop = asyncio.get_running_loop()
        for heard in self._listeners:
            loop.call_soon(heard, payload)

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        """Call ``heard`` with each word of a leader, until cancelled."""
        self._listeners.append(heard)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._listeners.remove(heard)


class _Inbox:
    """What one running source has still to deliver."""

    def __init__(self) -> None:
        self.messages: deque[tuple[float, str, bytes]] = deque()
        self.arrived = asyncio.Event()


class _Log:
    """The records, shared by all writers; the id of each record for repeats."""

    def __init__(self) -> None:
        self.records: list[StoredRecord] = []
        self.ids: list[str] = []
        self.seq_of: dict[str, int] = {}
        self.grown = asyncio.Event()

    def add(self, subject: str, payload: bytes, message_id: str) -> int:
        seq = len(self.records) + 1
        self.records.append(StoredRecord(seq, subject, payload))
        self.ids.append(message_id)
        self.seq_of[message_id] = seq
        grown, self.grown = self.grown, asyncio.Event()
        grown.set()
        return seq

    def holds(self, seq: int, payload: bytes, message_id: str) -> bool:
        return (
            0 < seq <= len(self.records)
            and self.records[seq - 1].payload == payload
            and self.ids[seq - 1] == message_id
        )


class MemoryJournal:
    """A JournalStream in memory, and ``tail``. ``twin`` gives a second writer on the same records.

    Faults of this writer: ``outage`` (nothing answers; appends wait for its end until
    ``append_deadline_s``), ``lose_acks`` (that many appends are stored but not acknowledged),
    ``refuse`` (that many appends are refused as if another leader had written),
    ``append_delay_s`` (each append takes so long).
    """

    def __init__(self, *, append_deadline_s: float = 10.0, append_delay_s: float = 0.0) -> None:
        self.append_deadline_s = append_deadline_s
        self.append_delay_s = append_delay_s
        self._reachable = asyncio.Event()
        self._reachable.set()
        self.lose_acks = 0
        self.refuse = 0
        self._log = _Log()

    @property
    def outage(self) -> bool:
        """Whether the journal is away; set it to inject a fault."""
        return not self._reachable.is_set()

    @outage.setter
    def outage(self, away: bool) -> None:
        if away:
            self._reachable.clear()
        else:
            self._reachable.set()

    def twin(self) -> MemoryJournal:
        """Return another writer and reader of the same records, with no faults."""
        other = MemoryJournal(append_deadline_s=self.append_deadline_s)
        other._log = self._log
        return other

    @property
    def records(self) -> list[StoredRecord]:
        """The records themselves: a test may look at them, or change one."""
        return self._log.records

    async def append(
        self, subject: str, payload: bytes, *, expected_last_seq: int, message_id: str
    ) -> int:
        """Append if nobody else did; see ``JournalStream.append``."""
        deadline = asyncio.get_running_loop().time() + self.append_deadline_s
        if self.append_delay_s:
            await asyncio.sleep(self.append_delay_s)
        await self._wait_reachable(deadline)
        if self.refuse > 0:
            self.refuse -= 1
            raise AppendRefusedError("refused by an injected fault")
        seq = self._place(subject, payload, expected_last_seq, message_id)
        if self.lose_acks > 0:
            self.lose_acks -= 1
            await asyncio.sleep(max(0.0, deadline - asyncio.get_running_loop().time()))
            raise BusUnavailableError(
                "the journal did not acknowledge; whether the record was stored is unknown"
            )
        return seq

    async def read(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield what is stored now, in order. Raises BusUnavailableError."""
        last = await self.last_seq()
        for seq in range(max(1, from_seq), last + 1):
            if self.outage:
                raise BusUnavailableError("the journal is away")
            yield self._log.records[seq - 1]

    async def tail(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield every record from ``from_seq`` on, then each new one, until closed."""
        seq = max(1, from_seq)
        while True:
            await self._reachable.wait()
            if seq <= len(self._log.records):
                yield self._log.records[seq - 1]
                seq += 1
            else:
                await self._log.grown.wait()

    async def last_seq(self) -> int:
        """Return the last sequence, 0 when empty. Raises BusUnavailableError."""
        if self.outage:
            raise BusUnavailableError("the journal is away")
        return len(self._log.records)

    async def _wait_reachable(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._reachable.wait()
        except TimeoutError as error:
            raise BusUnavailableError(
                f"the journal did not acknowledge in {self.append_deadline_s:g} s"
            ) from error

    def _place(self, subject: str, payload: bytes, expected_last_seq: int, message_id: str) -> int:
        log = self._log
        if len(log.records) != expected_last_seq:
            if log.holds(expected_last_seq + 1, payload, message_id):
                return expected_last_seq + 1
            raise AppendRefusedError(
                f"the journal does not end at {expected_last_seq}: it ends at {len(log.records)}"
            )
        seq = log.seq_of.get(message_id, 0)
        if seq:
            if log.holds(seq, payload, message_id):
                return seq
            raise AppendRefusedError(f"message id {message_id} is taken by another record ({seq})")
        return log.add(subject, payload, message_id)
