"""The examples in docs/health.md are what the command prints of this story.

To change them on purpose: REWRITE_GOLDEN=1 pytest tests/simulation/test_health_page.py, and read
the diff.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import click
import pytest
from harness import Rehearsal

from remediator.bus.protocols import BusUnavailableError
from remediator.cli.health_detail import node_text, vm_text
from remediator.cli.health_text import cluster_text
from remediator.engine import health_view, node_view, vm_view
from remediator.health_desk import surroundings
from remediator.own_health import Senses
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.virtual_time import run

PAGE = Path(__file__).parents[2] / "docs" / "health.md"
SPEC = ClusterSpec(nodes=6, zones=3, vms=12, seed=3)
SICK = "team-b/vm-008"
FENCED = ("n01", "n03", "n04", "n05", "n06")


class Told:
    """What the leader of a rehearsal says, as the command prints it."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        (self.leader,) = (each for each in rehearsal.alive.values() if each.elector.leader)

    def cluster(self) -> str:
        engine = self.leader.engine
        work = health_view.survey(engine.context, engine.vms, self._around())
        while True:
            try:
                next(work)
            except StopIteration as done:
                return click.unstyle(cluster_text(done.value, wide=False))

    def node(self, name: str) -> str:
        engine = self.leader.engine
        view = node_view.view(engine.context, engine.vms, self._around(), name)
        return click.unstyle(node_text(view, wide=False))

    def vm(self, namespace: str, name: str) -> str:
        engine = self.leader.engine
        view = vm_view.view(engine.context, engine.vms, self._around(), namespace, name)
        return click.unstyle(vm_text(view, wide=False))

    def _around(self):
        return surroundings(self.leader, self._rehearsal.clock.now())


async def away(timeout_s: float) -> None:
    await asyncio.sleep(timeout_s)
    raise BusUnavailableError("NATS is away")


async def story() -> dict[str, str]:
    rehearsal = Rehearsal(SPEC, fenced=FENCED)
    await rehearsal.start(replicas=2)
    await rehearsal.run(400)
    told, said = Told(rehearsal), {}
    rehearsal.cluster.faults.power_loss("n02")
    await rehearsal.run(15)
    said["node"] = told.node("n02")
    await rehearsal.run(15)
    said["cluster"] = told.cluster()
    rehearsal.cluster.faults.io_error(SICK)
    await rehearsal.run(20)
    said["vm"] = told.vm(*SICK.split("/"))
    await rehearsal.stop()
    said["trouble"] = await troubled()
    return said


async def troubled() -> str:
    """The head of the view of a leader that NATS has not answered for four seconds."""
    rehearsal = Rehearsal(SPEC)
    broken = asyncio.Event()

    async def round_trip(timeout_s: float) -> None:
        if broken.is_set():
            await away(timeout_s)

    await rehearsal.start()
    (replica,) = rehearsal.alive.values()
    replica._senses = Senses(round_trip=round_trip)
    await rehearsal.run(60)
    broken.set()
    await rehearsal.run(4.5)
    text = Told(rehearsal).cluster()
    await rehearsal.stop()
    return text.split("not heard")[0]


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    return run(story())


@pytest.mark.parametrize("name", ["cluster", "node", "vm", "trouble"])
def test_the_page_shows_what_the_command_prints(said, name):
    page = PAGE.read_text()
    pattern = re.compile(rf"(<!-- output: {name} -->\n```\n)(.*?)(```\n)", re.DOTALL)
    found = pattern.search(page)
    assert found is not None, f"docs/health.md has no place for {name}"
    if os.environ.get("REWRITE_GOLDEN"):
        text = said[name]
        PAGE.write_text(page[: found.start(2)] + text + page[found.end(2) :])
        return
    assert found.group(2) == said[name]
