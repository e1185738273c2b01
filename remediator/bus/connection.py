"""A connection to NATS that outlives its servers, its sockets and nats-py's own dead ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from remediator.backoff import Backoff
from remediator.bus.protocols import BusUnavailableError, NobodyAnswersError
from remediator.bus.session import Callbacks, abort_transport, close_client, open_client
from remediator.bus.settings import (
    EMBEDDED,
    NatsConfigError,
    NatsSettings,
    check_settings,
    redacted,
)

__all__ = ["BusConnection", "JetStreamError", "connect"]

_log = structlog.get_logger(__name__)

# nats-py's own reconnect has this long before its client is thrown away. It usually needs 0.3 s
# after the server is back; it needs for ever when closing a half-open socket hangs.
REPLACE_AFTER_S = 6.0
WATCH_EVERY_S = 0.25
PROBE_TIMEOUT_S = 2.0
HOOK_TIMEOUT_S = 30.0
API_TIMEOUT_S = 3.0

_json = msgspec.json.Decoder(dict[str, Any])

Hook = Callable[[], Awaitable[None]]


class JetStreamError(Exception):
    """JetStream answered with an error."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} (code {code}, err_code {err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


async def connect(
    settings: NatsSettings, name: str, *, rng: random.Random | None = None
) -> BusConnection:
    """Connect, waiting at most ``settings.connect_timeout_s`` for the first success.

    Raises NatsConfigError (settings), BusRefusedError (wrong login, bad TLS),
    BusUnavailableError (no NATS greeting in time); each text is one line.
    """
    check_settings(settings)
    if settings.url == EMBEDDED:
        raise NatsConfigError("nats.url is embedded: connect with EmbeddedServer.settings instead")
    connection = BusConnection(settings, name, rng=rng)
    await connection.open()
    return connection


