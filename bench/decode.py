"""How fast a watch is taken in: the reflector, beside plain JSON and kubernetes-asyncio's Watch."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from table import Row, rate

from remediator.clock import Clock
from remediator.kube.objects import NODE_LEASES, VIRTUAL_MACHINE_INSTANCES, Resource
from remediator.kube.reflector import Reflector, ReflectorSettings
from remediator.kube.transport import LineStream, Response
from remediator.sim.cluster_objects import ObjectBuilder
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.resources import LEASES, Registry
from remediator.sim.resources import VIRTUAL_MACHINE_INSTANCES as SIM_VMIS
from remediator.sim.store import Store

CHUNK = 64 * 1024  # what one read of a busy socket brings


class _Lines:
    """One answer of a watch, out of memory: chunks are split as ``ClusterTransport`` does it."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def lines(self) -> AsyncIterator[bytes]:
        rest = b""
        for at in range(0, len(self._content), CHUNK):
            *whole, rest = (rest + self._content[at : at + CHUNK]).split(b"\n")
            for line in whole:
                yield line
        await asyncio.Event().wait()

    async def body(self) -> bytes:
        return b""


class _Canned:
    """A transport with an empty list and one watch."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def request(self, _method: str, _path: str, **_: Any) -> Response:
        body = b'{"metadata":{"resourceVersion":"1"},"items":[]}'
        return Response(status=200, headers={}, body=body)

    @asynccontextmanager
    async def stream(self, _path: str, **_: Any) -> AsyncIterator[LineStream]:
        yield _Lines(self._content)

    async def close(self) -> None:
        return


class _Counting:
    """A sink that counts, and says when all have come."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self.first_at = 0.0
        self.done = asyncio.Event()

    def seen(self, _obj: object, _old: object, *, initial: bool) -> None:  # noqa: ARG002
        if not self.first_at:
            self.first_at = time.perf_counter()
        self._left -= 1
        if not self._left:
            self.done.set()

    def gone(self, obj: object) -> None: ...

    def synced(self) -> None: ...

    def progressed(self, at: float) -> None: ...


async def measure(events: int) -> list[Row]:
    """Return the rows of a lease watch (small objects) and a VMI watch (larger ones)."""
    store = _world()
    rows: list[Row] = []
    for name, resource, objects, model in (
        ("leases", NODE_LEASES, store.list(LEASES), "V1Lease"),
        ("VMIs", VIRTUAL_MACHINE_INSTANCES, store.list(SIM_VMIS), None),
    ):
        lines = _lines(objects, events)
        size = sum(map(len, lines)) / len(lines)
        group = f"watch of {name}, {size:,.0f} B an event"
        plain = rate(group, "json.loads alone", events, _timed(lines, json.loads))
        rows.append(plain)
        # The library deserializes into its models far too slowly to be given everything.
        few = lines[: max(200, events // 20)]
        rows.append(
            rate(group, "kubernetes-asyncio Watch", len(few), await _library(few, model), plain)
        )
        rows.append(rate(group, "reflector", events, await _reflected(resource, lines), plain))
    return rows


def _world() -> Store:
    spec = ClusterSpec(nodes=50, vms=200, diskless_share=0.0)
    store = Store(now=lambda: 1_760_000_000.0, rng=random.Random(1))
    Registry()
    builder = ObjectBuilder(store, spec, 1_760_000_000.0)
    builder.namespaces()
    hosts = spec.host_specs()
    for host in hosts:
        builder.node(host, "boot")
    for number, vm in enumerate(spec.vm_specs()):
        builder.virtual_machine(vm)
        builder.run(vm, hosts[number % len(hosts)].name)
    return store


def _lines(objects: list[dict[str, Any]], events: int) -> list[bytes]:
    lines = []
    for number in range(events):
        obj = dict(objects[number % len(objects)])
        obj["metadata"] = {**obj["metadata"], "resourceVersion": str(1000 + number)}
        lines.append(msgspec.json.encode({"type": "MODIFIED", "object": obj}))
    return lines


def _timed(lines: list[bytes], decode: Callable[[bytes], object]) -> float:
    began = time.perf_counter()
    for line in lines:
        decode(line)
    return time.perf_counter() - began


async def _library(lines: list[bytes], model: str | None) -> float:
    from kubernetes_asyncio.watch import Watch  # noqa: PLC0415 - its import takes 1.2 s

    watch = Watch()
    seconds = _timed(lines, lambda line: watch.unmarshal_event(line, model))
    await watch._api_client.close()  # noqa: SLF001 - it has no other way
    return seconds


async def _reflected(resource: Resource[Any], lines: list[bytes]) -> float:
    sink = _Counting(len(lines))
    reflector = Reflector(
        _Canned(b"\n".join(lines) + b"\n"),
        resource,
        sink,
        clock=Clock(),
        rng=random.Random(1),
        settings=ReflectorSettings(watch_list=False),
    )
    running = asyncio.create_task(reflector.run())
    await sink.done.wait()
    seconds = time.perf_counter() - sink.first_at
    running.cancel()
    await asyncio.wait({running})
    return seconds
