"""One client's way to the bus and the journal in memory, which may be cut while others' are whole.

As with NATS: what is offered meanwhile waits, newest per subject; what others publish is missed; an
append stays unacknowledged until its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from remediator.bus.memory import MemoryAsks, MemoryBus, MemoryPace
from remediator.bus.protocols import BusUnavailableError, JournalStream, StoredRecord

APPEND_DEADLINE_S = 10.0
Deliver = Callable[[str, bytes], None]


class BusLink:
    """A publisher, a source and an ask channel over one connection. ``whole``: it works now."""

    def __init__(self, bus: MemoryBus, asks: MemoryAsks, whole: Callable[[], bool]) -> None:
        self._bus = bus
        self._asks = asks
        self._whole = whole
        self._waiting: dict[str, tuple[bytes, dict[str, Any]]] = {}
        self._mended = asyncio.Event()
        self.was_cut = False
        self.latency_s = 0.002

    @property
    def pending(self) -> int:
        """Messages that wait for this line, or for the bus."""
        return len(self._waiting) + self._bus.pending

    def offer(self, subject: str, payload: bytes, **how: Any) -> None:
        """Send one message, or keep it while the line is cut (newest per subject)."""
        if self._whole():
            self._bus.offer(subject, payload, **how)
        else:
            self._waiting.pop(subject, None)
            self._waiting[subject] = (payload, how)

    async def flush(self, deadline_s: float) -> bool:
        """Wait until nothing is pending, at most ``deadline_s``; return whether that came true."""
        try:
            async with asyncio.timeout(deadline_s):
                while not self._whole():
                    await self._mended.wait()
        except TimeoutError:
            return False
        return await self._bus.flush(deadline_s)

    def refresh(self) -> bool:
        """Look at the line again; True when it has just been mended."""
        if not self._whole():
            self.was_cut = True
            return False
        if not self.was_cut:
            return False
        self.was_cut = False
        waiting, self._waiting = self._waiting, {}
        for subject, (payload, how) in waiting.items():
            self._bus.offer(subject, payload, **how)
        mended, self._mended = self._mended, asyncio.Event()
        mended.set()
        return True

    async def run(self, deliver: Deliver) -> None:
        """Deliver what is stored from now on while the line holds, until cancelled."""

        def pass_on(subject: str, payload: bytes) -> None:
            if self._whole():
                deliver(subject, payload)

        await self._bus.run(pass_on)

    async def attached(self, timeout_s: float) -> None:
        """Wait until a source runs. Raises BusUnavailableError."""
        if not self._whole():
            await asyncio.sleep(timeout_s)
            raise BusUnavailableError(f"no stream to follow in {timeout_s:g} s")
        await self._bus.attached(timeout_s)

    async def round_trip(self, timeout_s: float) -> None:
        """To the bus and back; raises BusUnavailableError where that takes too long."""
        works = self._whole() and not self._bus.outage
        await asyncio.sleep(min(self.latency_s, timeout_s) if works else timeout_s)
        if not works or self.latency_s >= timeout_s:
            raise BusUnavailableError(f"no answer within {timeout_s:g} s")

    def ask(self, node: str) -> None:
        """Ask whoever listens for probes of a node."""
        if self._whole():
            self._asks.ask(node)

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call ``heard`` with each node that is asked for, until cancelled."""

        def pass_on(node: str) -> None:
            if self._whole():
                heard(node)

        await self._asks.listen(pass_on)


class PaceLink:
    """One client's way to the leader's word on the pace."""

    def __init__(self, pace: MemoryPace, whole: Callable[[], bool]) -> None:
        self._pace = pace
        self._whole = whole

    def tell(self, payload: bytes) -> None:
        """See ``PaceChannel``."""
        if self._whole():
            self._pace.tell(payload)

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        """See ``PaceChannel``."""

        def pass_on(payload: bytes) -> None:
            if self._whole():
                heard(payload)

        await self._pace.listen(pass_on)


class JournalLink:
    """One client's way to the journal."""

    def __init__(self, inner: JournalStream, whole: Callable[[], bool]) -> None:
        self._inner = inner
        self._whole = whole

    async def append(
        self, subject: str, payload: bytes, *, expected_last_seq: int, message_id: str
    ) -> int:
        """Append as the journal does, once the line holds. Raises BusUnavailableError."""
        await self._passed()
        return await self._inner.append(
            subject, payload, expected_last_seq=expected_last_seq, message_id=message_id
        )

    async def read(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield the records that are stored now, while the line holds."""
        self._check()
        async for record in self._inner.read(from_seq):
            self._check()
            yield record

    async def last_seq(self) -> int:
        """Return the last sequence. Raises BusUnavailableError."""
        self._check()
        return await self._inner.last_seq()

    def _check(self) -> None:
        if not self._whole():
            raise BusUnavailableError("the journal cannot be reached")

    async def _passed(self) -> None:
        """Wait for the line, as long as an append waits for its acknowledgement."""
        deadline = asyncio.get_running_loop().time() + APPEND_DEADLINE_S
        while not self._whole():
            if asyncio.get_running_loop().time() >= deadline:
                raise BusUnavailableError(
                    f"the journal did not acknowledge in {APPEND_DEADLINE_S:g} s"
                )
            await asyncio.sleep(0.1)
