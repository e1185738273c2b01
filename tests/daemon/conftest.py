"""The real daemon in its own process, over a real NATS server, against a simulated cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import yaml

from remediator.clock import Clock
from remediator.engine import chain
from remediator.engine.chain import Decision
from remediator.sim.cluster import HttpFaces, SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.resources import NAMESPACES
from remediator.sim.storage import StorageSettings

# Everything ten times as fast as in a real cluster, so that one loss takes seconds.
FAST_HOSTS = HostSettings(
    lease_period_s=1.0, heartbeat_s=2.0, pod_start_s=(0.1, 0.2), domain_start_s=(0.1, 0.2)
)
FAST_STORAGE = StorageSettings(boot_ios=750.0)
FAST_ENGINE = {
    "detection": {
        "lease_silent_after_s": 2.0,
        "lease_overdue_after_s": 1.6,
        "handler_silent_after_s": 8.0,
        "node_watch_gap_s": 6.0,
    },
    "pacing": {"settle_s": 1.0},
}
FAST_ELECTION = {
    "lease_duration_s": 2.0,
    "renew_deadline_s": 1.2,
    "retry_period_s": 0.3,
    "request_timeout_s": 0.5,
    "stop_grace_s": 0.4,
}


class Daemon:
    """One daemon process and its log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.log = directory / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "remediator", "run", "--config", str(self.config)),
                    *arguments,
                ],
                stdout=log,
                stderr=log,
            )

    def events(self) -> list[dict]:
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line))
        return found

    def decided(self) -> int:
        """The sequence of the last decision that this daemon logged as acknowledged."""
        seqs = [event["seq"] for event in self.events() if event.get("event") == "decision"]
        return max(seqs, default=0)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def end(self, number: int = signal.SIGTERM, within_s: float = 10.0) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.ended(within_s)

    async def ended(self, within_s: float) -> int:
        await until(lambda: self.process.poll() is not None, within_s, "the daemon to end")
        return self.process.returncode

    def journal(self) -> list[Decision]:
        """Read the whole journal with the product's own command, which verifies the chain too."""
        found = subprocess.run(
            [
                sys.executable,
                *("-m", "remediator", "decisions", "list", "--limit", "1000", "-o", "json"),
                *("--db", str(self.directory / "data" / "journal.sqlite")),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        decisions = [
            msgspec.convert(one, Decision, strict=False)
            for one in msgspec.json.decode(found.stdout)
        ]
        return sorted(decisions, key=lambda one: one.seq)


async def until(condition: Callable[[], object], limit_s: float, what: str) -> None:
    deadline = asyncio.get_running_loop().time() + limit_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {limit_s:g} s for {what}"
        await asyncio.sleep(0.01)


class Lab:
    """A simulated cluster over HTTP and a directory for one daemon."""

    def __init__(self, directory: Path, cluster: SimCluster, faces: HttpFaces) -> None:
        self.cluster = cluster
        self.faces = faces
        self.daemon = Daemon(directory)
        self.directory = directory

    def configure(self, **changes: object) -> None:
        password = self.directory / "password"
        password.write_text(self.cluster.spec.bmc_password)
        config = {
            "mode": "enforce",
            "identity": "test",
            "data_dir": str(self.directory / "data"),
            "kube": {"kubeconfig": str(self.faces.kubeconfig)},
            "http": {"port": 0},
            "probes": {"enabled": False},  # the simulated hosts' addresses belong to others
            "log": {"format": "json"},
            "engine": FAST_ENGINE,
            "election": {"timing": FAST_ELECTION},
            "fence": {
                "devices": [
                    {
                        "type": "redfish",
                        "name": "bmc",
                        "endpoint": self.faces.bmc_url,
                        "username": self.cluster.spec.bmc_user,
                        "password_file": str(password),
                        "already_off_for_s": 0.5,
                    }
                ]
            },
            **changes,
        }
        self.daemon.config.write_text(yaml.safe_dump(config))


@contextlib.asynccontextmanager
async def open_lab(directory: Path, **spec: object) -> AsyncIterator[Lab]:
    directory.mkdir(parents=True, exist_ok=True)
    options = {"nodes": 4, "zones": 2, "vms": 8, "agent_share": 1.0, "diskless_share": 0.0, **spec}
    cluster = SimCluster(
        ClusterSpec(**options, hosts=FAST_HOSTS, storage=FAST_STORAGE),
        clock=Clock(),
        hosts_over_http=True,
    )
    faces = await cluster.http(directory / "kubeconfig")
    cluster.store.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "remediator"}}
    )
    await cluster.start()
    lab = Lab(directory, cluster, faces)
    lab.configure()
    try:
        yield lab
    finally:
        process = lab.daemon.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                await lab.daemon.ended(10.0)
            except AssertionError:
                lab.daemon.kill()
        _stop_left_behind(directory)
        await cluster.stop()


def _stop_left_behind(directory: Path) -> None:
    """End a NATS server whose daemon was killed for good."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if b"nats-server" in command and str(directory).encode() in command:
                    os.kill(int(entry.name), signal.SIGKILL)


@pytest.fixture
async def lab(tmp_path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as opened:
        yield opened


@pytest.fixture
def verify_chain() -> Callable[[list[Decision]], None]:
    def check(decisions: list[Decision]) -> None:
        chain.verify((one.seq, chain.encode(one)) for one in decisions)

    return check
