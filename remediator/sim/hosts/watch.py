"""One list and one watch for a whole fleet, instead of one per host.

Real kubelets watch with a field selector on their own name. A fleet of thousands in one process
would pay for each event once per host, so it watches once and hands each object to its host.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from remediator.kube.transport import LineStream, Transport, TransportError
from remediator.sim.hosts.wire import Obj, RefusedError

log = structlog.get_logger(__name__)

_LIST_LIMIT = 500  # client-go's page size
_LIST_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
_WATCH_TIMEOUT_S = 300  # client-go asks for 5 to 10 min
_SILENCE_S = 90.0  # bookmarks come every minute; a longer silence is a broken connection
_BACKOFF_CAP_S = 10.0

Key = tuple[str, str]


class _ListMeta(msgspec.Struct, rename={"resource_version": "resourceVersion", "next": "continue"}):
    resource_version: str = ""
    next: str = ""


class _ObjList(msgspec.Struct):
    metadata: _ListMeta
    items: list[Obj] | None = None


class _Event(msgspec.Struct):
    type: str
    object: dict[str, Any]


_decode_list = msgspec.json.Decoder(_ObjList).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class _ExpiredError(Exception):
    """The resourceVersion is too old: list again."""


class SharedWatch:
    """Keeps ``objects`` true and reports each change.

    ``seen(obj)`` for new and changed objects, ``gone(obj, missed)`` for vanished ones; ``missed``
    says that the deletion was not seen but found by a new list.
    """

    def __init__(
        self,
        transport: Transport,
        path: str,
        *,
        seen: Callable[[Obj], None],
        gone: Callable[[Obj, bool], None],
        rng: random.Random,
    ) -> None:
        self.objects: dict[Key, Obj] = {}
        self.synced = asyncio.Event()
        self._transport = transport
        self._path = path
        self._seen = seen
        self._gone = gone
        self._rng = rng
        self._version = ""
        self._failures = 0

    async def run(self) -> None:
        """List and watch for ever."""
        while True:
            try:
                if not self._version:
                    self._version = await self._list()
                    self.synced.set()
                await self._watch()
            except _ExpiredError:
                self._version = ""
            except (TransportError, RefusedError, TimeoutError, msgspec.DecodeError) as error:
                self._failures += 1
                log.debug("fleet_watch_broken", path=self._path, error=str(error))
                cap_s = min(_BACKOFF_CAP_S, 0.4 * 2.0 ** min(self._failures, 10))
                await asyncio.sleep(self._rng.uniform(0.1, cap_s))

    async def _list(self) -> str:
        found: dict[Key, Obj] = {}
        page = ""
        while True:
            query = [("limit", str(_LIST_LIMIT))] + ([("continue", page)] if page else [])
            response = await self._transport.request(
                "GET", self._path, query=query, timeout_s=_LIST_TIMEOUT_S
            )
            if response.status == 410:
                raise _ExpiredError
            if response.status != 200:
                raise RefusedError("GET", self._path, response)
            listed = _decode_list(response.body)
            for obj in listed.items or ():
                found[key_of(obj)] = obj
            page = listed.metadata.next
            if not page:
                self._replace(found)
                return listed.metadata.resource_version

    def _replace(self, found: dict[Key, Obj]) -> None:
        old, self.objects = self.objects, found
        for key, obj in old.items():
            now = found.get(key)
            if now is None or now["metadata"]["uid"] != obj["metadata"]["uid"]:
                self._gone(obj, True)
        for key, obj in found.items():
            was = old.get(key)
            if was is None or _version(was) != _version(obj):
                self._seen(obj)

    async def _watch(self) -> None:
        query = [
            ("watch", "true"),
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(_WATCH_TIMEOUT_S)),
        ]
        loop = asyncio.get_running_loop()
        async with (
            self._transport.stream(
                self._path, query=query, connect_timeout_s=_CONNECT_TIMEOUT_S
            ) as stream,
            asyncio.timeout(_SILENCE_S) as deadline,
        ):
            if stream.status == 410:
                raise _ExpiredError
            if stream.status != 200:
                raise TransportError(f"watch {self._path}: {stream.status} {await _text(stream)}")
            async for line in stream.lines():
                deadline.reschedule(loop.time() + _SILENCE_S)
                if line:
                    self._take(_decode_event(line))

    def _take(self, event: _Event) -> None:
        obj = event.object
        if event.type == "ERROR":
            if obj.get("code") == 410:
                raise _ExpiredError
            raise TransportError(f"watch {self._path}: {obj.get('message')}")
        self._failures = 0
        self._version = _version(obj)
        if event.type == "BOOKMARK":
            return
        key = key_of(obj)
        if event.type == "DELETED":
            self.objects.pop(key, None)
            self._gone(obj, False)
        else:
            self.objects[key] = obj
            self._seen(obj)


async def _text(stream: LineStream) -> str:
    return (await stream.body())[:300].decode(errors="replace")


def key_of(obj: Obj) -> Key:
    """Return (namespace, name)."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _version(obj: Obj) -> str:
    version: str = obj["metadata"]["resourceVersion"]
    return version
