"""One nats-py client, opened within a deadline and closed without a sound.

nats-py reconnects by itself, but a client may also end for good (any ``-ERR`` it does not know
closes it) or stay stuck while it closes a half-open socket. So a client is a thing to throw away:
``connection.BusConnection`` replaces it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client

from remediator.bus.protocols import BusUnavailableError
from remediator.bus.settings import (
    NatsConfigError,
    NatsSettings,
    read_secret,
    redacted,
    tls_context,
)

_log = structlog.get_logger(__name__)

# A dead peer shows after 3 x 5 s. nats-py's defaults (120 s, 2) would need six minutes.
PING_INTERVAL_S = 5
MAX_OUTSTANDING_PINGS = 2
RECONNECT_WAIT_S = 0.25
HANDSHAKE_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 2.0
# Far above what the publisher's window may hold, so that nats-py's own forced flush, which waits
# without a deadline and swallows cancellation, is never reached.
PENDING_BYTES_MAX = 16 * 1024 * 1024

_REFUSED_LOGIN = ("authorization violation", "authentication")
_NO_GREETING = ("expecting info", "json parse error")


class BusRefusedError(BusUnavailableError):
    """What answers will not serve us however long we wait: wrong login, bad TLS."""


class Callbacks:
    """What a session tells its owner; each may be called at any time until it is closed."""

    def __init__(
        self,
        *,
        up: Callable[[Client], None],
        down: Callable[[Client], None],
        failed: Callable[[Client, Exception], None],
    ) -> None:
        self.up = up
        self.down = down
        self.failed = failed


async def open_client(
    settings: NatsSettings, name: str, callbacks: Callbacks, *, first: bool
) -> Client:
    """Connect within ``settings.connect_timeout_s``; ``first`` ends early on a lasting refusal.

    Raises BusUnavailableError, BusRefusedError or NatsConfigError, each with a one-line text.
    """
    client = Client()
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    last_error: list[Exception] = []

    async def on_error(error: Exception) -> None:
        # A refusal is often followed by a reset of the connection, which explains nothing.
        if not client.is_connected:
            abort_transport(client)  # nats-py forgets the socket of a failed handshake, open
            if not refused.done():
                last_error[:] = [error]
                if first and lasting(error):
                    refused.set_result(None)
        callbacks.failed(client, error)

    connecting = asyncio.create_task(
        client.connect(
            servers=settings.servers, **_options(settings, name, client, callbacks, on_error)
        )
    )
    waits: set[asyncio.Future[Any]] = {connecting, refused}
    try:
        await asyncio.wait(
            waits, timeout=settings.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if connecting.done() and not connecting.cancelled():
            error = connecting.exception()
            if error is None and settings.tls_required and not _server_demands_tls(client):
                error = _PlaintextError("nats.url says tls:// but the server does not offer TLS")
            if error is None:
                return client
            last_error[:] = [error if isinstance(error, Exception) else RuntimeError(str(error))]
    except BaseException:
        await _abandon(connecting, client)
        raise
    await _abandon(connecting, client)
    raise _explain(settings, last_error[-1] if last_error else None)


async def close_client(client: Client) -> None:
    """Close, whatever state the client is in: nats-py raises when it is disconnected.

    In a task of its own, because nats-py swallows a cancellation that meets it while closing.
    """
    closing = asyncio.create_task(client.close())
    try:
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
    finally:
        abort_transport(client)
        closing.cancel()
        closing.add_done_callback(_tell_close)


def _tell_close(closing: asyncio.Task[None]) -> None:
    if not closing.cancelled() and (error := closing.exception()) is not None:
        _log.debug("nats_close_incomplete", error=str(error))


def abort_transport(client: Client) -> None:
    """Drop the socket without waiting for unsent bytes, which a half-open peer never takes."""
    transport = getattr(client, "_transport", None)  # nats-py has no public way to abort
    for attribute in ("_io_writer", "_bare_io_writer"):
        writer = getattr(transport, attribute, None)
        if isinstance(writer, asyncio.StreamWriter):
            writer.transport.abort()


def lasting(error: Exception) -> bool:
    """Whether waiting will not help: a person has to change something."""
    text = str(error).lower()
    return isinstance(error, ssl.SSLError | NatsConfigError | _PlaintextError) or any(
        sign in text for sign in _REFUSED_LOGIN
    )


class _PlaintextError(nats.errors.Error):
    """``tls://`` was asked for and the server offers none; a nats error so that nats-py retries."""