class BusConnection:
    """One connection of the daemon, shared by publisher, consumers and journal.

    ``connected`` is what the socket says now; a half-open peer may still look connected for up to
    15 s, or until somebody whose deadline passed calls ``suspect``. ``epoch`` counts the
    connections made: whoever keeps a subscription makes it anew when the epoch changed.

    ``on_reconnect``: coroutines called in order after each reconnect (not after the first connect),
    with retries, until one round went well or the connection broke again. Put ``ensure_all`` of
    the streams first (memory streams are gone after a server's restart), then the re-publishing of
    the inventory. ``on_change``: plain functions, called whenever the connection goes up or down.
    """

    def __init__(
        self, settings: NatsSettings, name: str, *, rng: random.Random | None = None
    ) -> None:
        self.settings = settings
        self.name = name
        self.epoch = 0
        self.reconnects = 0
        self.on_reconnect: list[Hook] = []
        self.on_change: list[Callable[[], None]] = []
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._changed = asyncio.Event()
        self._closing = False
        self._down_since = 0.0
        self._last_error = ""
        self._watcher: asyncio.Task[None] | None = None
        self._hooks: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Timeout] = set()
        self._retired: set[asyncio.Task[None]] = set()
        self._callbacks = Callbacks(up=self._on_up, down=self._on_down, failed=self._on_error)

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        return self._up.is_set() and self._client is not None and self._client.is_connected

    @property
    def client(self) -> Client:
        """The nats-py client of this moment. Raises BusUnavailableError."""
        if self._client is None or self._closing:
            raise BusUnavailableError("the NATS connection is closed")
        return self._client

    async def open(self) -> None:
        """Make the first connection and keep watch over it. Raises as ``connect`` does."""
        self._client = await open_client(self.settings, self.name, self._callbacks, first=True)
        self._mark_up()
        self._watcher = asyncio.create_task(self._watch(), name=f"nats-watch-{self.name}")
        _log.info("nats_connected", url=redacted(self.settings.url), name=self.name)

    async def close(self) -> None:
        """End the connection. Never raises, also while disconnected; safe to repeat."""
        self._closing = True
        self._up.clear()
        self._wake()
        tasks = [self._watcher, self._hooks, self._probe, *self._retired]
        current = asyncio.current_task()
        for task in tasks:
            if task is not None and task is not current:
                task.cancel()
        waits = [task for task in tasks if task is not None and task is not current]
        if waits:
            await asyncio.wait(waits, timeout=2 * PROBE_TIMEOUT_S)
        client, self._client = self._client, None
        if client is not None:
            await close_client(client)

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait until messages can be sent. Raises BusUnavailableError after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.connected:
                    if self._closing:
                        raise BusUnavailableError("the NATS connection is closed")
                    await self.wait_change(WATCH_EVERY_S)
        except TimeoutError as error:
            raise BusUnavailableError(f"NATS was away for {timeout_s:g} s") from error

    async def wait_change(self, timeout_s: float) -> None:
        """Wait until the connection went up or down, at most ``timeout_s``."""
        changed = self._changed
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float = API_TIMEOUT_S,
    ) -> Msg:
        """Ask and wait for one answer; give up at once when the connection breaks.

        Raises BusUnavailableError when there is none in time, when nobody listens (a stream that
        does not exist answers so: NobodyAnswersError) or when disconnected: the outcome is then
        unknown.
        """
        if not self.connected:
            raise BusUnavailableError("NATS is away")
        client, epoch = self.client, self.epoch
        try:
            return await self._ask(client, subject, payload, headers, timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NobodyAnswersError(f"nobody answers on {subject}") from error
        except TimeoutError as error:
            if self.epoch != epoch or not self._up.is_set():
                raise BusUnavailableError(f"the connection broke while asking {subject}") from error
            self.suspect(f"no answer on {subject}")
            raise BusUnavailableError(f"no answer on {subject} in {timeout_s:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailableError(f"cannot ask on {subject}: {error}") from error

    async def api(
        self, call: str, body: dict[str, Any] | None = None, *, timeout_s: float = API_TIMEOUT_S
    ) -> dict[str, Any]:
        """Call ``$JS.API.<call>`` and return its answer.

        Raises JetStreamError, and BusUnavailableError (no answer, or JetStream not ready: 503).
        """
        payload = msgspec.json.encode(body) if body is not None else b""
        reply = await self.request(f"$JS.API.{call}", payload, timeout_s=timeout_s)
        answer = _json.decode(reply.data)
        error = answer.get("error")
        if error is None:
            return answer
        code, description = int(error.get("code", 0)), str(error.get("description", ""))
        if code == 503:
            raise BusUnavailableError(f"JetStream is not ready: {description}")
        raise JetStreamError(code, int(error.get("err_code", 0)), description)

    async def _ask(
        self,
        client: Client,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None,
        timeout_s: float,
    ) -> Msg:
        """Ask with our own deadline.

        nats-py's goes through ``asyncio.wait_for``, which before Python 3.12 swallows a
        cancellation that arrives together with the answer: a cancelled task would run on for ever.
        """
        async with asyncio.timeout(timeout_s) as deadline:
            self._asking.add(deadline)
            try:
                return await client.request(
                    subject,
                    payload,
                    timeout=None,  # type: ignore[arg-type]  # wait_for(…, None) is a plain await
                    headers=headers,
                )
            finally:
                self._asking.discard(deadline)

    def suspect(self, why: str) -> None:
        """Probe the connection, because an answer is overdue; replace it if nobody is there."""
        if self._closing or not self.connected or (self._probe and not self._probe.done()):
            return
        self._probe = asyncio.create_task(self._probe_peer(why), name=f"nats-probe-{self.name}")

    # --- what nats-py tells -----------------------------------------------------------------------

    def _on_up(self, client: Client) -> None:
        if client is self._client and not self._closing:
            self._reconnected()

    def _on_down(self, client: Client) -> None:
        if client is self._client:
            self._mark_down()

    def _on_error(self, client: Client, error: Exception) -> None:
        if self._closing or (self._client is not None and client is not self._client):
            return
        text = f"{type(error).__name__}: {error}"
        if text != self._last_error:  # a dead server fails the same way four times a second
            self._last_error = text
            _log.warning("nats_error", name=self.name, error=text)

    # --- state ------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for callback in list(self.on_change):
            callback()

    def _mark_up(self) -> None:
        self.epoch += 1
        self._last_error = ""
        self._up.set()
        self._wake()

    def _mark_down(self) -> None:
        if not self._up.is_set():
            return
        self._up.clear()
        self._down_since = asyncio.get_running_loop().time()
        for deadline in self._asking:
            deadline.reschedule(self._down_since)  # no answer will come
        self._wake()
        if not self._closing:
            _log.warning("nats_disconnected", name=self.name)

    def _reconnected(self) -> None:
        self.reconnects += 1
        self._mark_up()
        _log.info("nats_reconnected", name=self.name, reconnects=self.reconnects)
        if self._hooks is not None:
            self._hooks.cancel()
        self._hooks = asyncio.create_task(self._run_hooks(), name=f"nats-hooks-{self.name}")

    async def _run_hooks(self) -> None:
        backoff = Backoff(base_s=0.2, cap_s=2.0, rng=self._rng)
        epoch = self.epoch
        while self.connected and self.epoch == epoch:
            try:
                async with asyncio.timeout(HOOK_TIMEOUT_S):
                    for hook in list(self.on_reconnect):
                        await hook()
                return
            except (BusUnavailableError, JetStreamError, TimeoutError) as error:
                _log.warning("nats_reconnect_hook_failed", name=self.name, error=str(error))
                await asyncio.sleep(backoff.next_s(at_least_s=0.1))
            except Exception:  # noqa: BLE001 - see the next line
                # A defect in a hook must not end the connection; it is logged with its traceback.
                _log.exception("nats_reconnect_hook_broken", name=self.name)
                return

    # --- watch over nats-py -----------------------------------------------------------------------

    async def _watch(self) -> None:
        """Notice what nats-py does not tell, and replace a client that is closed or stuck."""
        loop = asyncio.get_running_loop()
        while not self._closing:
            await self.wait_change(WATCH_EVERY_S)
            client = self._client
            if client is None or self._closing:
                return
            if not client.is_connected:
                self._mark_down()  # nats-py's callback comes late or never while a close hangs
            if self._up.is_set():
                continue
            if client.is_closed or loop.time() - self._down_since > REPLACE_AFTER_S:
                await self._replace()

    async def _probe_peer(self, why: str) -> None:
        client = self._client
        if client is None:
            return
        try:
            # Not client.flush(): a PONG that comes after its deadline kills nats-py's read loop
            # (it sets a result on a cancelled future).
            await self._ask(client, "$JS.API.INFO", b"", None, PROBE_TIMEOUT_S)
        except nats.errors.NoRespondersError:
            return  # JetStream is not up, but the server answered
        except (nats.errors.Error, OSError, TimeoutError):
            if client is self._client and client.is_connected and not self._closing:
                _log.warning("nats_half_open", name=self.name, why=why)
                self._mark_down()
                self._down_since = float("-inf")  # replace it now, not after a grace

    async def _replace(self) -> None:
        """Throw the client away and open another, for as long as it takes."""
        if self._client is not None:
            old = self._client
            abort_transport(old)
            retired = asyncio.create_task(close_client(old))
            self._retired.add(retired)
            retired.add_done_callback(self._retired.discard)
        backoff = Backoff(base_s=0.25, cap_s=2.0, rng=self._rng)
        while not self._closing:
            try:
                opened = await open_client(self.settings, self.name, self._callbacks, first=False)
            except BusUnavailableError as error:
                _log.debug("nats_still_away", name=self.name, error=str(error))
                await asyncio.sleep(backoff.next_s(at_least_s=0.1))
                continue
            self._client = opened
            _log.info("nats_client_replaced", name=self.name)
            self._reconnected()
            return
