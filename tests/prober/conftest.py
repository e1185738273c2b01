"""Probe processes on a real NATS server, hosts on loopback, and the part of a leader they need."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import yaml

from remediator.bus import subjects
from remediator.bus.ask_channel import NatsAskChannel
from remediator.bus.connection import connect
from remediator.bus.consumer import Consumer
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.publisher import Publisher
from remediator.bus.streams import ensure_all
from remediator.clock import Clock
from remediator.engine.events import InventorySynced, ObjectGone, ObjectSeen, SignalSeen, encoder
from remediator.engine.evidence import Evidence
from remediator.engine.model import FactKind, NodeFacts, Reading, Signal
from remediator.engine.settings import DetectionSettings
from remediator.signals.intake import Intake

# Five times as fast as in a real cluster. ICMP is off: every address of loopback answers it where
# the kernel permits pings, also those of hosts that are "dead" here.
FAST = {
    "icmp": False,
    "peace_period_s": 1.0,
    "deadline_s": 0.4,
    "asked_period_s": 0.4,
    "asked_for_s": 6.0,
    "life_s": 1.0,
}
FRESH_S = 4.0
_FILLERS = 3


class Host:
    """A host on loopback, with a kubelet's port of its own. Dead, its kernel drops every SYN."""

    def __init__(self, name: str, zone: str, number: int) -> None:
        self.name = name
        self.zone = zone
        self.address = f"127.77.0.{number}"
        self._socket = socket.socket()
        self._socket.bind((self.address, 0))
        self._socket.listen(1024)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._fillers: list[socket.socket] = []

    def die(self) -> None:
        self._socket.listen(0)
        for _ in range(_FILLERS):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self.address, self.port))
            self._fillers.append(filler)

    def live(self) -> None:
        self._socket.listen(1024)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.accept()[0].close()
        self._drop_fillers()

    def close(self) -> None:
        self._socket.close()
        self._drop_fillers()

    def _drop_fillers(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()

    def facts(self) -> NodeFacts:
        return NodeFacts(
            name=self.name,
            uid=f"u-{self.name}",
            zone=self.zone,
            address=self.address,
            kubelet_port=self.port,
        )


class Leader:
    """What a leading daemon does on NATS that probers see, and the evidence that it gathers."""

    def __init__(self, connection, hosts: dict[str, Host]) -> None:
        self.connection = connection
        self.hosts = hosts
        self.publisher = Publisher(connection)
        self.asks = NatsAskChannel(connection)
        self.clock = Clock()
        self.intake = Intake(self.clock)
        self.evidence = Evidence(
            DetectionSettings(network_fresh_s=FRESH_S, vantage_fresh_s=FRESH_S)
        )
        self.signals: list[tuple[float, Signal]] = []

    def offer_nodes(self) -> None:
        for host in self.hosts.values():
            self._offer(subjects.inventory("Node", host.name), ObjectSeen(facts=host.facts()))
        self._offer(subjects.inventory_synced("Node"), InventorySynced(kind=FactKind.NODE))

    def delete(self, node: str) -> None:
        gone = ObjectGone(kind=FactKind.NODE, name=node)
        self._offer(subjects.inventory("Node", node), gone)

    async def back(self) -> None:
        """What the daemon does when NATS is back: streams first, then a whole picture."""
        await ensure_all(self.connection)
        self.offer_nodes()

    def deliver(self, subject: str, payload: bytes) -> None:
        event = self.intake.take(subject, payload)
        if not isinstance(event, SignalSeen):
            return
        now = self.clock.now()
        self.signals.append((now, event.signal))
        if event.signal.subject.kind == "vantage":
            self.evidence.network.life(event.signal, now)
        else:
            self.evidence.signal(event.signal, now)

    def network(self, node: str) -> str:
        """What the vantage points together say of a node."""
        return self.evidence.network.value(node, self.clock.now())

    async def agreed(self, node: str, value: str, deadline_s: float = 30.0) -> None:
        """Ask for a node, again and again as the engine does, until the vantage points agree."""
        async with asyncio.timeout(deadline_s):
            while self.network(node) != value:
                self.asks.ask(node)
                with contextlib.suppress(TimeoutError):
                    await until(lambda: self.network(node) == value, 1.0)

    def fresh(self) -> set[str]:
        """The vantage points that may convict now."""
        seen = self.evidence.network.vantages(self.clock.now())
        return {one.name for one in seen if one.fresh and one.reading is Reading.UP}

    def said(self, vantage: str, node: str, since: float = 0.0) -> list[str]:
        return [
            one.reading.value
            for at, one in self.signals
            if at >= since and one.source == vantage and one.subject.name == node
        ]

    def _offer(self, subject: str, event) -> None:
        self.publisher.offer(subject, encoder.encode(event))


class Relay:
    """A TCP relay to NATS that may stop passing anything on, and go on later."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        return self._server.sockets[0].getsockname()[1]

    def stall(self) -> None:
        self._passing.clear()

    def mend(self) -> None:
        self._passing.set()

    async def stop(self) -> None:
        self._passing.set()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _accept(self, reader, writer) -> None:
        far_reader, far_writer = None, None
        try:
            await self._passing.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers |= {writer, far_writer}
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, far_writer))
                group.create_task(self._pipe(far_reader, writer))
        except OSError:
            pass  # NATS is away, too
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    one.transport.abort()
                    self._writers.discard(one)

    async def _pipe(self, reader, writer) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Prober:
    """One probe process and its log."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.config = directory / f"{name}.yaml"
        self.log = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, environ: dict[str, str] | None = None) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "remediator", "probe", "--config", str(self.config)),
                    *arguments,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environ or {})},
            )

    def events(self) -> list[dict]:
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line))
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def end(self, number: int = signal.SIGTERM, within_s: float = 15.0) -> int:
        self.process.send_signal(number)
        return await self.ended(within_s)

    async def ended(self, within_s: float = 30.0) -> int:
        await until(lambda: self.process.poll() is not None, within_s)
        return self.process.returncode


