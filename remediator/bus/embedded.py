"""The NATS server of a single machine: a child process on loopback with its own directory.

One daemon and one server per directory. Two lock files hold that, through crashes:

* ``daemon.lock`` is held by the daemon and ends with it. Taken: another daemon lives.
* ``server.lock`` is held by the server, which inherits the open file, and ends with it. Taken while
  ``daemon.lock`` is free: a killed daemon left its server behind. That one is found in /proc by its
  command line (our configuration file), stopped, and only then may a new one open the store.

Durability: ``sync_interval: always``, checked after the start against what the server itself
reports. JetStream's default would lose up to two minutes of acknowledged records on power loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from remediator.backoff import Backoff
from remediator.bus.connection import BusConnection, connect
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.server_files import (
    SYSTEM_USER,
    USER,
    DirectoryInUseError,
    EmbeddedServerError,
    EmbeddedSettings,
    configuration,
    read_text,
    server_binary,
    servers_of,
    take_lock,
)
from remediator.bus.settings import NatsSettings
from remediator.spawn import spawn

__all__ = [
    "DirectoryInUseError",
    "EmbeddedServer",
    "EmbeddedServerError",
    "EmbeddedSettings",
    "server_binary",
]

_log = structlog.get_logger(__name__)

START_TIMEOUT_S = 15.0  # opening a store of a million records takes a few seconds
STOP_TIMEOUT_S = 5.0
POLL_S = 0.02
STEADY_AFTER_S = 30.0  # a server that lived this long failed by itself, not because of its start
START_FAILURES_MAX = 5  # in a row; then the daemon ends and whoever runs it starts afresh


class EmbeddedServer:
    """A nats-server child process.

    ``start`` returns when it serves; ``run`` watches over it and starts it again when it dies;
    ``stop`` ends it. ``settings`` are the NatsSettings to connect with; they stay the same over
    restarts.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: EmbeddedSettings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.restarts = 0
        self._settings = settings or EmbeddedSettings()
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._port = self._settings.port
        self._process: asyncio.subprocess.Process | None = None
        self._daemon_lock: int | None = None
        self._system_password = ""
        self._started_at = 0.0

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    @property
    def settings(self) -> NatsSettings:
        """How to connect to it."""
        return NatsSettings(
            url=f"nats://127.0.0.1:{self._port}",
            user=USER,
            password_file=str(self._password_file),
        )

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> NatsSettings:
        """Start and wait until it serves durably.

        Raises DirectoryInUseError, EmbeddedServerError.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._daemon_lock = take_lock(self.directory / "daemon.lock")
        except OSError as error:
            raise EmbeddedServerError(
                f"cannot use {self.directory} for NATS: {error.strerror or error}"
            ) from error
        if self._daemon_lock is None:
            holder = read_text(self.directory / "daemon.pid").strip()
            raise DirectoryInUseError(
                f"{self.directory} is in use by another remediator"
                + (f" (process {holder})" if holder else "")
            )
        try:
            (self.directory / "daemon.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
            await self._evict_left_behind()
            self._write_secret(self._password_file, secrets.token_urlsafe(32))
            self._system_password = secrets.token_urlsafe(32)
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        return self.settings

    async def run(self) -> None:
        """Start the server again whenever it dies, until cancelled.

        Raises EmbeddedServerError when it will not stay up.
        """
        loop = asyncio.get_running_loop()
        backoff = Backoff(base_s=0.1, cap_s=5.0, rng=self._rng)
        while True:
            process = self._process
            if process is None:
                raise EmbeddedServerError("the embedded NATS server was not started")
            code = await process.wait()
            _log.error("nats_server_died", code=code, log=self._last_words())
            if loop.time() - self._started_at > STEADY_AFTER_S:
                backoff.reset()
            if backoff.failures >= START_FAILURES_MAX:
                raise EmbeddedServerError(
                    f"the NATS server in {self.directory} keeps dying: {self._last_words()}"
                )
            await asyncio.sleep(backoff.next_s(at_least_s=0.05))
            self.restarts += 1
            try:
                await self._launch()
            except EmbeddedServerError as error:
                _log.warning("nats_server_start_failed", error=str(error))

    async def stop(self) -> None:
        """End the server: SIGTERM, and after 5 s SIGKILL. Safe to repeat."""
        process, self._process = self._process, None
        try:
            if process is not None:
                await _end(process)
        finally:
            if self._daemon_lock is not None:
                os.close(self._daemon_lock)  # closing the file gives the lock back
                self._daemon_lock = None

    async def health(self) -> dict[str, Any]:
        """Return what the server says of its JetStream (``sync_always``, limits, store).

        Raises BusUnavailableError.
        """
        system = NatsSettings(
            url=self.settings.url,
            user=SYSTEM_USER,
            password_file=str(self._system_password_file),
            connect_timeout_s=2.0,
        )
        connection: BusConnection = await connect(system, "remediator-health")
        try:
            reply = await connection.request("$SYS.REQ.SERVER.PING.JSZ", b"{}", timeout_s=2.0)
        finally:
            await connection.close()
        answer: dict[str, Any] = json.loads(reply.data)["data"]
        return answer

    # --- files ------------------------------------------------------------------------------------

    @property
    def _config_file(self) -> Path:
        return self.directory / "server.conf"

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    @property
    def _system_password_file(self) -> Path:
        return self.directory / "system-password"

    @property
    def _output_file(self) -> Path:
        return self.directory / "server.out"

    def _write_secret(self, path: Path, secret: str) -> None:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret)

    def _write_config(self) -> None:
        self._write_secret(self._system_password_file, self._system_password)
        text = configuration(
            self.directory,
            self._settings,
            port=self._port,
            password=self._password_file.read_text(encoding="utf-8"),
            system_password=self._system_password,
        )
        self._write_secret(self._config_file, text)

    def _last_words(self) -> str:
        """Return the last line that the server wrote about itself."""
        for name in ("server.out", "server.log"):
            lines = read_text(self.directory / name).splitlines()
            if lines:
                return lines[-1]
        return "it wrote nothing"

    # --- process ----------------------------------------------------------------------------------

    async def _launch(self) -> None:
        self._write_config()
        for stale in self.directory.glob("*.ports"):
            stale.unlink(missing_ok=True)
        server_lock = await self._take_server_lock()
        try:
            with self._output_file.open("wb") as output:
                # In a session of its own: Ctrl-C is for the daemon, which stops the server last.
                self._process = await spawn(
                    str(server_binary()),
                    "-c",
                    str(self._config_file),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(server_lock,),
                )
        except OSError as error:
            raise EmbeddedServerError(f"cannot start nats-server: {error.strerror}") from error
        finally:
            os.close(server_lock)  # the child's copy holds the lock from here on
        self._started_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self._port = await self._read_port(self._process)
                await self._check_durable()
        except TimeoutError as error:
            await _end(self._process)
            raise EmbeddedServerError(
                f"nats-server did not serve in {START_TIMEOUT_S:g} s: {self._last_words()}"
            ) from error
        except BaseException:
            await _end(self._process)
            raise
        _log.info("nats_server_started", pid=self._process.pid, port=self._port)

    async def _read_port(self, process: asyncio.subprocess.Process) -> int:
        ports = self.directory / f"{server_binary().name}_{process.pid}.ports"
        while True:
            if process.returncode is not None:
                raise EmbeddedServerError(
                    f"nats-server ended with code {process.returncode}: {self._last_words()}"
                )
            with contextlib.suppress(ValueError, LookupError):  # not written, or half written
                return int(json.loads(read_text(ports))["nats"][0].rpartition(":")[2])
            await asyncio.sleep(POLL_S)

    async def _check_durable(self) -> None:
        while True:
            try:
                config = (await self.health())["config"]
                break
            except (BusUnavailableError, LookupError):
                await asyncio.sleep(POLL_S)  # JetStream is still opening its store
        if config.get("sync_always") is not True:
            raise EmbeddedServerError("nats-server does not sync each write, although told to")

    async def _take_server_lock(self) -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_TIMEOUT_S
        while (lock := take_lock(self.directory / "server.lock")) is None:
            if loop.time() > deadline:
                raise EmbeddedServerError(
                    f"a nats-server still uses {self.directory}/store and could not be stopped"
                )
            await asyncio.sleep(POLL_S)
        return lock

    async def _evict_left_behind(self) -> None:
        """Stop a server of this directory whose daemon was killed."""
        lock = take_lock(self.directory / "server.lock")
        if lock is not None:
            os.close(lock)
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in servers_of(self._config_file):
                _log.warning("nats_server_left_behind", pid=pid, signal=sign.name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, sign)
            with contextlib.suppress(EmbeddedServerError):
                os.close(await self._take_server_lock())
                return
        os.close(await self._take_server_lock())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError) as reason:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(reason, asyncio.CancelledError):
            raise
