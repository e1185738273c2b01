"""The composition root: opens every door, runs one replica, and ends in order.

``serve`` returns the exit code of ``remediator run``; what they mean is in docs/exit-codes.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from remediator import process
from remediator.actions.fence.agent_catalog import AgentCatalog
from remediator.actions.fence.credentials import CredentialsError
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.fence.loading import check_logins, load, unreadable_secrets
from remediator.admission.certificate import Certificate, CertificateError
from remediator.admission.server import serving as serving_webhook
from remediator.admission_settings import WITHOUT_WEBHOOK
from remediator.api.app import make_app, serving
from remediator.bus.ask_channel import NatsAskChannel
from remediator.bus.connection import BusConnection, JetStreamError, connect
from remediator.bus.consumer import Consumer
from remediator.bus.embedded import EmbeddedServer, EmbeddedServerError
from remediator.bus.journal_stream import NatsJournal
from remediator.bus.pace_channel import NatsPaceChannel
from remediator.bus.protocols import AppendRefusedError, BusUnavailableError
from remediator.bus.publisher import Publisher
from remediator.bus.queries import round_trip
from remediator.bus.settings import EMBEDDED, NatsConfigError
from remediator.bus.streams import StreamUnfitError, ensure_all
from remediator.clock import Clock
from remediator.config import Settings
from remediator.documents import DocumentError
from remediator.engine.chain import ChainError
from remediator.engine.rules import Policy
from remediator.exit_codes import ExitCode
from remediator.fence_config.loader import FenceConfig
from remediator.fence_config.shorthand import from_device
from remediator.fence_desk import FenceDesk
from remediator.fence_settings import RedfishDevice
from remediator.health import measure, readiness
from remediator.health_desk import HealthDesk
from remediator.journal.projector import Projector
from remediator.journal.schema import StoreError
from remediator.journal.store import DecisionStore
from remediator.kube.client import KubeClient
from remediator.kube.cluster import ClusterTransport, KubeconfigError
from remediator.kube.errors import ApiError
from remediator.kube.objects import NODES
from remediator.kube.transport import TransportError
from remediator.logs import register_secret
from remediator.order_desk import OrderDesk
from remediator.own_health import LoopLag, Senses
from remediator.policy.loader import load_directory
from remediator.probes.socket_dial import SocketDial
from remediator.process import Endings, raise_file_limit
from remediator.replica import Doors, Replica, ReplicaSettings
from remediator.watchers.inventory import WatcherSettings

log = structlog.get_logger(__name__)


class ListenError(Exception):
    """The HTTP port cannot be had; the text is one line."""


class SecretFileError(Exception):
    """A file that a setting names for a password cannot be used; the text is one line."""


class NoClusterError(Exception):
    """The API server does not answer, or not to us; the text is one line and says whose it is."""


FIRST_ANSWER_S = 10.0  # for the API server, at start
LAST_LOOK_S = 5.0  # for the projector to find a broken link that the replica found

# What ends the daemon with a clear line, and the exit code that it ends with.
_ENDINGS: Endings = (
    (DocumentError, ExitCode.USAGE),  # policies and fence configurations
    (ListenError, ExitCode.USAGE),
    (SecretFileError, ExitCode.USAGE),
    (CertificateError, ExitCode.USAGE),
    (NatsConfigError, ExitCode.USAGE),
    (KubeconfigError, ExitCode.NO_KUBERNETES),
    (NoClusterError, ExitCode.NO_KUBERNETES),
    (TransportError, ExitCode.NO_KUBERNETES),
    (ApiError, ExitCode.NO_KUBERNETES),
    (EmbeddedServerError, ExitCode.NO_NATS),
    (BusUnavailableError, ExitCode.NO_NATS),
    (StreamUnfitError, ExitCode.NO_NATS),
    (JetStreamError, ExitCode.NO_NATS),
    (ChainError, ExitCode.JOURNAL),
    (StoreError, ExitCode.JOURNAL),
    (AppendRefusedError, ExitCode.DEPOSED),
)


def serve(settings: Settings) -> ExitCode:
    """Run the daemon until SIGTERM, SIGINT or an error that it cannot outlive."""
    raise_file_limit()
    return process.serve(lambda: _run(settings), _ENDINGS, last_line="daemon_ends")


async def _run(settings: Settings) -> None:
    clock, rng = Clock(), random.Random()  # noqa: S311 - jitter is no secret
    policies = load_directory(Path(settings.policies))
    for number, device in enumerate(settings.fence.devices):
        _check_password(number, device)
    catalog = AgentCatalog()
    fence_configs = await _load_fence_configs(settings, catalog)
    async with AsyncExitStack() as stack:
        cluster = await _open_cluster(settings, stack)
        connection, server = await _open_bus(settings, stack)
        journal = NatsJournal(connection, rng=rng)
        store = await DecisionStore.open(Path(settings.journal.path))
        stack.push_async_callback(store.close)
        kube = KubeClient(cluster)
        namespace = settings.kube.namespace
        for why in await unreadable_secrets(fence_configs, kube, clock, namespace):
            log.warning("fence_login_unreadable", why=why)  # RBAC may come later
        factory = DriverFactory(clock, client=kube, namespace=namespace, metadata=catalog.metadata)
        devices = FenceDevices(fence_configs, clock, factory)
        stack.push_async_callback(devices.close)
        dial = SocketDial()
        stack.push_async_callback(dial.close)
        publisher = Publisher(connection, rng=rng)
        projector = Projector(journal, store)
        lag = LoopLag()
        replica = Replica(
            Doors(
                cluster=cluster,
                publisher=publisher,
                source=lambda: Consumer(connection, rng=rng),
                journal=journal,
                devices=devices,
                agents=catalog,
                dial=dial,
                asks=NatsAskChannel(connection),
                pace=NatsPaceChannel(connection),
                dead_letters=publisher,
            ),
            _replica_settings(settings, policies),
            clock,
            rng,
            senses=Senses(
                loop_lag=lag.take,
                round_trip=lambda timeout_s: round_trip(connection, timeout_s),
            ),
        )
        replica.on_overrun = process.give_up

        async def back() -> None:
            await ensure_all(connection)  # memory streams do not survive a restart of the server
            replica.start_over()

        connection.on_reconnect.append(back)
        publisher.on_loss.append(replica.start_over)
        desk = HealthDesk(replica, connection, clock)
        fence_desk = FenceDesk(replica, connection, clock)
        replica.while_leading = _together(
            desk.run, OrderDesk(replica, connection).run, fence_desk.run
        )
        app = make_app(
            readiness=lambda: readiness(replica, connection, projector, clock.now()),
            journal=store,
            now=clock.now,
            health=desk,
            fence=fence_desk,
        )
        log.info(
            "starting",
            mode=settings.mode,
            identity=settings.identity,
            cluster=cluster.source,
            policies=[policy.name for policy in policies],
            fence_configs=[config.name for config in fence_configs],
        )
        await _listen(app, settings, stack)
        await _serve_webhook(replica, settings, clock, stack)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run(), name="publisher")
            tasks.create_task(projector.run(), name="projector")
            tasks.create_task(measure(replica, connection, publisher, clock), name="metrics")
            tasks.create_task(lag.run(), name="lag")
            tasks.create_task(desk.count(), name="verdicts")
            if server is not None:
                tasks.create_task(server.run(), name="nats-server")
            try:
                await replica.run()
            except ChainError:
                await _project_break(projector)
                raise


def _replica_settings(settings: Settings, policies: Sequence[Policy]) -> ReplicaSettings:
    """Return what the replica must know of the settings."""
    return ReplicaSettings(
        identity=_unique(settings.identity),
        enforce=settings.mode == "enforce",
        engine=settings.engine,
        policies=policies,
        policies_directory=Path(settings.policies),
        namespace=settings.kube.namespace,
        lease_name=settings.election.lease_name,
        election=settings.election.timing,
        # Unlike the identity the same after a restart: it is the place that matters.
        probes=msgspec.structs.replace(
            settings.probes, vantage=settings.probes.vantage or settings.identity
        ),
        signals=settings.signals,
        admission=settings.admission,
        watchers=WatcherSettings(storage=settings.storage),
    )


def _together(
    *works: Callable[[], Coroutine[None, None, None]],
) -> Callable[[], Coroutine[None, None, None]]:
    """Return the work of doing all of these until cancelled."""

    async def work() -> None:
        await asyncio.gather(*(each() for each in works))

    return work


async def _project_break(projector: Projector) -> None:
    """Wait a moment until the broken link stands in the local file too.

    The daemon ends, and the embedded server with it: ``decisions verify`` has nothing else to read.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_LOOK_S):
            while projector.broken_at is None:  # noqa: ASYNC110 - once, at the very end
                await asyncio.sleep(0.05)