async def until(condition: Callable[[], object], deadline_s: float = 30.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.02)


class Site:
    """Nine hosts in three zones, a NATS server, a leader, and the probers that a test starts."""

    def __init__(self, directory: Path, server: EmbeddedServer) -> None:
        self.directory = directory
        self.server = server
        self.hosts = {
            f"n{number}": Host(f"n{number}", "abc"[number % 3], number) for number in range(9)
        }
        self.probers: list[Prober] = []
        self.relays: list[Relay] = []
        self.leader: Leader | None = None

    @property
    def nats_port(self) -> int:
        return int(self.server.settings.url.rpartition(":")[2])

    def prober(self, zone: str, /, *, nats_port: int | None = None, **probes: object) -> Prober:
        """Configure a prober of a zone; "a" is called "zone-a"."""
        made = Prober(self.directory, f"zone-{zone}")
        settings = self.server.settings
        made.config.write_text(
            yaml.safe_dump(
                {
                    "nats": {
                        "url": f"nats://127.0.0.1:{nats_port or self.nats_port}",
                        "user": settings.user,
                        "password_file": settings.password_file,
                    },
                    "probes": {**FAST, "vantage": made.name, "zone": zone, **probes},
                    "log": {"format": "json"},
                }
            )
        )
        self.probers.append(made)
        return made

    async def relay(self) -> Relay:
        made = Relay(self.nats_port)
        await made.start()
        self.relays.append(made)
        return made

    async def all_see(self, *zones: str, deadline_s: float = 40.0) -> None:
        """Wait until these probers live and have reached every host."""
        names = {f"zone-{zone}" for zone in zones}

        def ready() -> bool:
            return names <= self.leader.fresh() and all(
                self.leader.said(name, host)[-1:] == ["up"] for name in names for host in self.hosts
            )

        await until(ready, deadline_s)

    async def close(self) -> None:
        for prober in self.probers:
            if prober.process is not None and prober.process.poll() is None:
                prober.process.send_signal(signal.SIGCONT)
                prober.kill()
        for relay in self.relays:
            await relay.stop()
        for host in self.hosts.values():
            host.close()


@pytest.fixture(name="until")
def _until():
    return until


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with EmbeddedServer(tmp_path / "nats") as server:
        made = Site(tmp_path, server)
        connection = await connect(server.settings, "leader")
        await ensure_all(connection)
        leader = made.leader = Leader(connection, made.hosts)
        connection.on_reconnect.append(leader.back)
        consumer = Consumer(connection)
        tasks = [
            asyncio.create_task(leader.publisher.run()),
            asyncio.create_task(consumer.run(leader.deliver)),
            asyncio.create_task(server.run()),
        ]
        await consumer.attached(10.0)
        leader.offer_nodes()
        yield made
        await made.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=10.0)
        await connection.close()
