"""The real daemon and stand-alone probers on one NATS server, and a host that all of them lose."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from remediator.bus.ask_channel import NatsAskChannel
from remediator.bus.connection import connect
from remediator.bus.embedded import EmbeddedServer
from remediator.engine.chain import DecisionKind
from remediator.sim.cluster_spec import ClusterSpec

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

KUBELET_PORT = 10250
# ICMP is off: every address of loopback answers it where the kernel permits pings.
PROBES = {
    "icmp": False,
    "peace_period_s": 0.5,
    "deadline_s": 0.3,
    "asked_period_s": 0.3,
    "life_s": 0.5,
}


class Kubelet:
    """A host's port as the network shows it. Dead, its kernel drops every SYN."""

    def __init__(self, address: str) -> None:
        self._address = (address, KUBELET_PORT)
        self._sockets = [socket.socket()]
        self._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sockets[0].bind(self._address)
        self._sockets[0].listen(1024)

    def die(self) -> None:
        self._sockets[0].listen(0)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._address)
            self._sockets.append(filler)

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()


@pytest.fixture
def kubelets(monkeypatch):
    """Give the simulated hosts addresses of loopback, their kubelets' ports open."""
    opened: dict[str, Kubelet] = {}
    specs = ClusterSpec.host_specs
    network = f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"

    def on_loopback(spec):
        found = [
            dataclasses.replace(host, address=f"{network}.{number}")
            for number, host in enumerate(specs(spec), start=1)
        ]
        for host in found:
            if host.name not in opened:
                opened[host.name] = Kubelet(host.address)
        return found

    monkeypatch.setattr(ClusterSpec, "host_specs", on_loopback)
    yield opened
    for kubelet in opened.values():
        kubelet.close()


@contextlib.contextmanager
def prober(directory: Path, zone: str, nats: dict):
    """Run a prober of its own."""
    config = directory / f"prober-{zone}.yaml"
    probes = {**PROBES, "vantage": f"prober-{zone}", "zone": zone}
    config.write_text(yaml.safe_dump({"nats": nats, "probes": probes, "log": {"format": "json"}}))
    with (directory / f"prober-{zone}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "remediator", "probe", "--config", str(config)],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20.0) == 0


def network_rows(decisions, node: str) -> list[tuple[str, str]]:
    """What the records about a node say of the network plane as a whole."""
    rows = []
    for one in decisions:
        if one.subject.name == node:
            found = [(row.value, row.detail) for row in one.evidence if row.plane == "network"]
            rows += found[:1]
    return rows


@pytest.mark.slow
async def test_a_dead_host_is_down_for_the_daemon_and_two_probers_of_other_zones(
    tmp_path, kubelets
):
    async with EmbeddedServer(tmp_path / "nats") as server, open_lab(tmp_path, zones=3) as lab:
        nats = {
            "url": server.settings.url,
            "user": server.settings.user,
            "password_file": server.settings.password_file,
        }
        lab.configure(nats=nats, probes={**PROBES, "zone": "zone-a"})
        lab.daemon.start()
        await until(lambda: lab.daemon.decided() >= 1, 60.0, "the daemon to lead")
        called: set[str] = set()
        connection = await connect(server.settings, "listener")
        listening = asyncio.create_task(NatsAskChannel(connection).listen(called.add))
        with prober(tmp_path, "zone-b", nats), prober(tmp_path, "zone-c", nats):

            def see(log: Path) -> bool:
                return b'"reading":"up"' in log.read_bytes()

            logs = [lab.daemon.log, *(tmp_path / f"prober-zone-{zone}.log" for zone in "bc")]
            await until(lambda: all(map(see, logs)), 60.0, "three vantage points to see")
            node = next(name for name, vms in hosted(lab).items() if vms)
            lab.cluster.faults.power_loss(node)
            kubelets[node].die()
            await until(
                lambda: any(
                    one.get("kind") == "resolved" or one.get("state") == "recovering"
                    for one in lab.daemon.events()
                    if one.get("subject") == f"node/{node}"
                ),
                90.0,
                "the host's VMs to be brought back",
            )
        decisions = lab.daemon.journal()
        listening.cancel()
        await asyncio.wait({listening})
        await connection.close()
    assert any(one.kind is DecisionKind.VERDICT for one in decisions)
    rows = network_rows(decisions, node)
    assert "down" in {value for value, _ in rows}, rows
    detail = next(detail for value, detail in rows if value == "down")
    assert detail.startswith(("2 of 3", "3 of 3")), detail
    assert node in called  # the leader asked all vantage points for it


def hosted(lab) -> dict[str, list[str]]:
    """Which node runs which VMs, by the truth ledger."""
    found: dict[str, list[str]] = {name: [] for name in lab.cluster.hosts}
    for key in lab.cluster.vms:
        for copy in lab.cluster.ledger.running_copies(key):
            found[copy.node].append(key)
    return found
