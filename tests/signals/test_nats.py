"""Another program and a real NATS server: what it publishes is taken, repeated or put aside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import nats
import nats.errors
import pytest
from prometheus_client import CollectorRegistry
from signal_door import NOW, document, signal

from remediator.bus.connection import connect
from remediator.bus.consumer import Consumer
from remediator.bus.embedded import EmbeddedServer, server_binary
from remediator.bus.publisher import Publisher
from remediator.bus.streams import ensure_all
from remediator.clock import Clock
from remediator.engine.events import SignalSeen, WatchProgressed
from remediator.engine.model import Plane, Reading
from remediator.metrics import Metrics
from remediator.signals.dead_letters import LETTERS_AT_ONCE, LETTERS_PER_S, DeadLetters
from remediator.signals.intake import Intake
from remediator.signals.sources import SignalSettings, Sources
from remediator.watchers.outlet import Outlet

PAGE = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()
EXAMPLE, PERMISSIONS = (
    re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1] for kind in ("python", "conf")
)
SUBJECT = "remediator.signal.machine.node.n1.hypervisor-watch"


class Station:
    """The daemon's side: what the leader's term has between NATS and its engine."""

    def __init__(self, connection) -> None:
        metrics = Metrics(CollectorRegistry())
        self.connection = connection
        self.publisher = Publisher(connection)
        self.consumer = Consumer(connection)
        self.dead_letters = DeadLetters(self.publisher, metrics=metrics)
        self.intake = Intake(
            Clock(),
            sources=Sources(SignalSettings()),
            dead_letters=self.dead_letters,
            origin="0123456789ab",
            metrics=metrics,
        )
        self.heard = []

    def deliver(self, subject: str, payload: bytes) -> None:
        event = self.intake.take(subject, payload)
        if event is not None:
            self.heard.append(event)

    @property
    def accounted(self) -> int:
        return self.intake.accepted + self.intake.duplicates + self.intake.refused.total()

    async def until(self, condition, deadline_s: float = 20.0) -> None:
        async with asyncio.timeout(deadline_s):
            while not condition():
                await asyncio.sleep(0.01)

    async def stored(self, stream: str) -> int:
        info = await self.connection.api(f"STREAM.INFO.{stream}")
        return info["state"]["messages"]


@pytest.fixture
async def server(tmp_path):
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def station(server):
    connection = await connect(server.settings, "daemon")
    await ensure_all(connection)
    station = Station(connection)
    tasks = [
        asyncio.create_task(station.consumer.run(station.deliver)),
        asyncio.create_task(station.publisher.run()),
    ]
    await station.consumer.attached(10.0)
    yield station
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await connection.close()


@pytest.fixture
async def outsider(server):
    """A program of somebody else's, with a connection of its own and plain nats-py."""
    settings = server.settings
    password = Path(settings.password_file).read_text().strip()
    client = await nats.connect(settings.url, user=settings.user, password=password)
    yield client
    await client.close()


async def test_the_example_of_the_documentation_works_as_it_stands_there(server, station):
    settings = server.settings
    password = Path(settings.password_file).read_text().strip()
    url = settings.url.replace("://", f"://{settings.user}:{password}@")
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", EXAMPLE),
        env={**os.environ, "NATS_URL": url},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30.0):
        printed, _ = await program.communicate()
    assert program.returncode == 0
    assert printed.decode().splitlines() == [
        "SIGNALS 1 duplicate=False",
        "SIGNALS 1 duplicate=True",
    ]
    await station.until(lambda: station.accounted)
    (event,) = station.heard
    assert isinstance(event, SignalSeen)
    assert str(event.signal.subject) == "node/n17.example.com"
    stored = await station.connection.client.jetstream().get_msg("SIGNALS", 1)
    assert json.loads(stored.data)["ticket"] == "OPS-4711"


async def test_garbage_between_signals_is_accounted_for_and_put_aside(station, outsider):
    rng = random.Random(5)
    sent = good = 0
    for n in range(3000):
        right = json.dumps(document(at=NOW + n)).encode()
        match rng.randrange(6):
            case 0:
                payload, subject = rng.randbytes(rng.randrange(200)), SUBJECT
            case 1:
                payload, subject = right[: rng.randrange(len(right))], SUBJECT
            case 2:
                payload, subject = right, f"remediator.signal.{rng.choice(('power', 'x', 'a.b'))}"
            case 3:
                payload, subject = right[:-1] + b',"x":"' + b"y" * 20_000 + b'"}', SUBJECT
            case 4:
                payload, subject = right.replace(b'"n1"', b'"n2"'), SUBJECT
            case _:
                payload, subject = right, SUBJECT
                good += 1
        await outsider.publish(subject, payload)
        sent += 1
    await outsider.flush()
    await station.until(lambda: station.accounted == sent)
    assert await station.stored("SIGNALS") == sent
    assert station.intake.accepted == len(station.heard) == good
    assert station.intake.refused.total() == sent - good
    letters = station.dead_letters
    assert letters.buried + letters.dropped == sent - good
    assert LETTERS_AT_ONCE <= letters.buried <= LETTERS_AT_ONCE + 30 * LETTERS_PER_S
    assert await station.publisher.flush(10.0)
    assert await station.stored("DEAD_LETTERS") == letters.buried
    assert station.publisher.unburied == 0


