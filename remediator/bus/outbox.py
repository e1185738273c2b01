"""What waits to be published, and what may be sent next: the publisher's rules of order."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

# Behind a marker's subject, the key of its newest waiting message; in no subject.
_NEWEST = " newest"


class Message:
    """One message on its way. ``order`` is its place among all offers.

    Of waiting messages with one ``key`` the newest is kept; it is the subject, where nothing else
    is given. ``headers`` has only a dead letter.
    """

    __slots__ = (
        "barrier",
        "deadline",
        "headers",
        "key",
        "message_id",
        "order",
        "payload",
        "subject",
        "token",
    )

    def __init__(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        order: int,
        *,
        barrier: bool,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.subject = subject
        self.key = key or subject
        self.headers = headers
        self.payload = payload
        self.message_id = message_id
        self.order = order  # a replacement inherits it
        self.barrier = barrier
        self.token = ""
        self.deadline = 0.0


class Outbox:
    """A bounded queue with the newest message per subject; see ``publisher`` for its promises.

    A subject is busy from the moment when a message of it is taken until ``settled``: meanwhile a
    newer one waits behind.
    """

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: dict[str, Message] = {}  # in order
        self._behind: dict[str, Message] = {}  # an older message of its subject is on its way
        self._urgent: deque[Message] = deque()  # was behind, is free now: older than what waits
        self._after_marker: deque[Message] = deque()  # the same, but younger than the next marker
        self._busy: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._behind) + len(self._urgent) + len(self._after_marker)

    @property
    def half_empty(self) -> bool:
        """Whether there is room again after an overflow."""
        return len(self) <= self._messages_max // 2 and self._bytes <= self._bytes_max // 2

    def put(self, message: Message) -> bool:
        """Queue the message; return False if there was no room for it."""
        waiting = self._waiting.get(message.key)
        message.barrier = message.barrier or (waiting is not None and waiting.barrier)
        if self._replace(message):
            return True
        size = len(message.payload)
        if len(self) >= self._messages_max or self._bytes + size > self._bytes_max:
            return False
        self._bytes += size
        if message.barrier and waiting is not None:
            self._waiting[message.key + _NEWEST] = message
        elif message.key in self._busy and not message.barrier:
            self._behind[message.key] = message
        else:
            self._waiting[message.key] = message
        return True

    def take(self, *, settled: bool) -> Message | None:
        """Take the message to send now; None when there is none, or a marker has to wait.

        ``settled``: whether every message taken so far was acknowledged or refused.
        """
        if self._urgent:
            return self._taken(self._urgent.popleft())
        if not self._waiting:
            return None
        key, message = next(iter(self._waiting.items()))
        if message.barrier and not settled:
            return None
        del self._waiting[key]
        if message.barrier:
            self._urgent.extend(self._after_marker)
            self._after_marker.clear()
        return self._taken(message)

    def settled(self, key: str) -> None:
        """Let the next message of the key go."""
        behind = self._behind.pop(key, None)
        if behind is None:
            self._busy.discard(key)
            return
        # The subject stays busy: what comes next waits behind this one.
        first = next(iter(self._waiting.values()), None)
        younger = first is not None and first.barrier and behind.order > first.order
        (self._after_marker if younger else self._urgent).append(behind)

    def _taken(self, message: Message) -> Message:
        self._bytes -= len(message.payload)
        self._busy.add(message.key)
        return message

    def _replace(self, newer: Message) -> bool:
        """Put ``newer`` in the place of a waiting message of its subject, if it may take it."""
        if newer.barrier:
            # It vouches for all before it, so it may not inherit a place: the end is its own.
            older = self._waiting.pop(newer.key + _NEWEST, None)
            if older is not None:
                self._bytes -= len(older.payload)
            return False
        for queue in (self._waiting, self._behind):
            older = queue.get(newer.key)
            if older is not None:
                self._bytes += len(newer.payload) - len(older.payload)
                newer.order = older.order
                queue[newer.key] = newer
                return True
        return False
