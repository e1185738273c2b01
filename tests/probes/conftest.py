"""Probes on virtual time: fence devices and networks that do what the test wants, a publisher."""

from __future__ import annotations

import asyncio
import contextlib
import random

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.metrics import Metrics
from remediator.power import PowerReading
from remediator.probe_settings import ProbeSettings
from remediator.probes.power import PowerProbe, PowerProbeSettings
from remediator.probes.targets import Target
from remediator.probes.vantage import Vantage
from remediator.signals import wire
from remediator.sim.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(config, item):
    del config, item
    return {"virtual": VirtualTimeLoop}


class Published:
    """An EventPublisher that remembers."""

    def __init__(self) -> None:
        self.offers: list[tuple[str, object]] = []

    def offer(self, subject, payload, *, message_id=None):
        del message_id
        self.offers.append((subject, wire.decode(payload)))

    def of(self, node):
        return [e for s, e in self.offers if s == f"remediator.signal.power.node.{node}"]


class Bmcs:
    """What every BMC says, and how long it takes."""

    def __init__(self) -> None:
        self.reading = Reading.UP
        self.delay_s = 0.1
        self.error: Exception | None = None
        self.polls: list[tuple[float, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def power_state(self, node):
        self.polls.append((asyncio.get_running_loop().time(), node))
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.in_flight -= 1
        if self.error is not None:
            raise self.error
        return PowerReading(reading=self.reading, source=f"bmc {node}")


class Lab:
    def __init__(self, nodes) -> None:
        self.published = Published()
        self.bmcs = Bmcs()
        self.nodes = list(nodes)
        self.settings = PowerProbeSettings()

    def start(self) -> PowerProbe:
        self.probe = PowerProbe(
            self.bmcs.power_state,
            lambda: self.nodes,
            self.published,
            Clock(epoch_at_start=0.0),
            rng=random.Random(1),
            settings=self.settings,
        )
        self.task = asyncio.create_task(self.probe.run())
        return self.probe


@pytest.fixture
async def lab():
    lab = Lab(["n1"])
    yield lab
    lab.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lab.task


class Network:
    """A Dial whose hosts answer after a millisecond, unless a test says otherwise."""

    def __init__(self) -> None:
        self.silent: set[str] = set()  # addresses that answer nothing
        self.refusing: set[str] = set()  # addresses where no port is open
        self.filtered: set[str] = set()  # addresses whose TCP ports are dropped on the way
        self.cut = False  # nobody answers: our own cable
        self.lose_next = 0  # so many probes get lost
        self.late_s = 0.0  # timeouts come so much too late: our event loop was busy
        self.error: Exception | None = None
        self.icmp_allowed = True
        self.dials: list[tuple[float, str, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def tcp(self, address, port, timeout_s):
        await self._answer(f"tcp {port}", address, timeout_s, filtered=address in self.filtered)
        if address in self.refusing:
            raise ConnectionRefusedError

    async def icmp(self, address, timeout_s):
        if not self.icmp_allowed:
            raise PermissionError(13, "Permission denied")
        await self._answer("icmp", address, timeout_s, filtered=False)

    async def https(self, url, timeout_s):
        await self._answer("https", url.split("/")[2].partition(":")[0], timeout_s, filtered=False)
        return 401

    async def _answer(self, what, address, timeout_s, *, filtered):
        self.dials.append((asyncio.get_running_loop().time(), what, address))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            lost = self.lose_next > 0
            self.lose_next -= lost
            if self.error is not None:
                raise self.error
            if lost or filtered or self.cut or address in self.silent:
                await asyncio.sleep(timeout_s + self.late_s)
                raise TimeoutError
            await asyncio.sleep(0.001)
        finally:
            self.in_flight -= 1

    def of(self, address, since=0.0):
        return [(at, what) for at, what, to in self.dials if to == address and at >= since]


class Lookout:
    """A vantage point, the nodes that it knows, and what it published."""

    def __init__(self) -> None:
        self.network = Network()
        self.published = Published()
        self.targets: dict[str, Target] = {}
        self.settings = ProbeSettings(vantage="v1", zone="a")
        self.metrics = Metrics(CollectorRegistry())

    def nodes(self, *names: str, zones: str = "abc") -> None:
        """Add nodes, in turn in each zone; "n7" has the address 10.0.0.7."""
        for number, name in enumerate(names):
            zone = zones[number % len(zones)]
            self.targets[name] = Target(name, f"10.0.0.{name[1:]}", 10250, zone)

    def start(self, **settings) -> Vantage:
        self.settings = msgspec.structs.replace(self.settings, **settings)
        self.vantage = Vantage(
            self.network,
            lambda: list(self.targets.values()),
            self.published,
            Clock(epoch_at_start=0.0),
            rng=random.Random(1),
            settings=self.settings,
            metrics=self.metrics,
        )
        self.task = asyncio.create_task(self.vantage.run())
        return self.vantage

    async def settled(self) -> None:
        """Let every node be reached, and forget what was said of that."""
        await asyncio.sleep(20.0)
        self.published.offers.clear()
        self.network.dials.clear()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def said(self, node: str):
        """What was said of a node, in order: changes, refreshes and answers."""
        return [e for _, e in self.published.offers if e.subject.name == node]

    def readings(self, node: str):
        return [signal.reading for signal in self.said(node)]

    def life(self):
        return [e for _, e in self.published.offers if e.subject.kind == "vantage"]

    async def until_said(self, node: str, reading: Reading, limit_s: float = 60.0) -> float:
        """Wait until this is the last that was said of a node; return when it was."""
        deadline = self.now() + limit_s
        while self.readings(node)[-1:] != [reading]:
            assert self.now() < deadline, f"{node} was not said to be {reading}"
            await asyncio.sleep(0.01)
        return self.now()


@pytest.fixture
async def lookout():
    lookout = Lookout()
    yield lookout
    lookout.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await lookout.task
