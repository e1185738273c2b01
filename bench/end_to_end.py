"""From a signal published to its decision acknowledged, while heartbeats flow.

Three processes, as in production with watchers that are busy elsewhere: this one publishes the
heartbeats and the signals that matter; the embedded NATS server; and a leader's term (consumer,
engine with the whole inventory, journal writer) in a process of its own. Times are comparable
between the two: both read CLOCK_MONOTONIC.

A signal that matters says that a kubelet reports NotReady while its lease is renewed; with
``degraded_after_s`` 0 the engine answers at once with an incident (records "opened" and "verdict").
The time runs until NATS acknowledged the last of them, synced to disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from facts import beat, node_name, signal, warm
from table import Row

from remediator import logs
from remediator.bus import subjects
from remediator.bus.connection import connect
from remediator.bus.consumer import Consumer
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.journal_stream import NatsJournal
from remediator.bus.protocols import EventSource
from remediator.bus.publisher import Publisher
from remediator.bus.settings import NatsSettings
from remediator.bus.streams import ensure_all
from remediator.clock import Clock
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.events import WatchProgressed, encoder
from remediator.engine.machine import Engine
from remediator.engine.model import Action, Plane, Reading
from remediator.engine.settings import DetectionSettings, EngineSettings
from remediator.journal.writer import JournalWriter
from remediator.leader import Term
from remediator.policy.loader import load_directory, shipped_directory
from remediator.signals import wire

AIM_PER_S = 10_000
PACE_HZ = 100  # heartbeats are offered in so many portions a second
READY_S = 120.0
REPORT_EVERY_S = 0.25


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    nodes: int
    vms: int
    per_s: int
    seconds: float
    signals_per_s: int = 20


async def measure(directory: Path, load: Load) -> list[Row]:
    """Return the rows: heartbeats a second that got through, and the time to a decision."""
    async with EmbeddedServer(directory / "nats") as server:
        connection = await connect(server.settings, "bench")
        await ensure_all(connection)
        publisher = Publisher(connection)
        publishing = asyncio.create_task(publisher.run())
        try:
            async with _term(server.settings, load) as term:
                sent_at, heartbeats, took_s = await _publish(publisher, load)
                report = await term.finish(heartbeats + len(sent_at))
        finally:
            publishing.cancel()
            await asyncio.wait({publishing})
            await connection.close()
    times_ms = sorted((report.decided[name] - at) * 1000 for name, at in sent_at.items())
    group = f"end to end, {load.nodes:,} nodes, {load.vms:,} VMIs"
    through = report.handled / (report.last_at - report.first_at)
    p50, p99 = (times_ms[int(len(times_ms) * share)] for share in (0.5, 0.99))
    offered = heartbeats / took_s
    seconds = report.last_at - report.first_at
    return [
        Row(group, "signals offered", offered, "/s"),
        Row(
            group,
            "signals through the engine",
            through,
            "/s",
            through / offered,
            "signals offered",
            f">= {AIM_PER_S:,}/s",
            through >= 0.99 * AIM_PER_S if load.per_s >= AIM_PER_S else None,
        ),
        Row(group, "signal to decision, p50", p50, "ms"),
        Row(group, "signal to decision, p99", p99, "ms", p99 / p50, "p50", "< 25 ms", p99 < 25),
        Row(group, "signal to decision, slowest", times_ms[-1], "ms", times_ms[-1] / p50, "p50"),
        Row(group, "CPU of the leader's term", report.cpu_s / seconds, "cores"),
        Row(group, "memory of the leader's term", report.rss_mib, "MiB"),
    ]


async def _publish(publisher: Publisher, load: Load) -> tuple[dict[str, float], int, float]:
    """Publish at the load's pace; return when each signal went, the beats, and the seconds."""
    clock = Clock()
    sent_at: dict[str, float] = {}
    began = time.monotonic()
    portion, sick = load.per_s // PACE_HZ, 0
    turns = int(load.seconds * PACE_HZ)
    heard = load.nodes // 2  # the other half gets the signals that matter, one each
    for turn in range(turns):
        now = clock.now()
        for number in range(turn * portion, (turn + 1) * portion):
            node = number % heard
            publisher.offer(
                subjects.heartbeat("lease", "node", node_name(node)),
                wire.encode(beat(node, now).signal),
            )
        if turn % PACE_HZ == 0:
            for watch in ("leases", "nodes"):
                mark = encoder.encode(WatchProgressed(watch=watch, at=now))
                publisher.offer(subjects.watch_progress(watch), mark)
        if turn % (PACE_HZ // load.signals_per_s) == 0 and turn > PACE_HZ:
            name = node_name(heard + sick)
            event = signal(heard + sick, now, Plane.KUBELET, Reading.DOWN)
            sent_at[name] = time.monotonic()
            publisher.offer(subjects.signal("kubelet", "node", name), wire.encode(event.signal))
            sick += 1
        await asyncio.sleep(max(0.0, began + (turn + 1) / PACE_HZ - time.monotonic()))
    took_s = time.monotonic() - began
    await publisher.flush(30.0)
    # Beats that a newer one replaced while they waited never went out: count what NATS took.
    return sent_at, publisher.published - publisher.duplicates - len(sent_at), took_s


class _Report(msgspec.Struct):
    """What the term's process saw; times on CLOCK_MONOTONIC."""

    handled: int
    first_at: float
    last_at: float
    cpu_s: float
    rss_mib: float
    decided: dict[str, float]


class _TermProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def finish(self, expected: int) -> _Report:
        """Tell how many signals there were; return the report once they are through."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"%d\n" % expected)
        async with asyncio.timeout(READY_S):
            return msgspec.json.decode(await self._process.stdout.readline(), type=_Report)


@contextlib.asynccontextmanager
async def _term(nats: NatsSettings, load: Load) -> AsyncIterator[_TermProcess]:
    arguments = msgspec.json.encode({"nats": nats, "load": load}).decode()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            ready = await process.stdout.readline()
        if ready != b"ready\n":
            raise RuntimeError(f"the term's process said {ready!r}")
        yield _TermProcess(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# --- the process of the term ----------------------------------------------------------------------


class _NoRunner:
    """Runs nothing: in observe mode the engine starts nothing."""

    def start(self, action: Action) -> None:
        raise AssertionError(f"{action.id} in observe mode")

    async def stop(self) -> None:
        return


class _Counted:
    """A source that notes when its first and its newest message came."""

    def __init__(self, source: Consumer) -> None:
        self._source = source
        self.count = 0
        self.first_at = 0.0
        self.first_cpu_s = 0.0

    async def run(self, deliver: Any) -> None:
        def pass_on(subject: str, payload: bytes) -> None:
            if not self.count:
                self.first_at, self.first_cpu_s = time.monotonic(), time.process_time()
            self.count += 1
            deliver(subject, payload)

        await self._source.run(pass_on)


class _TimedWriter(JournalWriter):
    """Notes when the record of a node's verdict was acknowledged."""

    decided: dict[str, float]

    async def append(self, decision: Decision, payload: bytes) -> None:
        await super().append(decision, payload)
        if decision.kind in (DecisionKind.OPENED, DecisionKind.VERDICT):
            self.decided[decision.subject.name] = time.monotonic()


async def _lead(nats: NatsSettings, load: Load) -> None:
    clock = Clock()
    connection = await connect(nats, "term")
    detection = DetectionSettings(
        degraded_after_s=0.0, lease_silent_after_s=600.0, lease_overdue_after_s=500.0
    )
    engine = Engine(EngineSettings(detection=detection), load_directory(shipped_directory()))
    warm(engine, load.nodes, load.vms, clock.now())
    writer = _TimedWriter(NatsJournal(connection))
    writer.decided = {}
    term = Term(engine, writer, clock, ask_power=lambda _node: None)
    source = _Counted(Consumer(connection))
    attached: EventSource = source

    async def begin() -> None:
        await source._source.attached(10.0)  # noqa: SLF001 - both are this module's
        print("ready", flush=True)

    leading = asyncio.create_task(term.run("bench", 1, attached, _NoRunner(), begin))
    expected = int(await asyncio.to_thread(sys.stdin.readline))
    deadline = time.monotonic() + 30.0
    # The engine's own backlog counts too: what has been delivered is not yet decided.
    while (source.count < expected or term.backlog) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    last_at, cpu_s = time.monotonic(), time.process_time() - source.first_cpu_s
    await asyncio.sleep(REPORT_EVERY_S)
    report = _Report(
        handled=source.count,
        first_at=source.first_at,
        last_at=last_at,
        cpu_s=cpu_s,
        rss_mib=rss_mib("self"),
        decided=writer.decided,
    )
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.flush()
    leading.cancel()
    await asyncio.wait({leading})
    await connection.close()


def rss_mib(pid: int | str) -> float:
    """Return a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


if __name__ == "__main__":
    logs.configure(level="error", stream=sys.stderr)
    given = msgspec.json.decode(sys.argv[1])
    asyncio.run(
        _lead(msgspec.convert(given["nats"], NatsSettings), msgspec.convert(given["load"], Load))
    )
