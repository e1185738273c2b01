"""A vantage point: probes every node from where it stands, and says what it hears.

Slowly in peace, at once and often when asked or when a node falls silent. What travels is little:
changes, a refresh now and then, every answer that was asked for, and the prober's own life, which
says "unknown" while other hosts are silent too. Then nothing is said of nodes unasked: it would be
said of all.

Peace and suspicion have bounds and queues of their own, so that a zone which died (each of its
nodes costs a whole deadline) does not delay the node that somebody asks about.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import zlib
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from remediator.bus.protocols import EventPublisher
from remediator.clock import Clock
from remediator.engine.model import (
    Plane,
    Reading,
    Signal,
    Subject,
    node_subject,
    vantage_subject,
)
from remediator.metrics import METRICS, Metrics
from remediator.probe_settings import ProbeSettings
from remediator.probes.dial import Dial
from remediator.probes.node_watch import NodeWatch, Said
from remediator.probes.references import References
from remediator.probes.rounds import Heard, Round, Rounds
from remediator.probes.targets import Target
from remediator.signals import wire

log = structlog.get_logger(__name__)

_TARGETS_CHECK_S: Final = 5.0  # how soon a new node is noticed
_FIRST_CHECK_S: Final = 0.5  # while none is known yet: the list is on its way
# Probes that are due within this are started together: at 1,000 a second waking up for each costs
# more than the probe.
_TOGETHER_S: Final = 0.01
_LIFE_RECHECK_S: Final = 1.0  # while we are deaf: how soon we notice that we are not


class _Lane:
    """Nodes to be probed, by when, and how many at once."""

    def __init__(self, in_flight_max: int) -> None:
        self.due: list[tuple[float, str]] = []  # heap; an entry counts if its node agrees
        self.in_flight = 0
        self.in_flight_max = in_flight_max

    @property
    def full(self) -> bool:
        return self.in_flight >= self.in_flight_max


class Vantage:
    """Probes what ``targets`` returns, and publishes on plane ``network``.

    ``settings.vantage`` is its name, ``origin`` that of the process's watchers, if it has any.
    ``run`` works until cancelled; ``ask`` may be called at any time, and is ignored for nodes that
    are not known: anybody on NATS can ask.
    """

    def __init__(
        self,
        dial: Dial,
        targets: Callable[[], Iterable[Target]],
        publisher: EventPublisher,
        clock: Clock,
        *,
        rng: random.Random,
        settings: ProbeSettings,
        origin: str = "",
        metrics: Metrics = METRICS,
    ) -> None:
        self._metrics = metrics
        self._origin = origin
        self._targets = targets
        self._publisher = publisher
        self._clock = clock
        # Of its own: how often it draws must not move anything else in a simulation.
        self._rng = random.Random(rng.getrandbits(64))  # noqa: S311 - jitter is no secret
        self._settings = settings
        self._zone = settings.zone
        self._watches: dict[str, NodeWatch] = {}
        self._by_zone: dict[str, list[NodeWatch]] = {}
        self._rounds = Rounds(dial, clock, settings, metrics)
        self._references = References(self._rounds, clock, settings, lambda: self._by_zone)
        self._peace = _Lane(settings.in_flight_peace)
        self._asked = _Lane(settings.in_flight_asked)
        self._wake = asyncio.Event()
        self._next_at = float("-inf")  # when the scheduler wakes by itself
        self._life: tuple[Reading, str] = (Reading.UNKNOWN, "")
        self._life_at = float("-inf")

    @property
    def name(self) -> str:
        """The vantage point's name, which is the source of its signals."""
        return self._settings.vantage

    @property
    def zone(self) -> str:
        """Where it stands, "" while that is not known."""
        return self._zone

    @property
    def life(self) -> tuple[Reading, str]:
        """What it says of itself, and why."""
        return self._life

    @property
    def nodes(self) -> int:
        """How many nodes it probes."""
        return len(self._watches)

    def ask(self, node: str) -> None:
        """Probe this node now and then every ``asked_period_s`` for ``asked_for_s``."""
        watch = self._watches.get(node)
        if watch is None:
            return
        now = self._clock.now()
        asked_already = watch.asked_until > now
        watch.asked_until = now + self._settings.asked_for_s
        if not asked_already and not watch.probing:
            self._set_due(watch, now)

    async def run(self) -> None:
        """Probe until cancelled; no answer of a host ends it."""
        log.info("vantage_starts", vantage=self.name, zone=self._zone)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._live(), name="vantage-life")
                await self._schedule(tasks)
        finally:
            await self._references.stop()

    # --- which nodes, and when --------------------------------------------------------------------

    async def _schedule(self, tasks: asyncio.TaskGroup) -> None:
        adopt_at = float("-inf")
        while True:
            self._wake.clear()
            now = self._clock.now()
            if now >= adopt_at:
                self._adopt(now)
                adopt_at = now + (_TARGETS_CHECK_S if self._watches else _FIRST_CHECK_S)
            due_at = min(self._start_due(tasks, lane, now) for lane in (self._asked, self._peace))
            self._next_at = min(adopt_at, max(due_at, now + _TOGETHER_S))
            try:
                async with asyncio.timeout(self._next_at - now):
                    await self._wake.wait()
            except TimeoutError:
                self._rounds.lateness.note(self._next_at, self._clock.now())

    def _adopt(self, now: float) -> None:
        """Take up new nodes, spread over a period, and forget those that are gone."""
        gone = set(self._watches)
        for target in self._targets():
            if not target.address:
                continue
            gone.discard(target.node)
            if target.node == self._settings.node:
                self._zone = self._settings.zone or target.zone
            watch = self._watches.get(target.node)
            if watch is not None and watch.target == target:
                continue
            if watch is not None and watch.target.address == target.address:
                watch.target = target
                continue
            # Another address is another way to it, of which nothing is known yet.
            watch = self._watches[target.node] = NodeWatch(target)
            self._set_due(watch, now + self._rng.uniform(0.0, self._settings.peace_period_s))
        for node in gone:
            del self._watches[node]
        self._by_zone = {}
        for node, watch in self._watches.items():
            if node != self._settings.node:
                self._by_zone.setdefault(watch.target.zone, []).append(watch)

    def _lane_of(self, watch: NodeWatch, now: float) -> _Lane:
        quick = watch.wants_quick_repeat(self._settings.rounds_to_down)
        return self._asked if quick or watch.asked_until > now else self._peace

    def _set_due(self, watch: NodeWatch, due_at: float) -> None:
        watch.due_at = due_at
        lane = self._lane_of(watch, self._clock.now())
        heapq.heappush(lane.due, (due_at, watch.target.node))
        if due_at < self._next_at:
            self._wake.set()

    def _start_due(self, tasks: asyncio.TaskGroup, lane: _Lane, now: float) -> float:
        """Start what is due in a lane and fits; return when the next one is due."""
        while lane.due and lane.due[0][0] <= now:
            if lane.full:
                return float("inf")  # the end of a round wakes the scheduler
            due_at, node = heapq.heappop(lane.due)
            watch = self._watches.get(node)
            if watch is None or watch.probing or watch.due_at != due_at:
                continue  # an older entry of a node that was moved since
            watch.probing = True
            lane.in_flight += 1
            tasks.create_task(self._look(watch, lane), name=f"probe-{node}")
        return lane.due[0][0] if lane.due else float("inf")

    # --- a round ----------------------------------------------------------------------------------

    async def _look(self, watch: NodeWatch, lane: _Lane) -> None:
        began_at = self._clock.now()
        asked = watch.asked_until > began_at
        try:
            heard, references = await self._hear(watch, began_at, asked=asked)
            said = watch.judge(
                heard, references=references, rounds_to_down=self._settings.rounds_to_down
            )
            # An ask that arrived while this round was in flight deserves its answer, too.
            asked = asked or watch.asked_until > self._clock.now()
            if self._watches.get(watch.target.node) is watch:
                self._tell(watch, said, asked=asked)
        finally:
            watch.probing = False
            if lane.full:
                self._wake.set()
            lane.in_flight -= 1
            if self._watches.get(watch.target.node) is watch:
                self._set_due(watch, self._next_due(watch, began_at))

    async def _hear(self, watch: NodeWatch, began_at: float, *, asked: bool) -> tuple[Round, bool]:
        """Return what was heard, and in case of silence whether references answered meanwhile."""
        if not (asked or watch.failures):
            heard = await self._rounds.peaceful(watch.target, watch.answered)
        elif watch.failures:  # likely silent again: do not wait for one after the other
            heard, _ = await asyncio.gather(
                self._rounds.every(watch.target), self._references.check(began_at)
            )
        else:
            heard = await self._rounds.every(watch.target)
        if heard.heard is not Heard.SILENCE or not watch.reached:
            return heard, True
        check = await self._references.check(began_at)
        if not check.reached:
            self._publish_life()
        return heard, check.reached

    def _next_due(self, watch: NodeWatch, began_at: float) -> float:
        now, settings = self._clock.now(), self._settings
        if self._lane_of(watch, now) is self._asked:
            return max(now, began_at + settings.asked_period_s)
        # A tenth of jitter keeps the nodes from falling into step.
        return max(now, began_at + settings.peace_period_s * self._rng.uniform(0.9, 1.1))

    # --- what is said -----------------------------------------------------------------------------

    def _tell(self, watch: NodeWatch, said: Said, *, asked: bool) -> None:
        now = self._clock.now()
        changed = said.reading is not watch.published
        stale = now - watch.published_at >= self._settings.refresh_s
        if not (asked or (said.settled and (changed or stale))):
            return
        first = watch.published is None  # found at our start rather than seen to change
        watch.published = said.reading
        # Refreshes of nodes that were all met at once must not travel all at once for ever.
        share = _share_of(watch.target.node) if first else 0.0
        watch.published_at = now - share * self._settings.refresh_s
        beat = first or not changed
        self._publish(node_subject(watch.target.node), said.reading, said.detail, beat=beat)

    async def _live(self) -> None:
        """Say every few seconds that we live, and whether we can be believed."""
        while True:
            check = await self._references.check(self._clock.now())
            self._publish_life(always=True)
            await asyncio.sleep(self._settings.life_s if check.reached else _LIFE_RECHECK_S)

    def _publish_life(self, *, always: bool = False) -> None:
        now = self._clock.now()
        check = self._references.last
        late_s = self._rounds.lateness.since(now - self._settings.life_s)
        detail = f"{check.detail}, {len(self._watches)} nodes known"
        if late_s:  # told only: a round that was late has convicted nobody
            detail += f", our own timers {late_s:.1f} s late"
        reading = Reading.UP if check.reached else Reading.UNKNOWN
        changed = reading is not self._life[0] or self._life_at == float("-inf")
        due = always and now - self._life_at >= self._settings.life_s / 2
        if not (changed or due):
            return
        if changed:
            log.info("vantage_life", vantage=self.name, reading=reading.value, detail=detail)
        self._metrics.vantage_up.set(reading is Reading.UP)
        self._life = (reading, detail)
        self._life_at = now
        self._publish(vantage_subject(self.name), reading, detail, beat=True)

    def _publish(self, subject: Subject, reading: Reading, detail: str, *, beat: bool) -> None:
        signal = Signal(
            plane=Plane.NETWORK,
            source=self.name,
            subject=subject,
            reading=reading,
            at=self._clock.now(),
            zone=self._zone,
            detail=detail,
            by=self._origin,
        )
        wire.offer(self._publisher, signal, beat=beat)


def _share_of(node: str) -> float:
    """Return a number between 0 and 1 that is a node's own."""
    return zlib.crc32(node.encode()) / 2**32
