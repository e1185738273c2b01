"""Answers ``remediator fence check``: the leader from its table, other replicas by asking it."""

from __future__ import annotations

from remediator.bus import subjects
from remediator.bus.connection import BusConnection
from remediator.bus.protocols import BusUnavailableError, NobodyAnswersError
from remediator.bus.queries import Answerer
from remediator.clock import Clock
from remediator.fence_query import (
    PAGE_ROWS,
    FenceAnswer,
    FenceQuery,
    ask_leader,
    decode_query,
    encode,
    first_names,
)
from remediator.replica import Replica


class FenceDesk:
    """One replica's answers."""

    def __init__(self, replica: Replica, connection: BusConnection, clock: Clock) -> None:
        self._replica = replica
        self._connection = connection
        self._clock = clock

    async def run(self) -> None:
        """Answer over NATS until cancelled; for as long as this replica leads."""
        await Answerer(self._connection, subjects.QUERY_FENCE, self.on_question).run()

    async def answer(self, query: FenceQuery) -> FenceAnswer:
        """Return the leader's answer, or say why there is none. Never raises."""
        if self._leads():
            return self._own(query)
        try:
            return await ask_leader(self._connection, query)
        except NobodyAnswersError:
            return FenceAnswer(status=503, detail="this daemon does not lead, and nobody else does")
        except BusUnavailableError as error:
            return FenceAnswer(status=503, detail=f"the leader cannot be reached: {error}")

    async def on_question(self, payload: bytes) -> bytes | None:
        """Answer what came over NATS; None where this replica does not lead."""
        if not self._leads():
            return None
        try:
            query = decode_query(payload)
        except ValueError as error:
            return encode(FenceAnswer(status=400, detail=f"not a question: {error}"))
        return encode(self._own(query))

    def _leads(self) -> bool:
        return self._replica.elector.leader and self._replica.term is not None

    def _own(self, query: FenceQuery) -> FenceAnswer:
        checks, at = self._replica.fence_checks, self._clock.now()
        if query.now:
            checks.hurry(query.nodes)
        there = set(self._replica.watchers.node_names())
        # A node's rows stay together.
        page = checks.rows(query.nodes, after=query.after, limit=PAGE_ROWS)
        more = page[-1].node if len(page) >= PAGE_ROWS else ""
        covered = checks.covered()
        asked = sorted(there.intersection(query.nodes) if query.nodes else there)
        bare = [node for node in asked if node not in covered]
        return FenceAnswer(
            status=200,
            at=at,
            rows=tuple(page),
            more=more,
            bare=first_names(bare),
            bare_count=len(bare),
            unknown=first_names(sorted(set(query.nodes) - there)),
        )