async def _open_cluster(settings: Settings, stack: AsyncExitStack) -> ClusterTransport:
    """Open the API server and see that it answers, knows us and lets us look.

    Nodes are asked for, since ``/version`` is answered to anybody. Later refusals end nothing.
    Raises KubeconfigError, NoClusterError.
    """
    cluster = await ClusterTransport.open(
        kubeconfig=settings.kube.kubeconfig or None, context=settings.kube.context or None
    )
    stack.push_async_callback(cluster.close)
    client = KubeClient(cluster)
    try:
        await client.get(NODES.path, dict, query=[("limit", "1")], timeout_s=FIRST_ANSWER_S)
    except (ApiError, TransportError) as error:
        raise NoClusterError(f"{cluster.source}: {error}") from error
    return cluster


async def _open_bus(
    settings: Settings, stack: AsyncExitStack
) -> tuple[BusConnection, EmbeddedServer | None]:
    """Start the embedded server, if asked for, connect, and bring the streams to their state.

    Raises EmbeddedServerError, NatsConfigError, BusUnavailableError, StreamUnfitError,
    JetStreamError.
    """
    nats = settings.nats
    server: EmbeddedServer | None = None
    if nats.url == EMBEDDED:
        server = EmbeddedServer(Path(nats.embedded_dir))
        nats = await server.start()
        stack.push_async_callback(server.stop)
    connection = await connect(nats, f"remediator-{settings.identity}")
    stack.push_async_callback(connection.close)
    await ensure_all(connection)
    return connection, server


