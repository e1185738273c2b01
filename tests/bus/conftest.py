from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from remediator.bus.connection import BusConnection, connect
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.settings import NatsSettings
from remediator.bus.streams import ensure_all

Until = Callable[..., Awaitable[None]]


class Proxy:
    """A TCP proxy that can become a half-open link: it keeps sockets and passes nothing on."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._pairs: set[_Pair] = set()
        self._listener: asyncio.Server | None = None
        self.accepted = 0

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        return self._listener.sockets[0].getsockname()[1]

    def half_open(self) -> None:
        """From now on the links that exist pass nothing, and say nothing."""
        for pair in self._pairs:
            pair.passing.clear()

    async def stop(self) -> None:
        self._listener.close()
        for pair in list(self._pairs):
            pair.abort()
        while self._pairs:
            await asyncio.sleep(0.01)
        await self._listener.wait_closed()

    async def _accept(self, reader, writer) -> None:
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pair.pipe(reader, far_writer))
                group.create_task(pair.pipe(far_reader, writer))
        finally:
            pair.abort()
            self._pairs.discard(pair)


class _Pair:
    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._near, self._far = near, far
        self.passing = asyncio.Event()
        self.passing.set()

    def abort(self) -> None:
        self.passing.set()
        self._near.transport.abort()
        self._far.transport.abort()

    async def pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.passing.wait()
                writer.write(data)
                await writer.drain()
        self.abort()


@pytest.fixture
def until() -> Until:
    async def wait(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
        async with asyncio.timeout(deadline_s):
            while not condition():
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def pause() -> Callable[[int], None]:
    """Stop a process and return when every thread of it has stopped."""

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        while any(
            (task / "stat").read_text().rpartition(")")[2].split()[0] != "T"
            for task in Path(f"/proc/{pid}/task").iterdir()
        ):
            os.sched_yield()

    return stop


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """Give each test a real server of its own: a start takes 0.2 s, and tests kill it."""
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running
        if running.pid is not None:  # a test may have stopped it, or killed it just now
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGCONT)


@pytest.fixture
async def watched(server: EmbeddedServer) -> AsyncIterator[EmbeddedServer]:
    """Give ``server`` with its watch running, so that it comes back when it is killed."""
    watch = asyncio.create_task(server.run())
    yield server
    watch.cancel()
    await asyncio.wait({watch})


@pytest.fixture
async def connection(server: EmbeddedServer) -> AsyncIterator[BusConnection]:
    """Give a connection to ``server`` with the daemon's streams, ensured after each reconnect."""
    opened = await connected_with_streams(server.settings)
    yield opened
    await opened.close()


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[Proxy]:
    running = Proxy(int(server.settings.url.rpartition(":")[2]))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def proxied(server: EmbeddedServer, proxy: Proxy) -> AsyncIterator[BusConnection]:
    """Give a connection to ``server`` through ``proxy``."""
    through = msgspec.structs.replace(server.settings, url=f"nats://127.0.0.1:{proxy.port}")
    opened = await connected_with_streams(through)
    yield opened
    await opened.close()


@pytest.fixture
def run() -> Callable[..., contextlib.AbstractAsyncContextManager[asyncio.Task[None]]]:
    """Run a coroutine as a task for the length of a block, and raise what it raised."""

    @contextlib.asynccontextmanager
    async def running(coroutine) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(coroutine)
        try:
            yield task
        finally:
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=5)
            assert done, "the task swallowed its cancellation"
        if not task.cancelled():
            task.result()

    return running


async def connected_with_streams(settings: NatsSettings) -> BusConnection:
    opened = await connect(settings, "test")

    async def ensure_again() -> None:
        await ensure_all(opened)

    await ensure_again()
    opened.on_reconnect.append(ensure_again)
    return opened
