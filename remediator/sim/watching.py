"""What changed and when: the window of recent events that watches and old lists are served from.

As kube-apiserver's watch cache (``storage/cacher``): each kind keeps its last events; a watch that
starts before the window is told 410 Expired. Every stored version is encoded to JSON once, and
every event line once, however many watchers and lists it goes to.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

encode_json = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode


def copy_json(value: Any) -> Any:
    """Return a deep copy of a JSON value (through its text: several times faster than deepcopy)."""
    return decode_json(encode_json(value))


class StoredObject:
    """One version of one object. Its ``obj`` is never changed."""

    __slots__ = ("_encoded", "key", "obj", "version")

    def __init__(self, key: str, obj: dict[str, Any], version: int) -> None:
        self.key = key
        self.obj = obj
        self.version = version
        self._encoded: bytes | None = None

    def encoded(self) -> bytes:
        """Return the object's JSON text."""
        if self._encoded is None:
            self._encoded = encode_json(self.obj)
        return self._encoded


class StoredEvent:
    """One change of one object: ``kind`` is ADDED, MODIFIED or DELETED."""

    __slots__ = ("_left_line", "_line", "kind", "now", "old", "version")

    def __init__(
        self, kind: str, version: int, now: StoredObject, old: StoredObject | None
    ) -> None:
        self.kind = kind
        self.version = version
        self.now = now
        self.old = old
        self._line: bytes | None = None
        self._left_line: bytes | None = None

    def line(self) -> bytes:
        """Return the watch line of this event, without its newline."""
        if self._line is None:
            self._line = event_line(self.kind, self.now.encoded())
        return self._line

    def arrived_line(self) -> bytes:
        """Return the line for a watcher whose selector the object only now matches."""
        return event_line("ADDED", self.now.encoded())

    def left_line(self) -> bytes:
        """Return the line for a watcher whose selector the object no longer matches.

        It carries the last matching content under the new resourceVersion.
        """
        if self._left_line is None:
            if self.old is None:
                raise ValueError("a created object cannot leave a selection")
            gone = dict(self.old.obj)
            gone["metadata"] = {**gone["metadata"], "resourceVersion": str(self.version)}
            self._left_line = event_line("DELETED", encode_json(gone))
        return self._left_line


class EventWindow:
    """The last ``size`` events of one kind."""

    def __init__(self, size: int, *, complete_since: int) -> None:
        self._events: deque[StoredEvent] = deque()
        self._size = size
        # Every event after this version is held.
        self.complete_since = complete_since

    def append(self, event: StoredEvent) -> None:
        """Add the newest event; the oldest falls out of a full window."""
        self._events.append(event)
        if len(self._events) > self._size:
            self.complete_since = self._events.popleft().version

    def compact(self, version: int) -> None:
        """Forget every event up to now: watches and lists at older versions get 410."""
        self._events.clear()
        self.complete_since = version

    def after(self, version: int) -> list[StoredEvent] | None:
        """Return the events after this version in order, None when some have been forgotten."""
        if version < self.complete_since:
            return None
        newer: list[StoredEvent] = []
        for event in reversed(self._events):
            if event.version <= version:
                break
            newer.append(event)
        newer.reverse()
        return newer


def event_line(kind: str, encoded: bytes) -> bytes:
    """Return a watch line, without its newline."""
    return b'{"type":"%s","object":%s}' % (kind.encode(), encoded)
