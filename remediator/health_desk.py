"""Answers ``remediator health``: the leader from its engine, every other replica by asking it.

The engine lives on the event loop, and so do its views: nothing is copied and no thread looks on.
A view of the whole cluster is made a slice at a time, and between slices the loop goes on; each
line is true at the moment it was made. Askers who come together share one view.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Generator
from typing import TypeVar

import msgspec
import structlog

from remediator.bus import subjects
from remediator.bus.connection import BusConnection
from remediator.bus.protocols import BusUnavailableError, NobodyAnswersError
from remediator.bus.queries import Answerer
from remediator.clock import Clock
from remediator.engine import (
    budget_view,
    evacuation_view,
    health_view,
    node_view,
    pacing_view,
    policy_view,
    vm_view,
)
from remediator.engine.machine import Engine
from remediator.engine.model import Verdict, vm_subject
from remediator.engine.views import ClusterView, NoSuch, Surroundings, WatchLine
from remediator.health_query import HealthAnswer, HealthQuery, ask_leader, decode_query, encode
from remediator.leader import Term
from remediator.metrics import METRICS, Metrics
from remediator.own_health import quiet_limit_s
from remediator.replica import Replica

log = structlog.get_logger(__name__)

# A fifth to a half of a second of work for 5,000 nodes and 50,000 VMs.
COUNT_EVERY_S = 10.0
SHARED_FOR_S = 1.0  # a view of the cluster answers everybody who asks within this
VIEWS_KEPT = 64  # zones whose view is shared

T = TypeVar("T")


class HealthDesk:
    """One replica's answers."""

    def __init__(
        self,
        replica: Replica,
        connection: BusConnection,
        clock: Clock,
    ) -> None:
        self._replica = replica
        self._connection = connection
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._shared: dict[str, tuple[float, HealthAnswer]] = {}  # zone -> when made, answer
        self._shared_of: Term | None = None

    async def run(self) -> None:
        """Answer over NATS until cancelled; for as long as this replica leads."""
        await Answerer(self._connection, subjects.QUERY_HEALTH, self.on_question).run()

    async def answer(self, query: HealthQuery) -> HealthAnswer:
        """Return the leader's answer, or say why there is none. Never raises."""
        own = await self._own(query)
        if own is not None:
            return own
        holder = self._replica.elector.holder
        me = f"this daemon follows {holder}"
        if holder in ("", self._replica.identity):
            me = "this daemon does not lead now"
        try:
            return await ask_leader(self._connection, query)
        except NobodyAnswersError:
            return HealthAnswer(status=503, detail=f"{me}, and nobody answers as leader")
        except BusUnavailableError as error:
            return HealthAnswer(status=503, detail=f"{me}, and cannot reach the leader: {error}")

    async def on_question(self, payload: bytes) -> bytes | None:
        """Answer what came over NATS; None where this replica does not lead."""
        try:
            query = decode_query(payload)
        except ValueError as error:
            answer = HealthAnswer(status=400, detail=f"not a question: {error}")
            return encode(answer) if self._leads() else None
        own = await self._own(query)
        return None if own is None else encode(own)

    async def count(self, metrics: Metrics = METRICS) -> None:
        """Keep the gauges of verdicts and of our own health true, until cancelled."""
        while True:
            view = await self._counted() if self._leads() else None
            if isinstance(view, ClusterView) and self._leads():
                nodes: Counter[str] = Counter()
                for zone in view.zones:
                    nodes.update(zone.verdicts)
                metrics.verdicts(nodes, view.vm_verdicts, view.suspicion)
                metrics.own_health(view.own.multiplier, suspended=view.own.suspended)
                self._count_ordered(metrics)
                metrics.pace(*pacing_view.counts(self._replica.engine.context))
            else:  # a follower judges nobody
                metrics.verdicts({}, {}, 0.0)
                metrics.own_health(1, suspended=False)
                metrics.ordered({}, 0)
                metrics.pace(0, 0, {}, {})
            await asyncio.sleep(COUNT_EVERY_S)

    def _count_ordered(self, metrics: Metrics) -> None:
        state, now = self._replica.engine.state, self._clock.now()
        pauses = Counter(str(each.meaning) for each in state.pauses.values())
        waiting = sum(each.waits(now) for each in state.approvals.values())
        metrics.ordered(pauses, waiting)

    async def _counted(self) -> ClusterView | NoSuch | None:
        try:
            return await self._survey()
        except Exception:
            log.exception("view_broken", view="cluster")
            return None

    def _leads(self) -> bool:
        return self._replica.elector.leader and self._replica.term is not None

    async def _own(self, query: HealthQuery) -> HealthAnswer | None:
        """Answer from this replica's engine; None where it does not lead, or has just ceased to."""
        if not self._leads():
            return None
        term = self._replica.term
        try:
            answer = await self._make(query)
        except Exception:
            # A defect in a view must neither end the leader nor leak its text; the log has it.
            log.exception("view_broken", view=query.view, name=query.name)
            answer = HealthAnswer(status=500, detail="internal error; the leader's log tells more")
        return answer if self._leads() and self._replica.term is term else None

    async def _make(self, query: HealthQuery) -> HealthAnswer:
        if query.view == "cluster":
            return await self._cluster(query.zone)
        if query.verdict and query.verdict not in set(Verdict):
            return HealthAnswer(status=400, detail=f"there is no verdict {query.verdict!r}")
        engine, around = self._replica.engine, surroundings(self._replica, self._clock.now())
        if query.view == "budgets":
            return _answer(budget_view.view(engine.context, around.at))
        if query.view == "pacing":
            found = pacing_view.view(engine.context, engine.context.now)
            return _answer(msgspec.structs.replace(found, gate=self._replica.gate))
        if query.view == "drain":
            return _answer(evacuation_view.preview(engine.context, around, query.name))
        if query.view == "policies":
            return _answer(_policies(engine, around, query))
        if query.view == "node":
            return _answer(node_view.view(engine.context, engine.vms, around, query.name))
        return _answer(
            vm_view.view(engine.context, engine.vms, around, query.namespace, query.name)
        )

    async def _cluster(self, zone: str) -> HealthAnswer:
        async with self._one_at_a_time:
            if self._shared_of is not self._replica.term:
                self._shared, self._shared_of = {}, self._replica.term
            made_at, shared = self._shared.get(zone, (0.0, None))
            if shared is not None and self._clock.now() - made_at <= SHARED_FOR_S:
                return shared
            view = await self._survey(zone)
            answer = _answer(view)
            if len(self._shared) >= VIEWS_KEPT:
                self._shared.clear()
            self._shared[zone] = (self._clock.now(), answer)
            return answer

    async def _survey(self, zone: str = "") -> ClusterView | NoSuch:
        engine = self._replica.engine
        work = health_view.survey(
            engine.context, engine.vms, surroundings(self._replica, self._clock.now()), zone=zone
        )
        return await _by_slices(work)


