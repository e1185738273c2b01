"""OpenStack's Redfish emulator (PyPI ``sushy-tools``) as a process on loopback, over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import bcrypt

USER, PASSWORD = "admin", "s3cret-redfish"
UUIDS = {
    "n1": "4c4c4544-0051-3510-8052-b4c04f4d3132",
    "n2": "5d5d5544-0051-3510-8052-b4c04f4d3133",
}

CONFIG = """
SUSHY_EMULATOR_LISTEN_IP = "127.0.0.1"
SUSHY_EMULATOR_LISTEN_PORT = {port}
SUSHY_EMULATOR_SSL_CERT = {cert!r}
SUSHY_EMULATOR_SSL_KEY = {key!r}
SUSHY_EMULATOR_AUTH_FILE = {auth!r}
SUSHY_EMULATOR_STATE_DIR = {state!r}
SUSHY_EMULATOR_FAKE_DRIVER = True
SUSHY_EMULATOR_FAKE_SYSTEMS = {systems!r}
"""


class SushyEmulator:
    """Two systems, both on, behind one service."""

    def __init__(self, directory: Path, tls: Path) -> None:
        self._directory = directory
        self._tls = tls
        self._process: asyncio.subprocess.Process | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def start(self) -> None:
        auth = self._directory / "auth"
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(rounds=4)).decode()
        auth.write_text(f"{USER}:{hashed}\n")
        (self._directory / "state").mkdir()
        systems = [
            {
                "uuid": uuid,
                "name": node,
                "power_state": "On",
                "external_notifier": False,
                "nics": [],
            }
            for node, uuid in UUIDS.items()
        ]
        config = self._directory / "sushy.conf"
        config.write_text(
            CONFIG.format(
                port=self.port,
                cert=str(self._tls / "server.crt"),
                key=str(self._tls / "server.key"),
                auth=str(auth),
                state=str(self._directory / "state"),
                systems=systems,
            )
        )
        self._process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("sushy-emulator")), "--config", str(config),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        async with asyncio.timeout(20.0):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