async def test_a_dead_letter_can_be_read_with_its_reason_and_its_payload(station, outsider):
    await outsider.publish(SUBJECT, b'{"plane": "machine\xff"}')
    await station.until(lambda: station.dead_letters.buried)
    assert await station.publisher.flush(10.0)
    letter = await outsider.jetstream().get_msg("DEAD_LETTERS", 1)
    assert (
        letter.subject == "remediator.dead-letter.not-utf8.signal.machine.node.n1.hypervisor-watch"
    )
    assert letter.data == b'{"plane": "machine\xff"}'
    assert letter.headers["Remediator-Reason"] == "not-utf8"
    assert letter.headers["Remediator-Subject"] == SUBJECT


async def test_a_repeat_without_an_id_is_stored_twice_and_taken_once(station, outsider):
    for _ in range(2):
        await outsider.publish(SUBJECT, json.dumps(document()).encode())
    await outsider.flush()
    await station.until(lambda: station.accounted == 2)
    assert await station.stored("SIGNALS") == 2
    assert (station.intake.accepted, station.intake.duplicates) == (1, 1)


async def test_dead_letters_are_not_heard_as_signals(station, outsider):
    """They are on subjects of their own: no letter may become the ground of another."""
    for _ in range(50):
        await outsider.publish(SUBJECT, b"garbage")
    await outsider.flush()
    await station.until(lambda: station.dead_letters.buried == 50)
    assert await station.publisher.flush(10.0)
    await outsider.publish(SUBJECT, json.dumps(document()).encode())
    await station.until(lambda: station.intake.accepted == 1)
    assert station.consumer.delivered == 51


async def test_nobody_s_message_takes_the_place_of_our_own_beats_and_marks(station, outsider):
    """Of heartbeats the newest per subject is kept: one that is replaced is heard by nobody."""
    outlet = Outlet(station.publisher, random.Random(1))
    outlet.is_open = True
    for plane in (Plane.LEASE, Plane.HANDLER):
        outlet.beat(signal(plane=plane, source="node watch", reading=Reading.UP))
    outlet.progress("leases", time.time())
    assert await station.publisher.flush(10.0)
    for guess in (
        "lease.node.n1",
        "lease.node.n1.node-watch",
        "handler.node.n1",
        "handler.node.n1.node-watch",
        "progress.watch.leases",
    ):
        await outsider.publish(f"remediator.heartbeat.{guess}", b"garbage")
    await outsider.flush()
    await station.until(lambda: station.intake.refused.total() >= 5)
    assert await station.stored("HEARTBEATS") == 8
    intake = Intake(Clock(), sources=Sources(SignalSettings()), origin=outlet.origin)
    stored = [await outsider.jetstream().get_msg("HEARTBEATS", seq) for seq in (1, 2, 3)]
    events = [intake.take(message.subject, message.data) for message in stored]
    assert [type(event) for event in events] == [SignalSeen, SignalSeen, WatchProgressed]


# --- the permissions of the documentation ---------------------------------------------------------


@pytest.fixture
async def guarded(tmp_path):
    """A server with the users of the documentation."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "nats.conf"
    store = json.dumps(str(tmp_path / "store"))
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: {store} }}\n{PERMISSIONS}'
    )
    passwords = {"REMEDIATOR_PASSWORD": "daemon", "HYPERVISOR_WATCH_PASSWORD": "watch"}
    server = subprocess.Popen(
        [str(server_binary()), "-c", str(config)],
        env={**os.environ, **passwords},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


async def opened(url: str, user: str, password: str, **options) -> nats.NATS:
    async with asyncio.timeout(20.0):
        while True:
            with contextlib.suppress(OSError, nats.errors.Error):
                return await nats.connect(
                    url, user=user, password=password, allow_reconnect=False, **options
                )
            await asyncio.sleep(0.05)


async def test_the_permissions_of_the_documentation_hold_a_program_to_its_name(guarded):
    daemon = await opened(guarded, "remediator", "daemon")
    heard = await daemon.subscribe("remediator.>")
    await daemon.jetstream().add_stream(name="SIGNALS", subjects=["remediator.signal.>"])
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    program = await opened(guarded, "hypervisor-watch", "watch", error_cb=on_error)
    for subject in (
        "remediator.signal.machine.node.n1",
        "remediator.signal.machine.node.n1.another",
        "remediator.signal.lease.node.n1.hypervisor-watch",
        "remediator.heartbeat.progress.watch.leases",
        "remediator.inventory.Node._.n1",
    ):
        await program.publish(subject, b"x")
    stored = await program.jetstream().publish(SUBJECT, b"its own")
    assert (stored.stream, stored.seq) == ("SIGNALS", 1)
    message = await heard.next_msg(timeout=10)
    assert (message.subject, message.data) == (SUBJECT, b"its own")
    assert len(refused) == 5
    assert all("permissions violation" in text.lower() for text in refused)
    await program.close()
    await daemon.close()
