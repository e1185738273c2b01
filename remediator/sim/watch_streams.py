"""Open watches: each has a bounded buffer of encoded lines, and is cut when it falls behind.

As kube-apiserver's cacher: an object that stops matching a watch's selector is DELETED for that
watch, one that starts matching is ADDED; bookmarks tell idle watchers the present version; a
watcher that does not read is ended, not waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from remediator.sim.problems import Problem
from remediator.sim.resources import ResourceType
from remediator.sim.selectors import Selection, field_value
from remediator.sim.store import Store
from remediator.sim.watching import StoredEvent, encode_json, event_line

# Lines that a watcher may be behind before it is cut. kube-apiserver keeps 10 to 1,000 events per
# watcher (cacher newCacheWatcher) beside the kernel's socket buffers.
_BUFFER_LINES = 1000
# cacher.go: a bookmark about every minute, and 2 s before the watch's time is up.
_BOOKMARK_EVERY_S = 60.0
_BOOKMARK_BEFORE_END_S = 2.0
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Pin = tuple[str, str]


class WatchStream:
    """One open watch. Read it with ``pop`` and ``wait``; ``close`` it when the client leaves."""

    status = 200

    def __init__(
        self,
        res: ResourceType,
        namespace: str,
        wanted: Selection,
        *,
        bookmarks: bool,
        loop: asyncio.AbstractEventLoop,
        current_version: Callable[[], int],
    ) -> None:
        self.headers = {"content-type": "application/json"}
        self._res = res
        self._prefix = f"{namespace}/" if namespace and res.namespaced else ""
        self.wanted = wanted
        self._everything = wanted.everything and not self._prefix
        self._bookmarks = bookmarks
        self._loop = loop
        self._current_version = current_version
        self._lines: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.ended = False
        self.on_close: Callable[[], None] | None = None
        self.convert: Callable[[bytes], bytes] | None = None  # each line, to the asked-for version

    # --- reading ---

    def pop(self) -> bytes | None:
        """Return the next line without its newline, None when there is none now."""
        if not self._lines:
            return None
        line = self._lines.popleft()
        return line if self.convert is None else self.convert(line)

    @property
    def idle(self) -> bool:
        """Return whether there is nothing to read now and more may come."""
        return not self._lines and not self.ended

    async def wait(self) -> None:
        """Return when a line has come, the watch has ended, or ``wake`` was called."""
        waiter = self._loop.create_future()
        self._waiter = waiter
        try:
            await waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let ``wait`` return."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Stop: nothing more is added; what is buffered may still be read."""
        if self.on_close is not None:
            self.on_close()
            self.on_close = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.ended = True
        self.wake()

    # --- writing ---

    def start(self, timeout_s: float) -> None:
        """Start the clocks of bookmarks and of the watch's end."""
        self._timers["end"] = self._loop.call_later(timeout_s, self.close)
        if not self._bookmarks:
            return
        if timeout_s > _BOOKMARK_BEFORE_END_S:
            self._timers["last"] = self._loop.call_later(
                timeout_s - _BOOKMARK_BEFORE_END_S, self._bookmark
            )
        self._timers["bookmark"] = self._loop.call_later(_BOOKMARK_EVERY_S, self._next_bookmark)

    def push(self, line: bytes) -> None:
        """Add a line; a watcher that is too far behind is ended."""
        if self.ended:
            return
        self._lines.append(line)
        if len(self._lines) > _BUFFER_LINES:
            self.close()
        else:
            self.wake()

    def push_initial(self, lines: list[bytes]) -> None:
        """Add what existed at the start: however much it is, it is not the watcher's delay."""
        self._lines.extend(lines)

    def offer(self, event: StoredEvent) -> None:
        """Add the event as this watch sees it, if it does."""
        line = self.line_of(event)
        if line is not None:
            self.push(line)

    def line_of(self, event: StoredEvent) -> bytes | None:
        """Return the line of an event as this watch sees it, None when it does not concern it."""
        if self._everything:
            return event.line()
        if not event.now.key.startswith(self._prefix):
            return None
        wanted = self.wanted
        matched = event.old is not None and wanted.matches(event.old.obj)
        if event.kind == "DELETED":
            return event.line() if matched else None
        if wanted.matches(event.now.obj):
            return event.line() if matched or event.kind == "ADDED" else event.arrived_line()
        return event.left_line() if matched else None

    def fail(self, problem: Problem) -> None:
        """Send an ERROR event and end."""
        self.push(event_line("ERROR", encode_json(problem.body())))
        self.close()

    def bookmark(self, *, initial_events_end: bool = False) -> None:
        """Tell the watcher that it has seen everything up to the present version."""
        metadata: dict[str, object] = {
            "resourceVersion": str(self._current_version()),
            "creationTimestamp": None,
        }
        if initial_events_end:
            metadata["annotations"] = {_INITIAL_EVENTS_END: "true"}
        body = {
            "kind": self._res.kind,
            "apiVersion": self._res.api_version,
            "metadata": metadata,
        }
        self.push(event_line("BOOKMARK", encode_json(body)))

    def _bookmark(self) -> None:
        self.bookmark()

    def _next_bookmark(self) -> None:
        self.bookmark()
        if not self.ended:
            self._timers["bookmark"] = self._loop.call_later(_BOOKMARK_EVERY_S, self._next_bookmark)


class WatchHub:
    """The open watches of one kind.

    Watches pinned to one object or one node (kubelets) are found by that value, so that an event
    does not ask every kubelet's watch (the cacher's triggers).
    """

    def __init__(self, store: Store, res: ResourceType) -> None:
        # Tuples, replaced on change: an offer may end a watch while they are walked.
        self._unpinned: tuple[WatchStream, ...] = ()
        self._pinned: dict[Pin, tuple[WatchStream, ...]] = {}
        self._leave = store.listen(res, self._offer)

    def add(self, stream: WatchStream) -> None:
        """Offer every later event to this watch, until it is closed."""
        pin = stream.wanted.pinned
        if pin is None:
            self._unpinned = (*self._unpinned, stream)
        else:
            self._pinned[pin] = (*self._pinned.get(pin, ()), stream)
        stream.on_close = lambda: self._remove(stream, pin)

    def all(self) -> list[WatchStream]:
        """Return every open watch."""
        return [*self._unpinned, *(each for group in self._pinned.values() for each in group)]

    def close(self) -> None:
        """End every watch and stop listening."""
        self._leave()
        for stream in self.all():
            stream.close()

    def _remove(self, stream: WatchStream, pin: Pin | None) -> None:
        if pin is None:
            self._unpinned = tuple(each for each in self._unpinned if each is not stream)
            return
        kept = tuple(each for each in self._pinned.get(pin, ()) if each is not stream)
        if kept:
            self._pinned[pin] = kept
        else:
            self._pinned.pop(pin, None)

    def _offer(self, event: StoredEvent) -> None:
        for stream in self._unpinned:
            stream.offer(event)
        if not self._pinned:
            return
        # In a fixed order: the simulation must not depend on a set's.
        pins = [("metadata.name", event.now.obj["metadata"]["name"])]
        pins.append(("spec.nodeName", field_value(event.now.obj, ("spec", "nodeName"))))
        if event.old is not None:
            before = ("spec.nodeName", field_value(event.old.obj, ("spec", "nodeName")))
            if before != pins[1]:
                pins.append(before)
        for pin in pins:
            for stream in self._pinned.get(pin, ()):
                stream.offer(event)
