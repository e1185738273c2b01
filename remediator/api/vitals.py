"""What every process of ours answers over HTTP: alive, ready, metrics; and the server for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec
import structlog
from aiohttp import web

from remediator.api.problems import middleware
from remediator.metrics import CONTENT_TYPE as METRICS_TYPE
from remediator.metrics import METRICS, Metrics

_log = structlog.get_logger(__name__)

BODY_LIMIT = 16 * 1024  # nothing here takes a body
REQUEST_TIMEOUT_S = 10.0
SHUTDOWN_S = 3.0  # of the ten seconds that the whole process has to end
KEEPALIVE_S = 30.0


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How one part of the process is. ``needed`` parts must be ok for it to be ready."""

    ok: bool
    detail: str = ""
    needed: bool = True


Readiness = Callable[[], Mapping[str, Part]]  # part ("watches", "nats", "journal", "leader")


def vitals_app(
    *,
    readiness: Readiness,
    metrics: Metrics = METRICS,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> web.Application:
    """Return an application with the routes that every process has."""
    app = web.Application(client_max_size=BODY_LIMIT, middlewares=[middleware(timeout_s=timeout_s)])
    routes = _Routes(readiness, metrics)
    app.router.add_get("/healthz", routes.healthz)
    app.router.add_get("/readyz", routes.readyz)
    app.router.add_get("/metrics", routes.metrics)
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


def json_answer(value: object, status: int = 200) -> web.Response:
    """Return an answer in JSON."""
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )


class _Routes:
    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics

    async def healthz(self, _request: web.Request) -> web.Response:
        """Alive: the event loop answers. Nothing else, or an outage of NATS would kill the pod."""
        return json_answer({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Ready: every needed part is ok; the body says how each one is."""
        parts = dict(self._readiness())
        ready = all(part.ok for part in parts.values() if part.needed)
        return json_answer({"ready": ready, "parts": parts}, 200 if ready else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus exposition, rendered off the event loop."""
        text = await asyncio.to_thread(self._metrics.render)
        return web.Response(body=text, headers={"Content-Type": METRICS_TYPE})
