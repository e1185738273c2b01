"""Reading the journal back, link by link: a new leader's memory, and the walk of ``verify``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from remediator.bus.journal_stream import JournalGapError
from remediator.bus.protocols import JournalStream
from remediator.engine.chain import ChainError, Decision, Head
from remediator.journal.links import check_link


async def replay(
    stream: JournalStream, head: Head | None = None
) -> AsyncIterator[tuple[Decision, bytes]]:
    """Yield every stored record after ``head`` (by default all), checking each link of the chain.

    Raises ChainError, which names the first bad sequence, and BusUnavailableError.
    """
    current = head or Head()
    try:
        async for record in stream.read(current.seq + 1):
            current, decision = check_link(current, record.seq, record.payload)
            yield decision, record.payload
    except JournalGapError as error:
        raise ChainError(current.seq + 1, f"missing: {error}") from error