class _SecretUnreadableError(nats.errors.Error):
    """A secret file vanished; a nats error so that nats-py retries until it is back."""


def _options(
    settings: NatsSettings,
    name: str,
    client: Client,
    callbacks: Callbacks,
    on_error: Callable[[Exception], Awaitable[None]],
) -> dict[str, Any]:
    async def on_down() -> None:
        callbacks.down(client)

    async def on_up() -> None:
        callbacks.up(client)

    return {
        "name": name,
        "error_cb": on_error,
        "disconnected_cb": on_down,
        "reconnected_cb": on_up,
        "closed_cb": on_down,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RECONNECT_WAIT_S,
        "connect_timeout": min(HANDSHAKE_TIMEOUT_S, settings.connect_timeout_s),
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": MAX_OUTSTANDING_PINGS,
        "pending_size": PENDING_BYTES_MAX,
        "flush_timeout": HANDSHAKE_TIMEOUT_S,
        **_login(settings, client),
        **_tls(settings),
    }


def _login(settings: NatsSettings, client: Client) -> dict[str, Any]:
    def secret(path: str, setting: str) -> Callable[[], str]:
        """Read at every login, after the TLS handshake: secrets rotate."""

        def read() -> str:
            if settings.tls_required and not _server_demands_tls(client):
                raise _PlaintextError("nats.url says tls:// but the server does not offer TLS")
            try:
                return read_secret(path, setting)
            except NatsConfigError as error:
                raise _SecretUnreadableError(str(error)) from error

        return read

    if settings.user:
        password = secret(settings.password_file, "nats.password_file")
        return {"user": settings.user, "password": password}
    if settings.token_file:
        return {"token": secret(settings.token_file, "nats.token_file")}
    if settings.creds_file:
        return {"user_credentials": settings.creds_file}
    if settings.nkey_seed_file:
        return {"nkeys_seed": settings.nkey_seed_file}
    return {}


def _tls(settings: NatsSettings) -> dict[str, Any]:
    context = tls_context(settings)
    options: dict[str, Any] = {} if context is None else {"tls": context}
    if settings.tls_server_name:
        options["tls_hostname"] = settings.tls_server_name
    return options


def _server_demands_tls(client: Client) -> bool:
    """Whether the handshake upgraded to TLS: nats-py does so only when the server's INFO says so.

    ``tls://`` alone does not make nats-py insist; without this check a server (or whoever sits in
    between) that offers no TLS would be sent the password in the clear.
    """
    info = getattr(client, "_server_info", {})
    return bool(info.get("tls_required"))


async def _abandon(connecting: asyncio.Task[None], client: Client) -> None:
    """End a connection attempt; again and again, because nats-py may swallow a cancellation."""
    while not connecting.done():
        connecting.cancel()
        await asyncio.wait({connecting}, timeout=0.1)
    if not connecting.cancelled():
        connecting.exception()  # read: what failed was recorded by the error callback
    await close_client(client)


def _explain(settings: NatsSettings, error: Exception | None) -> BusUnavailableError:
    where = redacted(settings.url)
    if error is None:
        return BusUnavailableError(
            f"cannot reach NATS at {where}: no answer in {settings.connect_timeout_s:g} s"
        )
    text = str(error).lower()
    if any(sign in text for sign in _REFUSED_LOGIN):
        return BusRefusedError(f"NATS at {where} refused our login: check nats.user and its file")
    if any(sign in text for sign in _NO_GREETING):
        # No lasting refusal: a server that is ending, or a load balancer without one, hangs up.
        return BusUnavailableError(
            f"what answers at {where} is not a NATS server, or hangs up before its greeting"
        )
    if isinstance(error, _PlaintextError):
        return BusRefusedError(f"NATS at {where}: {error}")
    if isinstance(error, ssl.SSLError):
        return BusRefusedError(f"TLS with NATS at {where} failed: {error.reason or error}")
    reason = _reason(error)
    return BusUnavailableError(
        f"cannot reach NATS at {where} in {settings.connect_timeout_s:g} s: {reason}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TimeoutError):
        return "no NATS greeting (is it a NATS server?)"
    return str(error).removeprefix("nats: ") or type(error).__name__
