"""A power probe on virtual time, a fence device that says what the test wants, and a publisher."""

from __future__ import annotations

import asyncio
import random

import pytest

from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.power import PowerReading
from remediator.probes.power import PowerProbe, PowerProbeSettings
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
