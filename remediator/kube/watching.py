"""Follow one watch: its lines decoded, its silence limited, its in-stream errors raised.

One call of ``follow`` is one HTTP answer. What comes after its end (again from where it broke, or a
new list) is the reflector's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, TypeVar

import msgspec

from remediator.kube.errors import (
    ApiError,
    Status,
    UnreadableAnswerError,
    describe_body,
    error_from_status,
    raise_for,
)
from remediator.kube.metadata import KubeObject
from remediator.kube.transport import LineStream, Query, Response, Transport

T = TypeVar("T", bound=KubeObject)

# A reader of buffered lines never waits, so it gives the loop a turn after this many.
_LINES_PER_TURN = 200


class InStreamError(Exception):
    """The watch began well (HTTP 200) and then said ERROR; ``error`` tells what it means."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(str(error))
        self.error = error


class WatchSilentError(Exception):
    """Nothing came for so long, not even a bookmark, that the connection must be taken for dead."""


class Added(msgspec.Struct, Generic[T], frozen=True, tag_field="type", tag="ADDED"):
    """An object came, or came to match the selector."""

    object: T


class Modified(msgspec.Struct, Generic[T], frozen=True, tag_field="type", tag="MODIFIED"):
    """An object changed."""

    object: T


class Deleted(msgspec.Struct, Generic[T], frozen=True, tag_field="type", tag="DELETED"):
    """An object went, or no longer matches the selector; this is its last state."""

    object: T


class _MarkMeta(msgspec.Struct, frozen=True):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    annotations: dict[str, str] | None = None


class _Mark(msgspec.Struct, frozen=True):
    metadata: _MarkMeta


class Bookmark(msgspec.Struct, frozen=True, tag_field="type", tag="BOOKMARK"):
    """Everything up to this resourceVersion has been sent."""

    object: _Mark

    @property
    def version(self) -> str:
        """The resourceVersion that was reached."""
        return self.object.metadata.resource_version

    @property
    def initial_events_end(self) -> bool:
        """All objects that existed have been sent (the answer to ``sendInitialEvents``)."""
        return (self.object.metadata.annotations or {}).get("k8s.io/initial-events-end") == "true"


class Failure(msgspec.Struct, frozen=True, tag_field="type", tag="ERROR"):
    """The watch is over, and why."""

    object: Status


class _UnreadableObject(msgspec.Struct, frozen=True):
    metadata: _UnreadableMeta


class _UnreadableMeta(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    resource_version: str = msgspec.field(default="", name="resourceVersion")


class Unreadable(msgspec.Struct, frozen=True):
    """An event of an object that does not decode into what we need of it; we know its name."""

    type: str
    object: _UnreadableObject
    problem: str = ""


WatchEvent = Added[T] | Modified[T] | Deleted[T] | Bookmark | Unreadable


class EventDecoder(Generic[T]):
    """Decodes the lines of a watch of one kind of objects, in one pass."""

    def __init__(self, item: type[T], path: str) -> None:
        self._path = path
        added: Any = Added  # the item's type is a value here, which mypy takes for no parameter
        modified: Any = Modified
        deleted: Any = Deleted
        self._decoder: msgspec.json.Decoder[WatchEvent[T] | Failure] = msgspec.json.Decoder(
            added[item] | modified[item] | deleted[item] | Bookmark | Failure
        )
        self._loose = msgspec.json.Decoder(Unreadable)

    def decode(self, line: bytes) -> WatchEvent[T]:
        """Return the event of a line.

        Raises InStreamError for an ERROR event, UnreadableAnswerError for what is no event at all.
        """
        try:
            event = self._decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._decode_name(line, error)
        if isinstance(event, Failure):
            raise InStreamError(error_from_status(event.object, "WATCH", self._path))
        return event

    def _decode_name(self, line: bytes, problem: Exception) -> Unreadable:
        try:
            event = self._loose.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._no_event(line) from problem
        if event.type not in {"ADDED", "MODIFIED", "DELETED"}:
            raise self._no_event(line) from problem
        return msgspec.structs.replace(event, problem=str(problem))

    def _no_event(self, line: bytes) -> UnreadableAnswerError:
        message = f"WATCH {self._path}: a line that is no event: {describe_body(line)}"
        return UnreadableAnswerError(200, "Unreadable", message)


async def follow(
    transport: Transport,
    path: str,
    *,
    query: Query,
    decoder: EventDecoder[T],
    handle: Callable[[WatchEvent[T]], None],
    silence_s: Callable[[], float],
    total_s: float,
    connect_timeout_s: float,
) -> None:
    """Hand every event of one watch to ``handle``; return when the watch ends in order.

    ``silence_s()`` is how long nothing may come, asked anew as lines arrive; after ``total_s`` we
    end the watch ourselves, should the server have forgotten its own ``timeoutSeconds``.
    Raises ApiError (refused), InStreamError, WatchSilentError, TransportError.
    """
    async with transport.stream(path, query=query, connect_timeout_s=connect_timeout_s) as stream:
        if not 200 <= stream.status < 300:
            await _refuse(stream, path, timeout_s=connect_timeout_s)
        loop = asyncio.get_running_loop()
        end_at = loop.time() + total_s
        try:
            async with asyncio.timeout_at(min(end_at, loop.time() + silence_s())) as limit:
                await _read(stream, decoder, handle, _Leash(limit, end_at, silence_s))
        except TimeoutError as error:
            if loop.time() >= end_at:
                return
            raise WatchSilentError(f"WATCH {path}: silent for {silence_s():g} s") from error


class _Leash:
    """Moves the limit of silence as lines arrive; cheaply, since there may be 40,000 a second."""

    def __init__(
        self, limit: asyncio.Timeout, end_at: float, silence_s: Callable[[], float]
    ) -> None:
        self._limit = limit
        self._end_at = end_at
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._last_silence_s = silence_s()

    def heard(self) -> None:
        """Move the limit, unless that was done a moment ago."""
        now, silence_s = self._loop.time(), self._silence_s()
        if now - self._moved_at > silence_s / 20 or silence_s != self._last_silence_s:
            self._moved_at, self._last_silence_s = now, silence_s
            self._limit.reschedule(min(self._end_at, now + silence_s))


async def _read(
    stream: LineStream,
    decoder: EventDecoder[T],
    handle: Callable[[WatchEvent[T]], None],
    leash: _Leash,
) -> None:
    lines = stream.lines()
    count = 0
    try:
        async for line in lines:
            if not line.strip():
                continue
            handle(decoder.decode(line))
            leash.heard()
            count += 1
            if count % _LINES_PER_TURN == 0:
                await asyncio.sleep(0)
    finally:
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()


async def _refuse(stream: LineStream, path: str, *, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            body = await stream.body()
    except TimeoutError:
        body = b""  # the status alone says enough
    raise_for(Response(status=stream.status, headers=stream.headers, body=body), "WATCH", path)
