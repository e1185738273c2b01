"""The webhook's own HTTPS listener: served by every replica, whether it leads or not.

Apart from the API's listener, so that neither the decision log nor metrics are reachable where the
API server connects, and a flood of the one does not slow the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from remediator.admission.certificate import Certificate
from remediator.admission.review import Reviewer
from remediator.admission_settings import AdmissionSettings

log = structlog.get_logger(__name__)

PATH: Final = "/mutate-launcher-pods"
# A kube-apiserver takes objects of up to 3 MiB in JSON, and a review holds the old one, too.
BODY_MAX: Final = 8 * 1024 * 1024
_BODY_S: Final = 5.0  # for a body to arrive: the webhook's timeout is shorter
_HANDSHAKE_S: Final = 5.0
_SHUTDOWN_S: Final = 2.0

_TEXT: Final = "text/plain"
_JSON: Final = "application/json"


def make_app(reviewer: Reviewer) -> web.Application:
    """Return the application: one path, one method."""

    async def mutate(request: web.Request) -> web.Response:
        if request.content_type not in (_JSON, "application/octet-stream"):
            return web.Response(status=415, text=f"send {_JSON}")
        try:
            async with asyncio.timeout(_BODY_S):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="the body did not arrive in time")
        except web.HTTPRequestEntityTooLarge:
            return web.Response(status=413, text=f"more than {BODY_MAX} bytes")
        answer = reviewer.review(body)
        kind = _JSON if answer.status == 200 else _TEXT
        return web.Response(status=answer.status, body=answer.body, content_type=kind)

    app = web.Application(client_max_size=BODY_MAX)
    app.router.add_post(PATH, mutate)
    return app


@asynccontextmanager
async def serving(
    reviewer: Reviewer,
    certificate: Certificate,
    settings: AdmissionSettings,
) -> AsyncIterator[int]:
    """Serve for the length of the block; yields the port. Raises OSError, CertificateError."""
    certificate.load()
    runner = web.AppRunner(
        make_app(reviewer),
        access_log=None,
        shutdown_timeout=_SHUTDOWN_S,
        keepalive_timeout=120.0,  # the API server keeps its connections for long
    )
    await runner.setup()
    server: asyncio.Server | None = None
    following: asyncio.Task[None] | None = None
    try:
        assert runner.server is not None
        server = await asyncio.get_running_loop().create_server(
            runner.server,
            settings.host,
            settings.port,
            ssl=certificate.context,
            ssl_handshake_timeout=_HANDSHAKE_S,
            backlog=1024,
        )
        port = server.sockets[0].getsockname()[1]
        log.info("webhook_listening", host=settings.host, port=port, path=PATH)
        following = asyncio.create_task(certificate.follow(settings.reload_s), name="certificate")
        yield port
    finally:
        if following is not None:
            following.cancel()
        if server is not None:
            server.close()
        await runner.cleanup()
