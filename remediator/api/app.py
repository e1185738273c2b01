"""The routes, and the server that carries them inside the daemon's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import msgspec
import structlog
from aiohttp import web

from remediator.api.problems import ProblemError, middleware
from remediator.api.queries import read_flag, read_query, read_seq
from remediator.journal.explain import explain
from remediator.journal.query import DecisionQuery, StoredDecision
from remediator.journal.schema import StoreError
from remediator.metrics import CONTENT_TYPE as METRICS_TYPE
from remediator.metrics import METRICS, Metrics

_log = structlog.get_logger(__name__)

T = TypeVar("T")

BODY_LIMIT = 16 * 1024  # nothing here takes a body
REQUEST_TIMEOUT_S = 10.0
SHUTDOWN_S = 3.0  # of the ten seconds that the whole daemon has to end
KEEPALIVE_S = 30.0


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How one part of the daemon is. ``needed`` parts must be ok for the daemon to be ready."""

    ok: bool
    detail: str = ""
    needed: bool = True


Readiness = Callable[[], Mapping[str, Part]]  # part ("watches", "nats", "journal", "leader")


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
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> web.Application:
    """Return the application. ``now`` is the daemon's clock, for questions such as ``since=2h``."""
    app = web.Application(client_max_size=BODY_LIMIT, middlewares=[middleware(timeout_s=timeout_s)])
    routes = _Routes(readiness, journal, now, metrics)
    app.router.add_get("/healthz", routes.healthz)
    app.router.add_get("/readyz", routes.readyz)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/api/v1/decisions", routes.decisions)
    app.router.add_get("/api/v1/decisions/{seq}", routes.decision)
    return app


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve ``app`` while the block runs; yields the port. Raises OSError if it cannot listen."""
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN_S,
        keepalive_timeout=KEEPALIVE_S,
    )  # fmt: skip
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = int(runner.addresses[0][1])
        _log.info("http_listening", host=host, port=bound)
        yield bound
    finally:
        await runner.cleanup()


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )


class _Routes:
    def __init__(
        self,
        readiness: Readiness,
        journal: JournalReader,
        now: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._readiness = readiness
        self._journal = journal
        self._now = now
        self._metrics = metrics

    async def healthz(self, _request: web.Request) -> web.Response:
        """Alive: the event loop answers. Nothing else, or an outage of NATS would kill the pod."""
        return _json({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Ready: every needed part is ok; the body says how each one is."""
        parts = dict(self._readiness())
        ready = all(part.ok for part in parts.values() if part.needed)
        return _json({"ready": ready, "parts": parts}, 200 if ready else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus exposition, rendered off the event loop."""
        text = await asyncio.to_thread(self._metrics.render)
        return web.Response(body=text, headers={"Content-Type": METRICS_TYPE})

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
        return _json(
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
            return _json({"seq": found.seq, "payload": found.payload.decode()})
        decision = found.decision
        story = await self._ask(self._journal.story(decision.incident)) if decision.incident else []
        return _json(
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
