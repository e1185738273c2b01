"""Walking the decision chain from its first record to its head."""

from __future__ import annotations

import msgspec

from remediator.bus.journal_stream import JournalGapError
from remediator.cli.sources import DecisionSource
from remediator.engine.chain import ChainError, Head
from remediator.journal.links import check_link


class ChainReport(msgspec.Struct, frozen=True):
    """What the walk found, in one or two lines."""

    sound: bool
    text: str


async def walk_chain(source: DecisionSource) -> ChainReport:
    """Check every link; stops at the first that does not fit."""
    head = Head()
    try:
        async for record in source.walk():
            head, _ = check_link(head, record.seq, record.payload)
    except ChainError as error:
        return ChainReport(
            sound=False,
            text=f"BROKEN at record {error.seq}: {error.problem}\n"
            f"records 1 to {min(head.seq, error.seq - 1)} are sound; read from {source.name}",
        )
    except JournalGapError as error:
        return ChainReport(
            sound=False,
            text=f"BROKEN at record {head.seq + 1}: missing: {error}\n"
            f"records 1 to {head.seq} are sound; read from {source.name}",
        )
    if head.seq == 0:
        return ChainReport(sound=True, text=f"{source.name} holds no record yet")
    return ChainReport(
        sound=True,
        text=f"{head.seq} records, every link holds; read from {source.name}\nhead {head.digest}",
    )
