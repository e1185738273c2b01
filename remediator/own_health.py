"""Our own health, measured: a daemon that is slow or deaf must not call others dead.

While a replica leads, it tells its engine about once a second how late its own timers ran, how
slowly the API server and NATS answered, and which watches have gone quiet. What that means for
deadlines and convictions is decided in ``engine.own_health``. Every measurement has a limit in
time of its own, so the telling never waits for what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from remediator.bus.protocols import BusUnavailableError
from remediator.clock import Clock
from remediator.engine.events import OwnHealthSeen
from remediator.engine.settings import DetectionSettings
from remediator.kube.measured import RequestTimes
from remediator.metrics import METRICS, Metrics
from remediator.watchers.inventory import WatchHealth

PERIOD_S = 1.0
LAG_EVERY_S = 0.5
ROUND_TRIP_TIMEOUT_S = 2.0
# The watches that verdicts and plans rest on. Others (of custom resources, of events) may fail for
# reasons of their own, such as a webhook that died with the very host that is to be judged: the
# health view names them, but our trust in our own eyes does not hang on them.
WEIGHED = frozenset({"leases", "nodes", "vms", "vmis", "pods"})
# Bookmarks come about every minute: a watch that missed three is worth saying.
WATCH_QUIET_S = 180.0


class Senses(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica can measure beyond its own watches and requests; a simulation has none."""

    # The worst lateness of a timer since it was last asked for.
    loop_lag: Callable[[], float] = lambda: 0.0
    # To NATS and back within so many seconds, else BusUnavailableError.
    round_trip: Callable[[float], Awaitable[None]] | None = None


class LoopLag:
    """How late the event loop runs its timers."""

    def __init__(self, metrics: Metrics = METRICS) -> None:
        self._metrics = metrics
        self._worst_s = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_at = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            late_s = max(0.0, loop.time() - due_at)
            self._metrics.loop_lag.observe(late_s)
            self._worst_s = max(self._worst_s, late_s)

    def take(self) -> float:
        """Return the worst lateness since the last call, in seconds."""
        worst_s, self._worst_s = self._worst_s, 0.0
        return worst_s


def stale_watches(
    watches: Mapping[str, WatchHealth],
    detection: DetectionSettings,
    now: float,
    *,
    since: float = 0.0,
) -> tuple[str, ...]:
    """Return which of the weighed watches should have shown progress by now, and have not.

    Nobody can have heard anything before ``since``. A watch that has not listed yet is not stale:
    nothing is concluded from a list that is not there.
    """
    return tuple(
        name
        for name, watch in watches.items()
        if name in WEIGHED
        and watch.synced
        and not watch.absent
        and now - max(watch.last_progress_at, since) > quiet_limit_s(name, detection)
    )


def quiet_limit_s(watch: str, detection: DetectionSettings) -> float:
    """Return how long a watch may be without a sign of life before it counts as stale.

    The two that silence is measured by have the same limits as the silence itself.
    """
    limits = {"leases": detection.lease_watch_gap_s, "nodes": detection.node_watch_gap_s}
    return limits.get(watch, WATCH_QUIET_S)


class OwnHealthMonitor:
    """Tells one term's engine how this daemon is, once every ``PERIOD_S``."""

    def __init__(
        self,
        clock: Clock,
        *,
        offer: Callable[[OwnHealthSeen], None],
        watches: Callable[[], Mapping[str, WatchHealth]],
        requests: RequestTimes,
        detection: DetectionSettings,
        senses: Senses | None = None,
    ) -> None:
        self._clock = clock
        self._offer = offer
        self._watches = watches
        self._requests = requests
        self._detection = detection
        self._senses = senses or Senses()
        self._began_at = clock.now()
        self._nats_slowest_s: float | None = None  # of the answers since the last report
        self._nats_waiting_since: float | None = None  # for the first answer that is missing

    async def run(self) -> None:
        """Measure and tell until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._senses.round_trip is not None:
                tasks.create_task(self._ask_nats(self._senses.round_trip), name="own-health-nats")
            await self._tell()

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        self._senses.loop_lag()  # what was before this term is not this term's
        self._requests.take()
        while True:
            due_at = loop.time() + PERIOD_S
            await asyncio.sleep(PERIOD_S)
            # Our own timer is one more witness: after a stall it may run before the other's.
            own_lag_s = max(0.0, loop.time() - due_at)
            self._offer(self.seen(own_lag_s))

    def seen(self, lag_s: float = 0.0) -> OwnHealthSeen:
        """Return what was measured since the last call."""
        now = self._clock.now()
        return OwnHealthSeen(
            loop_lag_s=round(max(lag_s, self._senses.loop_lag()), 3),
            api_latency_s=_rounded(self._requests.take()),
            nats_latency_s=_rounded(self._nats_latency_s(now)),
            stale_watches=stale_watches(
                self._watches(), self._detection, now, since=self._began_at
            ),
        )

    def _nats_latency_s(self, now: float) -> float | None:
        found = [] if self._nats_slowest_s is None else [self._nats_slowest_s]
        if self._nats_waiting_since is not None:
            found.append(now - self._nats_waiting_since)
        self._nats_slowest_s = None
        return max(found, default=None)

    async def _ask_nats(self, round_trip: Callable[[float], Awaitable[None]]) -> None:
        while True:
            began_at = self._clock.now()
            if self._nats_waiting_since is None:
                self._nats_waiting_since = began_at
            try:
                await round_trip(ROUND_TRIP_TIMEOUT_S)
            except BusUnavailableError:
                pass  # waited for since the first that failed
            else:
                took_s = self._clock.now() - began_at
                self._nats_slowest_s = max(self._nats_slowest_s or 0.0, took_s)
                self._nats_waiting_since = None
            await asyncio.sleep(max(0.0, began_at + PERIOD_S - self._clock.now()))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
