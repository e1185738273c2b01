"""What the daemon needs of the bus. NATS implements it; simulations run it in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

import msgspec


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """One message of the journal's stream."""

    seq: int
    subject: str
    payload: bytes


class AppendRefusedError(Exception):
    """The journal does not end where we left it: somebody else appended. We are deposed."""


class BusUnavailableError(Exception):
    """NATS did not answer in time; whether the message was stored is unknown."""


class NobodyAnswersError(BusUnavailableError):
    """NATS is there, but nobody listens on the subject that was asked."""


class JournalStream(Protocol):
    """The append-only stream of decisions."""

    async def append(
        self, subject: str, payload: bytes, *, expected_last_seq: int, message_id: str
    ) -> int:
        """Append if the stream's last sequence is as expected; return the new sequence.

        Repeats itself, under the same id, until acknowledged or until its deadline: a repeat of a
        message that was stored returns the sequence it was stored under.
        Raises AppendRefusedError (deposed), BusUnavailableError (deadline passed; outcome unknown).
        """
        ...

    def read(self, from_seq: int) -> AsyncIterator[StoredRecord]:
        """Yield every record from ``from_seq`` on that is stored now, in order, and end.

        Raises BusUnavailableError.
        """
        ...

    async def last_seq(self) -> int:
        """Return the stream's last sequence, 0 when it is empty. Raises BusUnavailableError."""
        ...


class EventPublisher(Protocol):
    """Sends observations to whoever listens; never blocks a watcher."""

    @property
    def pending(self) -> int:
        """Messages offered that NATS has not taken yet."""
        ...

    def offer(self, subject: str, payload: bytes, *, message_id: str | None = None) -> None:
        """Queue one message. While NATS is away the newest message per subject is kept."""
        ...


class DeadLetterOffice(Protocol):
    """Where messages that cannot be used are put aside, for a person to look at."""

    def bury(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Queue one message; none takes another's place. Never blocks."""
        ...


class EventSource(Protocol):
    """Delivers observations to the leader's engine, in the order in which NATS stored them."""

    async def run(self, deliver: Callable[[str, bytes], None]) -> None:
        """Deliver ``(subject, payload)`` of each new message until cancelled."""
        ...


class AskChannel(Protocol):
    """Calls to every vantage point, sent once, to whoever listens now."""

    def ask(self, node: str) -> None:
        """Ask for probes of a node. Never blocks, never fails: a lost call is made again."""
        ...

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call ``heard`` with each node that is asked for, until cancelled."""
        ...


class PaceChannel(Protocol):
    """The leader's word on how many launcher pods may start, to whoever listens now."""

    def tell(self, payload: bytes) -> None:
        """Tell every replica. Never blocks, never fails: it is said again every second."""
        ...

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        """Call ``heard`` with each word of a leader, until cancelled."""
        ...
