"""Work queues: one entry per key, small delays, retries that back off, the same run each time."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from remediator.sim.api_faults import ApiFaults
from remediator.sim.controllers.work_queue import ApiGate, WorkQueue
from remediator.sim.problems import Problem
from remediator.sim.virtual_time import run

KEY = ("default", "a")
OTHER = ("default", "b")
ROOT = Path(__file__).parents[3]


class Bench:
    """A queue whose reconciliations are written down."""

    def __init__(self, reconcile=lambda _key: None, faults=None):
        self.loop = asyncio.get_running_loop()
        self.done = []
        self.gate = ApiGate(faults, renew_deadline_s=10.0)
        self.gate.start()
        self._reconcile = reconcile
        self.queue = WorkQueue(
            "test",
            self.note,
            gate=self.gate,
            rng=random.Random(1),
            latency_s=(0.1, 0.2),
            retry_s=(1.0, 8.0),
        )

    def note(self, key):
        self.done.append((key, self.loop.time()))
        return self._reconcile(key)

    def times(self):
        return [at for _, at in self.done]


def test_additions_of_one_key_coalesce_and_others_do_not_wait_for_it():
    async def main():
        bench = Bench()
        for _ in range(5):
            bench.queue.add(KEY)
        bench.queue.add(OTHER)
        assert len(bench.queue) == 2
        await asyncio.sleep(1)
        assert sorted(key for key, _ in bench.done) == [KEY, OTHER]
        assert all(0.1 <= at <= 0.2 for at in bench.times())

    run(main())


def test_the_earlier_of_two_times_wins():
    async def main():
        bench = Bench()
        bench.queue.add(KEY, after_s=300)
        bench.queue.add(KEY, after_s=5)
        bench.queue.add(KEY, after_s=100)
        await asyncio.sleep(1000)
        assert bench.times() == [5]

    run(main())


def test_a_key_comes_back_when_its_reconciliation_asks_for_it():
    async def main():
        answers = iter([10.0, 20.0, None])
        bench = Bench(lambda _key: next(answers))
        bench.queue.add(KEY, after_s=0)
        await asyncio.sleep(100)
        assert bench.times() == [0, 10, 30]

    run(main())


def test_refusals_of_the_api_server_are_retried_ever_more_slowly_until_one_succeeds():
    async def main():
        failures = iter([True] * 6 + [False] * 10)

        def reconcile(_key):
            if next(failures):
                raise Problem(409, "Conflict", "changed meanwhile")

        bench = Bench(reconcile)
        bench.queue.add(KEY, after_s=0)
        await asyncio.sleep(100)
        assert bench.times() == [0, 1, 3, 7, 15, 23, 31]  # 1, 2, 4, then 8 at most
        bench.queue.add(KEY, after_s=0)
        await asyncio.sleep(100)
        assert len(bench.done) == 8

    run(main())


def test_a_defect_in_a_controller_is_not_swallowed():
    async def main():
        seen = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: seen.append(context)
        )
        bench = Bench(lambda _key: 1 / 0)
        bench.queue.add(KEY)
        await asyncio.sleep(100)
        assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]
        assert len(bench.done) == 1

    run(main())


def test_a_closed_queue_does_nothing_more():
    async def main():
        bench = Bench()
        bench.queue.add(KEY)
        bench.queue.close()
        bench.queue.add(OTHER)
        await asyncio.sleep(10)
        assert bench.done == []

    run(main())


@pytest.mark.parametrize(("outage_s", "restarts"), [(5, 0), (15, 1)])
def test_only_a_long_outage_makes_controllers_start_again(outage_s, restarts):
    async def main():
        faults = ApiFaults()
        bench = Bench(faults=faults)
        began = []
        bench.gate.on_restart(lambda: began.append(bench.loop.time()))
        faults.hang()
        bench.queue.add(KEY)
        await asyncio.sleep(outage_s)
        assert bench.done == []
        faults.clear()
        await asyncio.sleep(1)
        assert len(bench.done) == 1
        assert len(began) == restarts

    run(main())


STORY = """
import asyncio, hashlib, random
from remediator.clock import Clock
from remediator.sim.cluster import SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.resources import BUILT_IN, NODES
from remediator.sim.virtual_time import run

async def main():
    clock = Clock(epoch_at_start=1_800_000_000.0)
    cluster = SimCluster(ClusterSpec(nodes=6, vms=18, seed=3), clock=clock)
    seen = hashlib.sha256()

    def note(kind, obj, old):
        seen.update(f"{clock.now():.6f} {kind} {obj}".encode())

    for res in BUILT_IN:
        cluster.store.subscribe(res, note)
    await cluster.start(warm=True)
    await asyncio.sleep(30)
    cluster.faults.power_loss("n01")
    await asyncio.sleep(60)
    cluster.faults.delete_node("n01")
    cluster.faults.power_loss("n02")
    await asyncio.sleep(600)
    await cluster.stop()
    print(cluster.store.resource_version, seen.hexdigest())

run(main())
"""


def test_a_seed_gives_the_same_run_in_every_process():
    def story(hash_seed):
        return subprocess.run(
            [sys.executable, "-c", STORY],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout.splitlines()[-1]

    first = story("1")
    assert int(first.split()[0]) > 500
    assert story("2") == first
