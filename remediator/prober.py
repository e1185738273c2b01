"""The composition root of ``remediator probe``: a vantage point that needs nothing but NATS.

It reads the nodes from the INVENTORY stream, hears calls to probe, and publishes what it sees. It
never makes a stream: those are the daemon's, and it waits for them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final

import msgspec
import structlog
from aiohttp import web

from remediator.api.vitals import Part, serving, vitals_app
from remediator.bus.ask_channel import NatsAskChannel
from remediator.bus.connection import BusConnection, connect
from remediator.bus.node_directory import NodeDirectory
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.publisher import Publisher
from remediator.bus.settings import EMBEDDED, NatsConfigError
from remediator.clock import Clock
from remediator.config import Settings
from remediator.engine.model import Reading
from remediator.exit_codes import ExitCode
from remediator.metrics import METRICS, Metrics
from remediator.probes.socket_dial import SocketDial
from remediator.probes.targets import Target, target_of
from remediator.probes.vantage import Vantage
from remediator.process import Endings, raise_file_limit, serve

log = structlog.get_logger(__name__)

MEASURE_EVERY_S: Final = 5.0


class ListenError(Exception):
    """The HTTP port cannot be had; the text is one line."""


_ENDINGS: Final[Endings] = (
    (NatsConfigError, ExitCode.USAGE),
    (ListenError, ExitCode.USAGE),
    (BusUnavailableError, ExitCode.NO_NATS),
)


def probe(settings: Settings, *, http_port: int | None = None) -> ExitCode:
    """Probe until SIGTERM, SIGINT or an error that it cannot outlive.

    ``http_port``: where health and metrics listen, on ``http.host``; None: nowhere.
    """
    raise_file_limit()
    return serve(lambda: _run(settings, http_port), _ENDINGS, last_line="prober_ends")


async def _run(settings: Settings, http_port: int | None) -> None:
    clock, rng = Clock(), random.Random()  # noqa: S311 - jitter is no secret
    probes = settings.probes
    probes = msgspec.structs.replace(probes, vantage=probes.vantage or f"probe-{settings.identity}")
    if settings.nats.url == EMBEDDED:
        raise NatsConfigError("nats.url: a prober needs the URL of the daemon's NATS (--nats URL)")
    if not (probes.zone or probes.node):
        log.warning(
            "zone_unknown",
            hint="all vantage points without a zone count as one; give --zone or --node",
        )
    async with AsyncExitStack() as stack:
        connection = await connect(settings.nats, f"remediator-probe-{probes.vantage}", rng=rng)
        stack.push_async_callback(connection.close)
        dial = SocketDial()
        stack.push_async_callback(dial.close)
        publisher = Publisher(connection, rng=rng)
        directory = NodeDirectory(connection, rng=rng)
        asks = NatsAskChannel(connection)

        def targets() -> Iterator[Target]:
            return map(target_of, directory.nodes.values())

        vantage = Vantage(dial, targets, publisher, clock, rng=rng, settings=probes)
        if http_port is not None:
            app = vitals_app(readiness=lambda: _readiness(connection, directory, vantage))
            await _listen(stack, app, settings.http.host, http_port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run(), name="publisher")
            tasks.create_task(directory.run(), name="nodes")
            tasks.create_task(asks.listen(vantage.ask), name="asks")
            tasks.create_task(_measure(connection, publisher), name="metrics")
            await vantage.run()


def _readiness(
    connection: BusConnection, directory: NodeDirectory, vantage: Vantage
) -> dict[str, Part]:
    """Return how each part is. One that is cut off from its references is ready: it says so."""
    reading, why = vantage.life
    return {
        "nats": Part(
            ok=connection.connected, detail="connected" if connection.connected else "away"
        ),
        "nodes": Part(
            ok=bool(directory.nodes),
            detail=f"{len(directory.nodes)} known"
            if directory.nodes
            else "none known: has a daemon led on this NATS since it started?",
        ),
        "sight": Part(ok=reading is Reading.UP, detail=why, needed=False),
    }


async def _listen(stack: AsyncExitStack, app: web.Application, host: str, port: int) -> None:
    try:
        await stack.enter_async_context(serving(app, host, port))
    except OSError as error:
        raise ListenError(
            f"http: cannot listen on {host}:{port}: {error.strerror or error}"
        ) from error


async def _measure(
    connection: BusConnection, publisher: Publisher, metrics: Metrics = METRICS
) -> None:
    """Keep the gauges of the way to NATS true until cancelled."""
    published = retried = dropped = 0
    while True:
        metrics.nats_connected.set(connection.connected)
        metrics.nats_published.inc(publisher.published - published)
        metrics.nats_retried.inc(publisher.retried - retried)
        metrics.nats_dropped.inc(publisher.dropped - dropped)
        published, retried, dropped = publisher.published, publisher.retried, publisher.dropped
        await asyncio.sleep(MEASURE_EVERY_S)
