"""The real daemon on a NATS server where another program publishes garbage."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from remediator.bus.connection import connect
from remediator.bus.embedded import EmbeddedServer

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
until = _lab.until

START_S = 40.0  # a start takes 2 s; the machine may be busy
PER_S = 500


async def metrics(daemon) -> dict[str, float]:
    (listening,) = [e for e in daemon.events() if e.get("event") == "http_listening"]
    url = f"http://127.0.0.1:{listening['port']}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        lines = (await answer.text()).splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


async def pour(client, sent: Counter[str]) -> None:
    """Publish garbage until cancelled: no text, no JSON, forged beats and marks.

    ``sent`` counts it by kind; of heartbeats the newest may take the place of one not delivered.
    """
    rng = random.Random(3)
    forged = (
        b'{"plane":"lease","source":"lease watch","subject":{"kind":"node","name":"n01"},'
        b'"reading":"up","at":%d}'
    )
    mark = b'{"event":"progressed","watch":"leases","at":%d}'
    while True:
        for _ in range(PER_S // 50):
            at = rng.randrange(2_000_000_000)
            payload, subject = rng.choice(
                (
                    (rng.randbytes(100), "remediator.signal.power.node.n01"),
                    (b'{"plane":"lease\xff"}', "remediator.signal.lease.node.n01"),
                    (forged % at, "remediator.signal.lease.node.n01"),
                    (mark % at, "remediator.heartbeat.progress.watch.leases"),
                    (b"[" * 15_000, "remediator.signal.network.node.n01"),
                )
            )
            await client.publish(subject, payload)
            sent[subject.split(".")[1]] += 1
        await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_host_dies_amid_garbage_and_its_vms_come_back(lab):
    async with EmbeddedServer(lab.directory / "nats-of-others") as server:
        settings = server.settings
        nats = {
            "url": settings.url,
            "user": settings.user,
            "password_file": settings.password_file,
        }
        lab.configure(nats=nats)
        daemon, cluster, sent = lab.daemon, lab.cluster, Counter()
        daemon.start()
        await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")
        outsider = await connect(settings, "outsider")
        pouring = asyncio.create_task(pour(outsider.client, sent))
        try:
            cluster.faults.power_loss("n01")
            await until(
                lambda: any(e.get("kind") == "resolved" for e in decisions(daemon)),
                60.0,
                "the host's VMs to be back",
            )
        finally:
            pouring.cancel()
            await asyncio.wait({pouring})
        await outsider.client.flush()
        assert cluster.ledger.double_runs == ()
        assert sent["signal"] > 1000
        found = await settled(daemon, sent["signal"])
        counted = refused(found)
        assert sent["signal"] <= counted <= sent.total()
        letters = found['remediator_dead_letters_total{fate="sent"}']
        assert letters + found['remediator_dead_letters_total{fate="dropped"}'] == counted
        info = await outsider.api("STREAM.INFO.DEAD_LETTERS")
        lost = found['remediator_dead_letters_total{fate="lost"}']
        assert info["state"]["messages"] == letters - lost > 200
        lines = [e for e in daemon.events() if e.get("event") == "signal_refused"]
        assert 4 <= len(lines) < 60, "the log was flooded"
        await outsider.close()
        assert await daemon.end() == 0
        assert "Traceback" not in daemon.log.read_text()


def decisions(daemon) -> list[dict]:
    return [event for event in daemon.events() if event.get("event") == "decision"]


def refused(found: dict[str, float]) -> float:
    name = "remediator_signals_refused_total{"
    return sum(value for key, value in found.items() if key.startswith(name))


async def settled(daemon, least: int) -> dict[str, float]:
    """Wait until so much was refused, and what is refused grows no more."""
    async with asyncio.timeout(30.0):
        before = await metrics(daemon)
        while True:
            await asyncio.sleep(1.0)  # between two looks
            found = await metrics(daemon)
            if refused(found) == refused(before) >= least:
                return found
            before = found
