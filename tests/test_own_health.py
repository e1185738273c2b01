"""What the daemon measures of itself, on virtual time and on a real event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from prometheus_client import CollectorRegistry

from remediator.bus.protocols import BusUnavailableError
from remediator.clock import Clock
from remediator.engine.settings import DetectionSettings
from remediator.kube.measured import MeasuredTransport, RequestTimes
from remediator.kube.transport import Response, TransportError
from remediator.metrics import Metrics
from remediator.own_health import LoopLag, OwnHealthMonitor, Senses, stale_watches
from remediator.sim.virtual_time import run
from remediator.watchers.inventory import WatchHealth

DETECTION = DetectionSettings()
CANARY = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/remediator-canary-x"


def watch(at: float, *, synced: bool = True, absent: bool = False) -> WatchHealth:
    return WatchHealth(synced=synced, last_progress_at=at, absent=absent, objects=1)


class Api:
    """An API server that takes its time."""

    def __init__(self) -> None:
        self.takes_s = 0.01
        self.status = 200
        self.broken = False

    async def request(self, *_asked, timeout_s, **_more):
        await asyncio.sleep(min(self.takes_s, timeout_s))
        if self.broken or self.takes_s > timeout_s:
            raise TransportError("no answer")
        return Response(status=self.status, headers={}, body=b"")

    async def close(self):
        pass


class Nats:
    def __init__(self) -> None:
        self.takes_s = 0.002
        self.away = False

    async def round_trip(self, timeout_s):
        await asyncio.sleep(min(self.takes_s, timeout_s))
        if self.away or self.takes_s > timeout_s:
            raise BusUnavailableError("NATS is away")


class Bench:
    """A monitor over an API server and a NATS that do as they are told; call it inside a loop."""

    def __init__(self) -> None:
        self.clock = Clock(epoch_at_start=1000.0)
        self.api, self.nats = Api(), Nats()
        self.times = RequestTimes(self.clock)
        self.transport = MeasuredTransport(self.api, self.times)
        self.watches = {"leases": watch(1000.0)}
        self.heard = True
        self.seen = []
        self.monitor = OwnHealthMonitor(
            self.clock,
            offer=self.seen.append,
            watches=self._watches,
            requests=self.times,
            detection=DETECTION,
            senses=Senses(round_trip=self.nats.round_trip),
        )

    def _watches(self):
        if self.heard:
            self.watches = {name: watch(self.clock.now()) for name in self.watches}
        return self.watches

    async def canary(self):
        """One write a second, as the leader's."""
        while True:
            with contextlib.suppress(TransportError):
                await self.transport.request("PATCH", CANARY, timeout_s=2.0)
            await asyncio.sleep(1.0)

    async def __aenter__(self):
        self._tasks = [
            asyncio.create_task(self.monitor.run()),
            asyncio.create_task(self.canary()),
        ]
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


def in_virtual_time(story):
    def test():
        run(story())

    test.__name__ = story.__name__
    return test


@in_virtual_time
async def test_a_daemon_that_is_well_says_so_once_a_second():
    async with Bench() as bench:
        await asyncio.sleep(10.5)
        assert len(bench.seen) == 10
        for seen in bench.seen[1:]:
            assert (seen.loop_lag_s, seen.stale_watches) == (0.0, ())
            assert seen.nats_latency_s == pytest.approx(0.002, abs=0.001)
        assert {each.api_latency_s for each in bench.seen} == {0.01}


@in_virtual_time
async def test_a_slow_api_server_shows_while_it_still_keeps_us_waiting():
    async with Bench() as bench:
        await asyncio.sleep(3.5)
        bench.api.takes_s = 1.5
        await asyncio.sleep(3.0)
        assert max(each.api_latency_s for each in bench.seen[-2:]) >= 1.0
        bench.api.takes_s = 0.01
        await asyncio.sleep(4.0)
        assert bench.seen[-1].api_latency_s == 0.01


@in_virtual_time
async def test_an_api_server_that_gives_no_answer_is_as_slow_as_it_has_been_away():
    async with Bench() as bench:
        await asyncio.sleep(3.5)
        bench.api.broken = True
        await asyncio.sleep(30.0)
        assert 28 <= bench.seen[-1].api_latency_s <= 30
        bench.api.broken = False
        await asyncio.sleep(3.0)
        assert bench.seen[-1].api_latency_s == 0.01


@in_virtual_time
async def test_an_api_server_in_trouble_is_no_quick_one():
    async with Bench() as bench:
        await asyncio.sleep(3.5)
        bench.api.status = 503
        await asyncio.sleep(10.0)
        assert bench.seen[-1].api_latency_s >= 8
        bench.api.status = 403  # an answer, and a quick one
        await asyncio.sleep(3.0)
        assert bench.seen[-1].api_latency_s == 0.01