async def _listen(app: web.Application, settings: Settings, stack: AsyncExitStack) -> None:
    http = settings.http
    try:
        await stack.enter_async_context(serving(app, http.host, http.port))
    except OSError as error:
        raise ListenError(
            f"http: cannot listen on {http.host}:{http.port}: {error.strerror or error}"
        ) from error


async def _serve_webhook(
    replica: Replica, settings: Settings, clock: Clock, stack: AsyncExitStack
) -> None:
    """Serve the admission gate, or say which pace cannot be kept without it.

    Raises ListenError, CertificateError.
    """
    admission = settings.admission
    if not admission.enabled:
        log.info("webhook_off", meaning=WITHOUT_WEBHOOK)
        return
    certificate = Certificate(admission.cert_file, admission.key_file, clock)
    try:
        await stack.enter_async_context(serving_webhook(replica.reviewer, certificate, admission))
    except OSError as error:
        raise ListenError(
            f"admission: cannot listen on {admission.host}:{admission.port}: "
            f"{error.strerror or error}"
        ) from error


async def _load_fence_configs(settings: Settings, catalog: AgentCatalog) -> list[FenceConfig]:
    """Read what fences, and see that it could. Raises DocumentError, SecretFileError."""
    directory = Path(settings.fence.configs) if settings.fence.configs else None
    shorthand = [from_device(device) for device in settings.fence.devices]
    configs = await load(directory, shorthand, catalog)
    try:
        check_logins(configs)
    except CredentialsError as error:
        raise SecretFileError(str(error)) from error
    return configs


def _check_password(number: int, device: RedfishDevice) -> None:
    """See that a fence device can be logged in to, before a host dies; keep the password unlogged.

    While the daemon runs the file is read at each use, and a missing one makes the power unknown:
    a secret that is being rotated ends nothing. Raises SecretFileError.
    """
    key = f"fence.devices[{number}].password_file"
    try:
        password = Path(device.password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SecretFileError(f"{key}: {device.password_file}: {reason}") from error
    if not password:
        raise SecretFileError(f"{key}: {device.password_file}: is empty")
    register_secret(password)


def _unique(identity: str) -> str:
    """Return an identity that no other process has: two with one host name must not both lead."""
    return f"{identity}_{secrets.token_hex(4)}"
