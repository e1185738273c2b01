"""Gates that nobody attends to are opened by every replica; attended ones are left alone."""

from __future__ import annotations

import asyncio
import random

import pytest
from admission_desk import HandClock
from gated_cluster import OURS, GatedCluster

from remediator.admission.sweeper import GateSweeper

UNATTENDED_S = 60.0


class Watchman:
    def __init__(self) -> None:
        self.cluster = GatedCluster()
        self.clock = HandClock()
        self.heard_at: float | None = None
        self.another_leads = False
        self.sweeper = GateSweeper(
            self.cluster.client,
            self.clock,
            heard_at=lambda: self.heard_at,
            another_leads=lambda: self.another_leads,
            unattended_s=UNATTENDED_S,
            rng=random.Random(1),
        )


@pytest.fixture
def watchman() -> Watchman:
    return Watchman()


def test_a_leader_that_was_heard_lately_attends(watchman):
    watchman.heard_at = watchman.clock.at
    watchman.clock.at += UNATTENDED_S - 0.1
    assert not watchman.sweeper.unattended
    watchman.clock.at += 0.2
    assert watchman.sweeper.unattended


def test_a_replica_that_has_just_started_waits_as_long(watchman):
    assert not watchman.sweeper.unattended
    watchman.clock.at += UNATTENDED_S
    assert watchman.sweeper.unattended


def test_while_another_holds_the_lease_the_gates_are_that_ones(watchman):
    watchman.clock.at += UNATTENDED_S
    watchman.another_leads = True
    assert not watchman.sweeper.unattended


async def test_every_gate_is_opened(watchman):
    for number in range(30):
        watchman.cluster.pod(f"shop/vm{number}", OURS)
    assert await watchman.sweeper.sweep() == 30
    assert watchman.sweeper.opened == 30
    assert not any(watchman.cluster.gates(f"shop/vm{number}") for number in range(30))


async def test_two_replicas_open_each_gate_once(watchman):
    other = Watchman()
    other.cluster = watchman.cluster
    other.sweeper._client = watchman.cluster.client
    for number in range(20):
        watchman.cluster.pod(f"shop/vm{number}", OURS)
    opened = await asyncio.gather(watchman.sweeper.sweep(), other.sweeper.sweep())
    assert sum(opened) == 20


async def test_a_gate_that_may_not_be_opened_keeps_no_other_shut(watchman):
    for name in ("a", "b"):
        watchman.cluster.pod(f"shop/{name}", OURS)
    watchman.cluster.refused.add("virt-launcher-a")
    assert await watchman.sweeper.sweep() == 1
    assert watchman.cluster.gates("shop/b") == []


async def test_without_an_api_server_it_tries_on(watchman):
    watchman.cluster.pod("shop/a", OURS)
    watchman.cluster.faults.unavailable_html()
    assert await watchman.sweeper.sweep() == 0
    watchman.cluster.faults.clear()
    assert await watchman.sweeper.sweep() == 1
