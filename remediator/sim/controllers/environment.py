"""What every simulated controller is given: the store, the time, randomness, gate and settings."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

import structlog

from remediator.clock import Clock
from remediator.sim.controllers.events import EventRecorder
from remediator.sim.controllers.settings import ControlPlaneSettings, Range
from remediator.sim.controllers.work_queue import ApiGate, Key, WorkQueue
from remediator.sim.problems import Problem
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339
from remediator.sim.troubles import Troubles

log = structlog.get_logger(__name__)


class Controller(Protocol):
    """One control loop."""

    def start(self) -> None:
        """Subscribe to the store and take on what is already there."""
        ...

    def forget(self) -> None:
        """Lose all memory, as a process that starts again; then take on what is there."""
        ...

    def stop(self) -> None:
        """End subscriptions and timers."""
        ...


class Environment:
    """Shared by all controllers of one simulated cluster."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        rng: random.Random,
        gate: ApiGate,
        settings: ControlPlaneSettings,
        troubles: Troubles | None = None,
    ) -> None:
        self.store = store
        self.troubles = troubles or Troubles()
        self.clock = clock
        self.rng = rng
        self.gate = gate
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.events = EventRecorder(store, clock)

    def now(self) -> float:
        """Return the time in epoch seconds."""
        return self.clock.now()

    def timestamp(self) -> str:
        """Return the time as Kubernetes writes it (RFC 3339, whole seconds)."""
        return rfc3339(self.clock.now())

    def queue(
        self,
        name: str,
        reconcile: Callable[[Key], float | None],
        *,
        latency_s: Range | None = None,
    ) -> WorkQueue:
        """Return a work queue that stops while the API server is down."""
        return WorkQueue(
            name,
            reconcile,
            gate=self.gate,
            rng=self.rng,
            latency_s=self.settings.controller_latency_s if latency_s is None else latency_s,
            retry_s=self.settings.retry_s,
        )


class Ticker:
    """Calls ``tick`` every ``period_s`` while the API server answers."""

    def __init__(self, env: Environment, period_s: float, tick: Callable[[], None]) -> None:
        self._env = env
        self._period_s = period_s
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin at a random point of the first period: processes do not start together."""
        self._timer = self._env.loop.call_later(
            self._env.rng.uniform(0.0, self._period_s), self._run
        )

    def stop(self) -> None:
        """End it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = self._env.loop.call_later(self._period_s, self._run)
        # A blocked tick is not made up for: the next one comes in its time.
        if self._env.gate.blocks(self, _nothing):
            return
        try:
            self._tick()
        except Problem as problem:
            # What the API server refused now is tried again at the next tick.
            log.debug("tick_failed", tick=self._tick.__qualname__, error=str(problem))


def _nothing() -> None:
    """Resume nothing."""
