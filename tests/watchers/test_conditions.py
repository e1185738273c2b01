"""Node conditions besides Ready: told when they come, change their status, or go."""

from __future__ import annotations

import asyncio
import random

import pytest

from remediator.engine.model import Plane, Reading
from remediator.sim.memory_transport import MemoryTransport
from remediator.watchers.inventory import InventoryWatchers

WATCHED = {"KernelDeadlock": "True", "MemoryPressure": "True", "DiskHealthy": "False"}


def condition(kind, status, **more):
    def change(node):
        others = [item for item in node["status"]["conditions"] if item["type"] != kind]
        node["status"]["conditions"] = [*others, {"type": kind, "status": status, **more}]

    return change


def without(kind):
    def change(node):
        node["status"]["conditions"] = [
            item for item in node["status"]["conditions"] if item["type"] != kind
        ]

    return change


def told(cluster):
    return [
        (signal.subject.name, signal.aspect, signal.reading, signal.first)
        for signal in cluster.published.signals(Plane.KUBELET)
        if signal.aspect
    ]


@pytest.fixture
async def watched(cluster):
    cluster.watchers = InventoryWatchers(
        MemoryTransport(cluster.server, client_name="pod-a"),
        cluster.published,
        cluster.clock,
        rng=random.Random(7),
        identity="pod-a",
        conditions=WATCHED,
    )
    return cluster


@pytest.fixture
async def quiet(watched):
    await watched.start()
    watched.published.clear()
    return watched


async def test_a_condition_that_turns_bad_and_good_again_is_told_once_each(quiet):
    for status in ("True", "False"):
        quiet.change_node("n1", condition("KernelDeadlock", status, reason="R"), status=True)
        await asyncio.sleep(1)
        quiet.change_node(
            "n1",
            condition("KernelDeadlock", status, reason="R", lastHeartbeatTime="2026-11-20T08:00Z"),
            status=True,
        )
        await asyncio.sleep(1)
    assert told(quiet) == [
        ("n1", "KernelDeadlock", Reading.DOWN, False),
        ("n1", "KernelDeadlock", Reading.UP, False),
    ]
    assert "remediator.signal.kubelet.node.n1.node-watch.KernelDeadlock" in quiet.published.subjects


async def test_the_bad_status_may_be_false(quiet):
    quiet.change_node("n1", condition("DiskHealthy", "False"), status=True)
    await asyncio.sleep(1)
    assert told(quiet) == [("n1", "DiskHealthy", Reading.DOWN, False)]


async def test_the_detail_holds_reason_and_message_and_is_short(quiet):
    said = {"reason": "DockerHung", "message": "task docker:7 blocked. " * 40}
    quiet.change_node("n1", condition("KernelDeadlock", "True", **said), status=True)
    await asyncio.sleep(1)
    (signal,) = quiet.published.signals(Plane.KUBELET)
    assert signal.detail.startswith("KernelDeadlock=True DockerHung task docker:7 blocked.")
    assert len(signal.detail) <= 200


async def test_what_kubernetes_calls_unknown_of_a_silent_node_is_no_good_news(quiet):
    quiet.change_node("n1", condition("MemoryPressure", "False"), status=True)
    await asyncio.sleep(1)
    quiet.change_node("n1", condition("MemoryPressure", "Unknown"), status=True)
    await asyncio.sleep(1)
    assert [reading for _, _, reading, _ in told(quiet)] == [Reading.UP, Reading.UNKNOWN]


async def test_a_condition_that_disappears_is_unknown(quiet):
    quiet.change_node("n1", condition("KernelDeadlock", "True"), status=True)
    await asyncio.sleep(1)
    quiet.change_node("n1", without("KernelDeadlock"), status=True)
    await asyncio.sleep(1)
    assert told(quiet)[-1] == ("n1", "KernelDeadlock", Reading.UNKNOWN, False)


async def test_conditions_that_nobody_asked_for_are_not_told(quiet):
    quiet.change_node("n1", condition("FrequentKubeletRestart", "True"), status=True)
    await asyncio.sleep(1)
    assert told(quiet) == []


async def test_what_a_new_leader_finds_is_told_as_found_and_only_what_is_there(watched):
    watched.change_node("n1", condition("KernelDeadlock", "True"), status=True)
    await watched.start(lead=False)
    assert told(watched) == []
    watched.watchers.lead()
    await asyncio.sleep(1)
    assert told(watched) == [("n1", "KernelDeadlock", Reading.DOWN, True)]


async def test_ready_and_several_conditions_that_change_at_once_are_all_told(quiet):
    def change(node):
        condition("Ready", "Unknown")(node)
        condition("KernelDeadlock", "True")(node)
        condition("MemoryPressure", "True")(node)

    quiet.change_node("n1", change, status=True)
    await asyncio.sleep(1)
    signals = quiet.published.signals(Plane.KUBELET)
    assert {signal.aspect for signal in signals} == {"", "KernelDeadlock", "MemoryPressure"}
    # Each on a subject of its own: the publisher keeps only the newest of a subject.
    assert len({subject for subject in quiet.published.subjects if ".signal." in subject}) == 3
