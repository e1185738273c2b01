"""Proof that a watch hears the cluster: without it, silence of a node means nothing.

The moment of the last proof moves only for what the API server sent, never for time passing:

- a completed list proves everything up to the moment its first request was sent;
- an event proves the present, but not while the watch still replays a backlog. Before every
  (re)connection the newest resourceVersion is asked for, and nothing counts until it is reached:
  else the first replayed beat would declare silent every node whose beats are still in the pipe;
- a bookmark proves the present only if it names a newer resourceVersion than the last one: an API
  server cut off from etcd keeps sending bookmarks, with the version where it was cut off;
- a report waits a tenth of a second for what is right behind it, so that a burst after a stall is
  handed on before its progress; when the connection breaks first, the report is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ProgressProof:
    """Holds the time of the last proof (epoch seconds; 0.0 before the first) and reports it."""

    def __init__(self, report: Callable[[float], None], *, delay_s: float) -> None:
        self._report = report
        self._delay_s = delay_s
        self._target: int | None = None
        self._behind = True
        self._version = ""
        self._pending: asyncio.TimerHandle | None = None
        self.at = 0.0

    def connecting(self, newest_version: str) -> None:
        """Count nothing of the watch that starts now until ``newest_version`` is reached."""
        self._target = _as_number(newest_version)
        self._behind = True

    def listed(self, version: str, started_at: float) -> None:
        """Take a complete list that was begun at ``started_at``."""
        self._version = version
        self._prove(started_at)

    def heard(self, version: str, now: float, *, is_bookmark: bool = False) -> None:
        """Take an event or a bookmark of this resourceVersion."""
        newer = version != self._version
        self._version = version
        if self._behind:
            reached = _as_number(version)
            if reached is None or self._target is None:
                self._behind = not is_bookmark  # no numbers to compare: a bookmark must do
            else:
                self._behind = reached < self._target
        if newer and not self._behind and self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.call_later(self._delay_s, self._prove, now)

    def broken(self) -> None:
        """End the watch, in whatever way: what was not reported yet does not count."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _prove(self, at: float) -> None:
        self._pending = None
        if at > self.at:
            self.at = at
            self._report(at)


def _as_number(version: str) -> int | None:
    """Return a resourceVersion as a number (comparable since Kubernetes 1.35, and in practice)."""
    return int(version) if version.isascii() and version.isdigit() else None


def newer_version(one: str, other: str) -> str:
    """Return the newer of two resourceVersions; the first where they cannot be compared."""
    first, second = _as_number(one), _as_number(other)
    return other if first is not None and second is not None and second > first else one
