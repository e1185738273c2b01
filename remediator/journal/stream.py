"""What the projector needs of the bus beyond appending and reading: following for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from remediator.bus.protocols import JournalStream, StoredRecord


class FollowedStream(JournalStream, Protocol):
    """A journal stream whose records can be followed as they are appended."""

    def tail(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield every record from ``from_seq`` on, in order, and then each new one, for ever.

        Raises BusUnavailableError when the following breaks; the caller starts again.
        """
        ...
