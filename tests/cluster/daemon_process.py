"""The daemon as its own process, with its own account and the rights of ``deploy/``."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

from remediator.cli.http_source import HttpSource
from remediator.engine import chain
from remediator.engine.chain import Decision, DecisionKind
from remediator.journal.query import DecisionQuery
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubevirt_objects import collection_of
from tests.cluster.real_cluster import RealCluster

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 90.0
STOP_S = 20.0
RIGHTS = ("Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


class Daemon:
    """One daemon process, its settings, its log and its journal."""

    def __init__(self, directory: Path, plane: ControlPlane, cluster: RealCluster) -> None:
        self.directory = directory
        self._plane = plane
        self._cluster = cluster
        self._log = directory / "daemon.log"
        self._session: aiohttp.ClientSession | None = None
        self._source: HttpSource | None = None
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def grant(self) -> Path:
        """Create account and rights as ``deploy/enforce`` renders them; return its kubeconfig."""
        rendered = self._plane.kubectl("kustomize", str(ROOT / "deploy" / "enforce"))
        for obj in yaml.safe_load_all(rendered):
            if obj["kind"] in RIGHTS:
                self._plane.create(collection_of(obj), obj)
        path = "/api/v1/namespaces/remediator/serviceaccounts/remediator/token"
        asked = {"spec": {"expirationSeconds": 7200}}
        status, answer = self._plane.call("POST", path, asked)
        assert status == 201, answer
        return self._plane.kubeconfig("daemon", answer["status"]["token"])

    def configure(self, **changes: object) -> None:
        """Write its settings: the defaults, and where things are."""
        spec = self._cluster.spec
        password = self.directory / "bmc-password"
        password.touch(mode=0o600)
        password.write_text(spec.bmc_password)
        config = {
            "mode": "enforce",
            "identity": "test",
            "data_dir": str(self.directory / "data"),
            "kube": {"kubeconfig": str(self.grant())},
            "http": {"port": 0},
            "log": {"format": "json"},
            "fence": {
                "devices": [
                    {
                        "type": "redfish",
                        "name": "bmc",
                        "endpoint": self._cluster.bmc_url,
                        "username": spec.bmc_user,
                        "password_file": str(password),
                    }
                ]
            },
            **changes,
        }
        (self.directory / "config.yaml").write_text(yaml.safe_dump(config))

    async def start(self) -> None:
        """Start it; returns when it leads."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "remediator", "run"),
                    *("--config", str(self.directory / "config.yaml")),
                ],
                stdout=log,
                stderr=log,
            )
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0))
        await self._until(lambda: self._port() != 0, "its API")
        self._source = HttpSource(self._session, f"http://127.0.0.1:{self._port()}")
        leading = DecisionQuery(kind=DecisionKind.LEADING, limit=1)
        deadline = asyncio.get_running_loop().time() + READY_S
        while not await self._source.select(leading):
            self._check(deadline, "a leader")
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """End it in order, or kill it when that takes too long."""
        if self._session is not None:
            await self._session.close()
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + STOP_S
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()

    def log(self) -> list[Mapping[str, Any]]:
        """Return its log's lines."""
        found = []
        for line in self._log.read_bytes().splitlines() if self._log.exists() else ():
            try:
                found.append(msgspec.json.decode(line))
            except msgspec.DecodeError:
                continue  # a traceback, or a line still being written
        return found

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    async def decisions(self) -> list[Decision]:
        """Return the whole journal so far, from its API, the chain verified."""
        assert self._source is not None
        records = [(one.seq, one.payload) async for one in self._source.walk()]
        chain.verify(records)
        return [chain.decode(payload) for _, payload in records]

    def _port(self) -> int:
        for line in self.log():
            if line.get("event") == "http_listening":
                return int(line["port"])
        return 0

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = asyncio.get_running_loop().time() + READY_S
        while not condition():
            self._check(deadline, what)
            await asyncio.sleep(0.2)

    def _check(self, deadline: float, what: str) -> None:
        assert self.process is not None
        tail = self._log.read_bytes()[-3000:].decode(errors="replace")
        assert self.process.poll() is None, f"the daemon ended with {self.process.poll()}: {tail}"
        assert asyncio.get_running_loop().time() < deadline, f"waited for {what}: {tail}"
