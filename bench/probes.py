"""Three vantage points that probe every node: what that costs each, and what travels for it.

The probers are ``remediator probe`` processes, as many as there are zones; this process is the
leader's side: it reports the nodes on NATS, takes in the signals with the real consumer, intake and
evidence, and asks as the engine does. The hosts are addresses of loopback, where the kernel answers
every SYN; its work for both ends of each connection is charged to the prober. A few hosts have
sockets of their own, so that they can die.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import yaml
from end_to_end import rss_mib
from table import Row

from remediator.bus import subjects
from remediator.bus.ask_channel import NatsAskChannel
from remediator.bus.connection import BusConnection, connect
from remediator.bus.consumer import Consumer
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.publisher import Publisher
from remediator.bus.settings import NatsSettings
from remediator.bus.streams import ensure_all
from remediator.clock import Clock
from remediator.engine.events import InventorySynced, ObjectSeen, SignalSeen, encoder
from remediator.engine.evidence import Evidence
from remediator.engine.model import FactKind, NodeFacts, Reading
from remediator.engine.settings import DetectionSettings
from remediator.signals.intake import Intake

ZONES = ("a", "b", "c")
START_LIMIT_S = 120.0
DOWN_LIMIT_S = 60.0
ASK_EVERY_S = 5.0  # the engine's
PROBES = "remediator_probes_total{"
_TICKS = os.sysconf("SC_CLK_TCK")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much, and for how long it is watched."""

    nodes: int
    seconds: float
    deaths: int  # of hosts, one after the other


class Mortal:
    """A host with a socket of its own. Dead, its kernel drops every SYN: its queue is full."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket()
        self._socket.bind((address, 0))
        self._socket.listen(1024)
        self._fillers: list[socket.socket] = []
        self.port = int(self._socket.getsockname()[1])

    def die(self) -> None:
        """Answer nothing from now on."""
        self._socket.listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self._address, self.port))
            self._fillers.append(filler)

    def close(self) -> None:
        """Give the sockets back."""
        for each in (self._socket, *self._fillers):
            each.close()


class Site:
    """The nodes, and the leader's side of the network plane."""

    def __init__(self, connection: BusConnection, load: Load, port: int) -> None:
        self.connection = connection
        self.publisher = Publisher(connection)
        self.asks = NatsAskChannel(connection)
        self.clock = Clock()
        self.intake = Intake(self.clock)
        self.evidence = Evidence(DetectionSettings())
        self.mortals = {f"n{number:05d}": Mortal(_address(number)) for number in range(load.deaths)}
        self.facts = [
            NodeFacts(
                name=(name := f"n{number:05d}"),
                uid=f"u{number}",
                zone=ZONES[number % len(ZONES)],
                address=_address(number),
                kubelet_port=self.mortals[name].port if name in self.mortals else port,
            )
            for number in range(load.nodes)
        ]
        self.reached: Counter[str] = Counter()  # by vantage point
        self.signals: Counter[str] = Counter()  # by what they were about
        self.bytes = 0
        self.visits = 0  # connections that a program on the hosts got to see
        self.readings: Counter[str] = Counter()

    def offer_nodes(self) -> None:
        """Report the nodes as the leader's watchers do."""
        for facts in self.facts:
            subject = subjects.inventory("Node", facts.name)
            self.publisher.offer(subject, encoder.encode(ObjectSeen(facts=facts)))
        self.publisher.offer(
            subjects.inventory_synced("Node"),
            encoder.encode(InventorySynced(kind=FactKind.NODE)),
        )

    def accept(self, hosts: socket.socket) -> None:
        """Do what a kubelet does with a connection: it must not stay in the kernel's queue."""
        with contextlib.suppress(BlockingIOError):
            while True:
                hosts.accept()[0].close()
                self.visits += 1

    def deliver(self, subject: str, payload: bytes) -> None:
        """Take in a message as the leader's term does."""
        event = self.intake.take(subject, payload)
        if not isinstance(event, SignalSeen):
            return
        signal, now = event.signal, self.clock.now()
        self.signals[signal.subject.kind] += 1
        self.bytes += len(payload)
        if signal.subject.kind == "vantage":
            self.evidence.network.life(signal, now)
            return
        self.readings[signal.reading.value] += 1
        self.reached[signal.source] += signal.reading is Reading.UP
        self.evidence.signal(signal, now)

    def doubted(self, node: str) -> bool:
        """Whether any vantage point says that a node is down."""
        return self.evidence.network.doubted(node, self.clock.now())

    def down(self, node: str) -> bool:
        """Whether the vantage points together say so."""
        return self.evidence.network.value(node, self.clock.now()) == "down"


async def measure(directory: Path, load: Load) -> list[Row]:
    """Return the rows, with servers and probers of their own in ``directory``."""
    with socket.socket() as hosts:
        hosts.bind(("0.0.0.0", 0))
        hosts.listen(4096)
        hosts.setblocking(False)
        async with EmbeddedServer(directory / "nats") as server:
            connection = await connect(server.settings, "bench")
            await ensure_all(connection)
            try:
                site = Site(connection, load, hosts.getsockname()[1])
                asyncio.get_running_loop().add_reader(hosts, site.accept, hosts)
                async with _probers(directory, server.settings) as probers:
                    return await _watch(site, load, probers)
            finally:
                asyncio.get_running_loop().remove_reader(hosts)
                await connection.close()