@in_virtual_time
async def test_without_any_request_nothing_is_known_of_the_api_server():
    bench = Bench()
    monitoring = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(3.5)
    assert [each.api_latency_s for each in bench.seen] == [None] * 3
    monitoring.cancel()
    await asyncio.wait({monitoring})


@pytest.mark.parametrize(
    ("path", "timeout_s"),
    [
        ("/apis/coordination.k8s.io/v1/leases", 30.0),  # a list may take its time
        ("/apis/longhorn.io/v1beta2/volumes", 9.0),  # its conversion webhook died with the host
        ("/api/v1/nodes/n1", 9.0),  # somebody's admission webhook, too
    ],
)
def test_what_others_slow_down_is_not_held_against_the_api_server(path, timeout_s):
    async def story():
        async with Bench() as bench:
            bench.api.takes_s = 8.0
            slow = asyncio.create_task(bench.transport.request("GET", path, timeout_s=timeout_s))
            await asyncio.sleep(0)  # it is on its way
            bench.api.takes_s = 0.01
            await asyncio.sleep(7.0)
            assert bench.seen[-1].api_latency_s == 0.01
            await slow

    run(story())


def test_a_watch_that_verdicts_do_not_rest_on_is_nothing_to_doubt_ourselves_for():
    quiet = {"longhorn-nodes": watch(0.0), "probe-failures": watch(0.0), "vmis": watch(0.0)}
    assert stale_watches(quiet, DETECTION, 10_000.0) == ("vmis",)


@pytest.mark.parametrize("how", ["away", "mute"])
def test_nats_that_is_away_is_as_slow_as_it_has_been_away(how):
    async def story():
        async with Bench() as bench:
            await asyncio.sleep(3.5)
            if how == "away":
                bench.nats.away = True
            else:
                bench.nats.takes_s = 99.0
            await asyncio.sleep(20.0)
            assert 18 <= bench.seen[-1].nats_latency_s <= 20
            bench.nats.away, bench.nats.takes_s = False, 0.002
            await asyncio.sleep(4.0)
            assert bench.seen[-1].nats_latency_s == pytest.approx(0.002, abs=0.001)

    run(story())


@in_virtual_time
async def test_a_watch_without_progress_is_named_past_its_limit_and_no_sooner():
    async with Bench() as bench:
        await asyncio.sleep(3.5)
        bench.heard = False
        await asyncio.sleep(DETECTION.lease_watch_gap_s - 1.0)
        assert bench.seen[-1].stale_watches == ()
        await asyncio.sleep(3.0)
        assert bench.seen[-1].stale_watches == ("leases",)
        bench.heard = True
        await asyncio.sleep(1.1)
        assert bench.seen[-1].stale_watches == ()


def test_each_watch_has_its_own_limit_and_a_new_term_begins_with_a_clean_sheet():
    now = 10_000.0
    quiet = {name: watch(now - 100.0) for name in ("leases", "nodes", "pods")}
    assert stale_watches(quiet, DETECTION, now) == ("leases", "nodes")
    assert stale_watches(quiet, DETECTION, now, since=now - 10.0) == ("leases",)
    assert stale_watches(quiet, DETECTION, now, since=now - 1.0) == ()


def test_a_watch_that_is_not_there_is_not_stale():
    gone = {"longhorn-nodes": watch(0.0, absent=True), "pods": watch(0.0, synced=False)}
    assert stale_watches(gone, DETECTION, 10_000.0) == ()


async def test_a_stalled_event_loop_shows():
    metrics = Metrics(CollectorRegistry())
    lag = LoopLag(metrics)
    seen = []
    clock = Clock()
    monitor = OwnHealthMonitor(
        clock,
        offer=seen.append,
        watches=dict,
        requests=RequestTimes(clock),
        detection=DETECTION,
        senses=Senses(loop_lag=lag.take),
    )
    tasks = [asyncio.create_task(lag.run()), asyncio.create_task(monitor.run())]
    await asyncio.sleep(0.1)
    time.sleep(1.3)
    async with asyncio.timeout(10):
        while not seen:
            await asyncio.sleep(0.01)
    assert seen[0].loop_lag_s >= 0.5, "the timer that was due after 0.5 s ran after 1.4 s"
    assert seen[0].nats_latency_s is None
    assert metrics.registry.get_sample_value("remediator_event_loop_lag_seconds_sum") >= 0.5
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