def _policies(
    engine: Engine, around: Surroundings, query: HealthQuery
) -> policy_view.PolicyView | NoSuch:
    assumed = Verdict(query.verdict) if query.verdict else None
    if not query.namespace:
        return policy_view.node_view(engine.context, around, query.name, assumed)
    subject = vm_subject(query.namespace, query.name)
    return policy_view.vm_view(engine.context, engine.vms, around, subject, assumed)


def surroundings(replica: Replica, now: float) -> Surroundings:
    """Return what a leader knows besides its engine, as of ``now``."""
    return Surroundings(
        at=now,
        watches=tuple(
            WatchLine(
                name=name,
                synced=watch.synced,
                absent=watch.absent,
                quiet_s=max(0.0, now - watch.last_progress_at) if watch.synced else None,
                limit_s=quiet_limit_s(name, replica.detection),
            )
            for name, watch in replica.watchers.health().items()
        ),
    )


def _answer(view: msgspec.Struct) -> HealthAnswer:
    if isinstance(view, NoSuch):
        return HealthAnswer(status=404, detail=view.detail)
    return HealthAnswer(status=200, view=msgspec.Raw(msgspec.json.encode(view)))


async def _by_slices(work: Generator[None, None, T]) -> T:
    """Run it to its end and return its result, with a turn for everybody else after each slice."""
    with contextlib.closing(work):
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: T = done.value
                return result
            await asyncio.sleep(0)
