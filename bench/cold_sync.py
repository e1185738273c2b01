"""The real daemon against a large cluster: how long until it knows everything, and its memory.

The API server, the daemon and its embedded NATS are three processes on one machine; the API server
(Python, simulated) competes with the daemon for the CPU, which a real one would not.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from end_to_end import rss_mib
from table import Row

BUILD_LIMIT_S = 600.0
SYNC_LIMIT_S = 180.0
PUBLISHED = "remediator_nats_published_total"
STEADY_S = 20.0  # two rounds of leases


async def measure(
    directory: Path, nodes: int, vms: int, *, disks: bool, steady_s: float = STEADY_S
) -> list[Row]:
    """Return the rows of one cold start in ``directory``; each VM has a disk of its own or none."""
    kubeconfig = directory / "kubeconfig"
    async with _process(
        Path(__file__).with_name("big_cluster.py"),
        str(nodes),
        str(vms),
        str(kubeconfig),
        "1" if disks else "0",
    ) as cluster:
        assert cluster.stdout is not None
        async with asyncio.timeout(BUILD_LIMIT_S):
            await cluster.stdout.readline()
        # Node and lease; VM, VMI and pod; with a disk its claim, volume and attachment.
        objects = 2 * nodes + (6 if disks else 3) * vms
        what = "VMs with disks" if disks else "VMs, VMIs, pods"
        group = f"daemon, {nodes:,} nodes, {vms:,} {what}"
        return await _sync(directory, kubeconfig, group, objects, steady_s)


async def _sync(
    directory: Path, kubeconfig: Path, group: str, total: int, steady_s: float
) -> list[Row]:
    config = directory / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "data_dir": str(directory / "data"),
                "kube": {"kubeconfig": str(kubeconfig)},
                "http": {"port": 0},
                "log": {"format": "json"},
            }
        ),
        encoding="utf-8",
    )
    log = directory / "daemon.log"
    began = time.monotonic()
    with log.open("wb") as output:
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "remediator", "run", "--config", str(config)),
            stdout=output,
            stderr=output,
        )
    try:
        peak = _Peak(daemon.pid)
        watching = asyncio.create_task(peak.run())
        url = await _event(log, "http_listening")
        base = f"http://127.0.0.1:{url['port']}"
        async with aiohttp.ClientSession() as http:
            listed_s = await _ready(http, base, began)
            told_s = await _published(http, base, total, began)
            await asyncio.sleep(steady_s)
            lag = await _metric(http, base, "remediator_event_loop_lag_seconds_sum")
            lags = await _metric(http, base, "remediator_event_loop_lag_seconds_count")
        steady = rss_mib(daemon.pid)
        watching.cancel()
        daemon.terminate()
        began_to_end = time.monotonic()
        code = await daemon.wait()
        end_s = time.monotonic() - began_to_end
    finally:
        if daemon.returncode is None:
            daemon.kill()
            await daemon.wait()
    if code:
        raise RuntimeError(f"the daemon ended with {code}: {log.read_text()[-500:]}")
    terms = sum(1 for event in events(log) if event.get("event") == "leading")
    return [
        Row(group, "objects known", total, ""),
        Row(group, "start to all lists complete", listed_s, "s", None, "", "< 30 s", listed_s < 30),
        Row(group, "start to all of it on NATS", told_s, "s", told_s / listed_s, "lists complete"),
        Row(group, "memory, peak", peak.mib, "MiB", None, "", "< 600 MB", peak.mib < 572),
        Row(group, "memory, steady", steady, "MiB", steady / peak.mib, "peak"),
        Row(group, "terms of leadership meanwhile", terms, "", None, "", "1", terms == 1),
        Row(group, "mean lag of the event loop", 1000 * lag / max(1.0, lags), "ms"),
        Row(group, "SIGTERM to end", end_s, "s", None, "", "< 10 s", end_s < 10),
    ]


class _Peak:
    """The largest resident memory seen."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.mib = 0.0

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, RuntimeError):
                self.mib = max(self.mib, rss_mib(self._pid))
            await asyncio.sleep(0.1)


def events(log: Path) -> Iterator[dict[str, Any]]:
    """Yield what the daemon logged so far."""
    for line in log.read_bytes().splitlines():
        with contextlib.suppress(msgspec.DecodeError):  # the last line may be half written
            yield msgspec.json.decode(line)


async def _event(log: Path, name: str) -> dict[str, Any]:
    async with asyncio.timeout(SYNC_LIMIT_S):
        while True:
            for event in events(log):
                if event.get("event") == name:
                    return event
            await asyncio.sleep(0.1)


async def _ready(http: aiohttp.ClientSession, base: str, began: float) -> float:
    async with asyncio.timeout(SYNC_LIMIT_S):
        while True:
            async with http.get(f"{base}/readyz") as answer:
                if answer.status == 200:
                    return time.monotonic() - began
            await asyncio.sleep(0.1)


async def _published(http: aiohttp.ClientSession, base: str, total: int, began: float) -> float:
    """Wait until NATS took as many messages as there are objects (the gauge moves every 5 s)."""
    async with asyncio.timeout(SYNC_LIMIT_S):
        while await _metric(http, base, PUBLISHED) < total:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.25)
    return time.monotonic() - began


async def _metric(http: aiohttp.ClientSession, base: str, name: str) -> float:
    async with http.get(f"{base}/metrics") as answer:
        found = re.search(rf"^{name} (\S+)$", await answer.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@contextlib.asynccontextmanager
async def _process(script: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