async def _watch(site: Site, load: Load, probers: Sequence[Prober]) -> list[Row]:
    consumer = Consumer(site.connection)
    tasks = [
        asyncio.create_task(site.publisher.run()),
        asyncio.create_task(consumer.run(site.deliver)),
    ]
    group = f"network probes, {load.nodes:,} nodes"
    try:
        await consumer.attached(10.0)
        site.offer_nodes()
        await _until(
            lambda: len(site.reached) == len(ZONES) and min(site.reached.values()) >= load.nodes,
            START_LIMIT_S,
        )
        peace = await _peace(site, load, probers, group)
        return [*peace, *await _deaths(site, group)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for mortal in site.mortals.values():
            mortal.close()


async def _peace(site: Site, load: Load, probers: Sequence[Prober], group: str) -> list[Row]:
    before, cpu_s, size = Counter(site.signals), [_cpu_s(each.pid) for each in probers], site.bytes
    probed = [await each.probes() for each in probers]
    changes, visits = Counter(site.readings), site.visits
    began = site.clock.now()
    await asyncio.sleep(load.seconds)
    took_s = site.clock.now() - began
    used = [_cpu_s(each.pid) - at for each, at in zip(probers, cpu_s, strict=True)]
    per_minute = max(used) / took_s * 60.0
    memory = max(rss_mib(each.pid) for each in probers)
    came = Counter(site.signals) - before
    wrong = Counter(site.readings) - changes
    probed_per_s = (sum([await each.probes() for each in probers]) - sum(probed)) / took_s
    return [
        Row(group, "probes, all three vantage points", probed_per_s, "/s"),
        Row(
            group,
            "CPU of a prober, the busiest",
            per_minute,
            "s/min",
            aim="< 60 (a core)",
            met=per_minute < 60.0,
        ),
        Row(group, "memory of a prober, the largest", memory, "MiB"),
        Row(
            group,
            "signals that travel in peace",
            came.total() / took_s,
            "/s",
            came.total() / took_s / probed_per_s,
            "probes",
        ),
        Row(group, "of these, lives of the probers", came["vantage"] / took_s, "/s"),
        Row(group, "their size", (site.bytes - size) / max(1, came.total()), "B"),
        Row(group, "connections that reach a program", (site.visits - visits) / took_s, "/s"),
        Row(group, "wrong readings meanwhile", wrong.total() - wrong["up"], "", aim="0",
            met=wrong.total() == wrong["up"]),
    ]  # fmt: skip


async def _deaths(site: Site, group: str) -> list[Row]:
    took: list[float] = []
    for node, mortal in site.mortals.items():
        mortal.die()
        died_at = site.clock.now()
        await _until(partial(site.doubted, node), DOWN_LIMIT_S)
        # A vantage point said down: the engine asks all of them, again and again.
        while not site.down(node):
            site.asks.ask(node)
            with contextlib.suppress(TimeoutError):
                await _until(partial(site.down, node), ASK_EVERY_S)
        took.append(site.clock.now() - died_at)
    return [
        Row(
            group,
            f"death to down by two zones, median of {len(took)}",
            statistics.median(took),
            "s",
        ),
        Row(group, "death to down by two zones, slowest", max(took), "s"),
    ]


class Prober:
    """One ``remediator probe`` process."""

    def __init__(self, directory: Path, zone: str, nats: NatsSettings) -> None:
        self._config = directory / f"prober-{zone}.yaml"
        self._log = directory / f"prober-{zone}.log"
        login = {"url": nats.url, "user": nats.user, "password_file": nats.password_file}
        # Where the kernel permits pings, a host whose port is dead would answer.
        probes = {"vantage": f"zone-{zone}", "zone": zone, "icmp": False}
        settings = {"nats": login, "probes": probes, "log": {"format": "json"}}
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "remediator", "probe"),
                *("--config", str(self._config), "--http-port", "0"),
                stdout=log,
            )

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()

    async def probes(self) -> float:
        """Return how many probes it has made, by its own metrics."""
        events = [msgspec.json.decode(line) for line in self._log.read_bytes().splitlines()]
        port = next(each["port"] for each in events if each["event"] == "http_listening")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(PROBES))


@contextlib.asynccontextmanager
async def _probers(directory: Path, nats: NatsSettings) -> AsyncIterator[list[Prober]]:
    """Run a prober in each zone."""
    probers = [Prober(directory, zone, nats) for zone in ZONES]
    try:
        for each in probers:
            await each.start()
        yield probers
    finally:
        for each in probers:
            await each.stop()


async def _until(condition: Callable[[], bool], limit_s: float) -> None:
    """Wait for what happens elsewhere. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


def _address(number: int) -> str:
    return f"127.{100 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def _cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
