"""The routes, and the server that carries them inside the daemon's own event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
from aiohttp import web

from remediator.api.fence import add_fence_routes
from remediator.api.health import add_health_routes
from remediator.api.problems import ProblemError
from remediator.api.queries import read_flag, read_query, read_seq
from remediator.api.vitals import (
    REQUEST_TIMEOUT_S,
    Part,
    Readiness,
    json_answer,
    serving,
    vitals_app,
)
from remediator.fence_query import FenceReader
from remediator.health_query import HealthReader
from remediator.journal.explain import explain
from remediator.journal.query import DecisionQuery, StoredDecision
from remediator.journal.schema import StoreError
from remediator.metrics import METRICS, Metrics

__all__ = ["JournalReader", "Part", "Readiness", "make_app", "serving"]

T = TypeVar("T")


class JournalReader(Protocol):
    """What the API asks of the journal; ``DecisionStore`` has it. All raise StoreError."""

    async def select(self, query: DecisionQuery) -> list[StoredDecision]:
        """Return one page of records."""
        ...

    async def get(self, seq: int) -> StoredDecision | None:
        """Return one record."""
        ...

    async def story(self, incident: str) -> list[StoredDecision]:
        """Return an incident's records, oldest first."""
        ...


def make_app(
    *,
    readiness: Readiness,
    journal: JournalReader,
    now: Callable[[], float],
    metrics: Metrics = METRICS,
    health: HealthReader | None = None,
    fence: FenceReader | None = None,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> web.Application:
    """Return the application. ``now`` is the daemon's clock, for questions such as ``since=2h``."""
    app = vitals_app(readiness=readiness, metrics=metrics, timeout_s=timeout_s)
    routes = _Routes(journal, now)
    app.router.add_get("/api/v1/decisions", routes.decisions)
    app.router.add_get("/api/v1/decisions/{seq}", routes.decision)
    if health is not None:
        add_health_routes(app, health)
    if fence is not None:
        add_fence_routes(app, fence)
    return app


class _Routes:
    def __init__(self, journal: JournalReader, now: Callable[[], float]) -> None:
        self._journal = journal
        self._now = now

    async def decisions(self, request: web.Request) -> web.Response:
        """Return a page of records, newest first, and where the next page begins.

        With ``raw=true`` each item holds the exact bytes (as text) that the chain is computed over.
        """
        raw = read_flag(request.query, "raw")
        query = read_query(request.query, self._now())
        found = await self._ask(self._journal.select(query))
        items = [
            {"seq": one.seq, "payload": one.payload.decode()} if raw else msgspec.Raw(one.payload)
            for one in found
        ]
        more = bool(found) and len(found) == query.limit
        following = query.after_seq is not None
        return json_answer(
            {
                "decisions": items,
                "next_before_seq": found[-1].seq if more and not following else None,
                "next_after_seq": found[-1].seq if found and following else None,
            }
        )

    async def decision(self, request: web.Request) -> web.Response:
        """Return one record with its explanation in plain words."""
        seq = read_seq(request.match_info["seq"])
        raw = read_flag(request.query, "raw")
        found = await self._ask(self._journal.get(seq))
        if found is None:
            raise ProblemError(404, f"there is no decision {seq} in this daemon's journal")
        if raw:
            return json_answer({"seq": found.seq, "payload": found.payload.decode()})
        decision = found.decision
        story = await self._ask(self._journal.story(decision.incident)) if decision.incident else []
        return json_answer(
            {
                "decision": msgspec.Raw(found.payload),
                "explanation": explain(decision, [one.decision for one in story]),
                "incident_seqs": [one.seq for one in story],
            }
        )

    async def _ask(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except StoreError as error:
            raise ProblemError(503, f"the local journal cannot be read now: {error}") from error
