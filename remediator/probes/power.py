"""Ask the BMCs: slowly in peace, at once and often when the engine suspects a node.

A reading that was asked for is always published, because the engine waits for it. In peace only
changes are, and a refresh now and then, so that thousands of nodes cost the bus next to nothing. No
answer, an error or a state between on and off is ``UNKNOWN``: only the word "off" means off.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Final

import msgspec
import structlog

from remediator.bus.protocols import EventPublisher
from remediator.clock import Clock
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.power import PowerReading
from remediator.signals import wire

log = structlog.get_logger(__name__)

Positive = Annotated[float, msgspec.Meta(gt=0)]
_NODES_CHECK_S: Final = 5.0  # how soon a new node is noticed and given its first poll


class PowerProbeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often BMCs are asked. BMCs are slow and few of them bear more than a read a second."""

    peace_period_s: Positive = 60.0  # between polls of a node that nobody asks about
    refresh_s: Positive = 300.0  # an unchanged reading is published again after this time
    asked_period_s: Positive = 2.0  # between polls after ``ask``
    asked_for_s: Positive = 60.0  # how long one ``ask`` lasts
    poll_deadline_s: Positive = 8.0  # one poll in all; the device's own timeout should be shorter
    in_flight_peace: Annotated[int, msgspec.Meta(ge=1)] = 16
    in_flight_asked: Annotated[int, msgspec.Meta(ge=1)] = 32  # a dead rack must not delay these


class _Watch:
    """What the probe remembers of one node. Times are epoch seconds."""

    __slots__ = ("asked_until", "due_at", "polling", "published", "published_at")

    def __init__(self) -> None:
        self.due_at = 0.0
        self.asked_until = 0.0
        self.polling = False
        self.published: tuple[Reading, str] | None = None
        self.published_at = 0.0


class PowerProbe:
    """Polls ``power_state`` of every node that ``nodes`` names, and publishes on plane ``power``.

    ``nodes`` names the nodes that have a fence device. ``run`` works until cancelled; ``ask`` may
    be called at any time, also for a node that ``nodes`` does not name yet. ``origin`` is that of
    the process's watchers: plane ``power`` is closed to others.
    """

    def __init__(
        self,
        power_state: Callable[[str], Awaitable[PowerReading]],
        nodes: Callable[[], Iterable[str]],
        publisher: EventPublisher,
        clock: Clock,
        *,
        rng: random.Random,
        settings: PowerProbeSettings | None = None,
        origin: str = "",
    ) -> None:
        self._power_state = power_state
        self._nodes = nodes
        self._publisher = publisher
        self._clock = clock
        self._rng = rng
        self._settings = settings or PowerProbeSettings()
        self._origin = origin
        self._watches: dict[str, _Watch] = {}
        self._due: list[tuple[float, str]] = []  # heap; an entry counts if the watch agrees
        self._wake = asyncio.Event()
        self._peace = 0  # polls in flight
        self._asked = 0

    def ask(self, node: str) -> None:
        """Poll this node now and then every ``asked_period_s`` for ``asked_for_s``."""
        now = self._clock.now()
        watch = self._watches.setdefault(node, _Watch())
        asked_already = watch.asked_until > now
        watch.asked_until = now + self._settings.asked_for_s
        if not asked_already and not watch.polling:
            self._set_due(node, watch, now)
            self._wake.set()

    async def run(self) -> None:
        """Poll until cancelled; no answer of a BMC ends it."""
        adopt_at = 0.0
        async with asyncio.TaskGroup() as polls:
            while True:
                self._wake.clear()
                now = self._clock.now()
                if now >= adopt_at:
                    self._adopt(now)
                    adopt_at = now + _NODES_CHECK_S
                next_at = min(adopt_at, self._start_due(polls, now))
                try:
                    async with asyncio.timeout(max(0.0, next_at - now)):
                        await self._wake.wait()
                except TimeoutError:
                    continue  # the next poll is due

    def _adopt(self, now: float) -> None:
        """Take up new nodes, spread over a period, and forget those that are gone."""
        named = set(self._nodes())
        for node in sorted(named - self._watches.keys()):
            watch = self._watches[node] = _Watch()
            spread_s = self._rng.uniform(0.0, self._settings.peace_period_s)
            self._set_due(node, watch, now + spread_s)
        for node in self._watches.keys() - named:
            watch = self._watches[node]
            if watch.asked_until <= now and not watch.polling:
                del self._watches[node]

    def _set_due(self, node: str, watch: _Watch, due_at: float) -> None:
        watch.due_at = due_at
        heapq.heappush(self._due, (due_at, node))

    def _start_due(self, polls: asyncio.TaskGroup, now: float) -> float:
        """Start the polls that are due and that fit; return when the next one is due."""
        waiting: list[tuple[float, str]] = []
        while self._due and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)
            due_at, node = entry
            watch = self._watches.get(node)
            if watch is None or watch.polling or watch.due_at != due_at:
                continue  # an older entry of a node that was moved since
            asked = watch.asked_until > now
            if asked and self._asked < self._settings.in_flight_asked:
                self._asked += 1
            elif not asked and self._peace < self._settings.in_flight_peace:
                self._peace += 1
            else:
                waiting.append(entry)  # full: the end of a poll wakes the loop
                continue
            watch.polling = True
            polls.create_task(self._poll(node, watch, asked=asked), name=f"power-poll-{node}")
        next_at = self._due[0][0] if self._due else now + _NODES_CHECK_S
        for entry in waiting:
            heapq.heappush(self._due, entry)
        return next_at

    async def _poll(self, node: str, watch: _Watch, *, asked: bool) -> None:
        began_at = self._clock.now()
        try:
            answer = await self._read(node)
            self._publish(node, watch, answer, asked=asked)
        finally:
            watch.polling = False
            if asked:
                self._asked -= 1
            else:
                self._peace -= 1
            self._schedule(node, watch, began_at)
            self._wake.set()

    async def _read(self, node: str) -> PowerReading:
        try:
            async with asyncio.timeout(self._settings.poll_deadline_s):
                return await self._power_state(node)
        except TimeoutError:
            detail = f"no answer in {self._settings.poll_deadline_s:g} s"
        except Exception as error:  # noqa: BLE001 - a device's fault is a reading, not the probe's end
            detail = f"{type(error).__name__}: {error}"
            log.warning("power_poll_failed", node=node, error=detail)
        return PowerReading(reading=Reading.UNKNOWN, source="power probe", detail=detail)

    def _schedule(self, node: str, watch: _Watch, began_at: float) -> None:
        now = self._clock.now()
        if watch.asked_until > now:
            due_at = max(now, began_at + self._settings.asked_period_s)
        else:
            # A tenth of jitter keeps the nodes from falling into step.
            due_at = now + self._settings.peace_period_s * self._rng.uniform(0.9, 1.1)
        self._set_due(node, watch, due_at)

    def _publish(self, node: str, watch: _Watch, answer: PowerReading, *, asked: bool) -> None:
        now = self._clock.now()
        said = (answer.reading, answer.detail)
        stale = now - watch.published_at >= self._settings.refresh_s
        # An ask that arrived while this poll was in flight deserves its answer, too.
        wanted = asked or watch.asked_until > now
        if not (wanted or stale or said != watch.published):
            return
        watch.published = said
        watch.published_at = now
        signal = Signal(
            plane=Plane.POWER,
            source=answer.source,
            subject=node_subject(node),
            reading=answer.reading,
            at=now,
            detail=answer.detail,
            by=self._origin,
        )
        # The origin is an edition, too: no other probe of this node can have said the same.
        wire.offer(self._publisher, signal, edition=self._origin)
