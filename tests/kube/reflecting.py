from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from remediator.clock import Clock
from remediator.kube.objects import NODES, Resource
from remediator.kube.reflector import Reflector, ReflectorSettings
from remediator.kube.transport import Transport
from tests.kube.scripted import Call, ScriptedTransport, page

EPOCH = 1_000.0


class RecordingSink:
    """Remembers what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.progress: list[float] = []

    def seen(self, obj: Any, old: Any, *, initial: bool) -> None:
        before = old.resource_version if old is not None else None
        self.told.append(("seen", obj.name, before, obj.resource_version, initial))

    def gone(self, obj: Any) -> None:
        self.told.append(("gone", obj.name, obj.resource_version))

    def synced(self) -> None:
        self.told.append(("synced",))

    def progressed(self, at: float) -> None:
        self.progress.append(at - EPOCH)

    def take(self) -> list[tuple[Any, ...]]:
        told, self.told = self.told, []
        return told


class Server:
    """Answers a reflector from three scripts: its lists, its probes of the version, its watches.

    A script is a list of answers, of which the last repeats, or a function of the call.
    """

    def __init__(self, *, lists: Any = (), watches: Any = (), newest: Any = None) -> None:
        self.lists, self.watches, self.newest = lists, watches, newest
        self.transport = ScriptedTransport(self)
        self._asked: dict[str, int] = {}

    def __call__(self, call: Call) -> Any:
        if call.method == "WATCH":
            return self._next("watches", self.watches, call)
        if call.query.get("limit") == "1":
            if self.newest is None:
                return page(version=1)
            return self._next("newest", self.newest, call)
        return self._next("lists", self.lists, call)

    def _next(self, kind: str, script: Any, call: Call) -> Any:
        if callable(script):
            return script(call)
        index = self._asked.get(kind, 0)
        self._asked[kind] = index + 1
        return script[min(index, len(script) - 1)]

    def calls(self, kind: str) -> list[Call]:
        calls = self.transport.calls
        if kind == "WATCH":
            return [call for call in calls if call.method == "WATCH"]
        lists = [call for call in calls if call.method == "GET" and call.query.get("limit") != "1"]
        probes = [call for call in calls if call.query.get("limit") == "1"]
        return lists if kind == "LIST" else probes


@asynccontextmanager
async def reflecting(
    transport: Transport,
    *,
    resource: Resource[Any] = NODES,
    sink: Any = None,
    seed: int = 7,
    **settings: Any,
):
    """Run a reflector for the length of the block; yields it and its sink."""
    sink = sink or RecordingSink()
    settings.setdefault("watch_list", False)
    reflector = Reflector(
        transport,
        resource,
        sink,
        clock=Clock(epoch_at_start=EPOCH),
        rng=random.Random(seed),
        settings=ReflectorSettings(**settings),
    )
    task = asyncio.create_task(reflector.run())
    try:
        yield reflector, sink
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(holds: Callable[[], Any], *, timeout_s: float = 10.0) -> None:
    """Wait for a condition, or fail."""
    try:
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"did not come true within {timeout_s} s")
