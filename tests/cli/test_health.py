"""``remediator health``, through a real API; its texts against files that a person has read.

To change them on purpose: REWRITE_GOLDEN=1 pytest tests/cli/test_health.py, and read the diff.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
from pathlib import Path

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry

from remediator.api.app import make_app, serving
from remediator.bus import subjects
from remediator.bus.connection import connect
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.queries import Answerer
from remediator.cli.health_text import span
from remediator.exit_codes import ExitCode
from remediator.health_query import HealthAnswer, HealthQuery, decode_query, encode
from remediator.metrics import Metrics

GOLDEN = Path(__file__).with_name("golden")

_spec = importlib.util.spec_from_file_location(
    "health_answers", Path(__file__).with_name("health_answers.py")
)
answers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(answers)


def check(name, text):
    path = GOLDEN / name
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


class Reader:
    """Answers with the view that fits the question, or as it is told."""

    def __init__(self):
        self.asked = []
        self.refusal = None

    async def answer(self, query):
        self.asked.append(query)
        if self.refusal is not None:
            return self.refusal
        view = {
            "cluster": answers.QUIET if query.zone else answers.CLUSTER,
            "node": answers.NODE,
            "vm": answers.VM,
        }[query.view]
        return HealthAnswer(status=200, view=msgspec.Raw(msgspec.json.encode(view)))


@pytest.fixture
def api(background, remediator):
    """The API over a socket, and a function that asks it."""
    reader = Reader()

    async def start():
        app = make_app(
            readiness=dict,
            journal=None,
            now=lambda: 0.0,
            metrics=Metrics(CollectorRegistry()),
            health=reader,
        )
        context = serving(app, "127.0.0.1", 0)
        return context, await context.__aenter__()

    context, port = background(start())
    reader.run = lambda *arguments: remediator(
        "health", *arguments, "--server", f"http://127.0.0.1:{port}"
    )
    yield reader
    background(context.__aexit__(None, None, None))


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("health-cluster", ()),
        ("health-zone", ("--zone", "zone-b")),
        ("health-node", ("node/n03",)),
        ("health-vm", ("vm/payments/db",)),
    ],
)
def test_each_view_is_printed_as_a_person_has_read_it(api, name, arguments, output):
    answer = api.run(*arguments, "-o", output)
    assert (answer.code, answer.err) == (ExitCode.OK, "")
    assert "\x1b" not in answer.out, "no colours where there is no terminal"
    check(f"{name}.{output}", answer.out)


def test_json_and_yaml_are_the_view_itself(api):
    view = json.loads(msgspec.json.encode(answers.CLUSTER))
    assert json.loads(api.run("-o", "json").out) == view
    assert yaml.safe_load(api.run("-o", "yaml").out) == view


def test_what_is_asked_is_what_the_arguments_say(api):
    api.run("vm/payments/db")
    api.run("node/n1.example.com")
    api.run("--zone", "z")
    assert api.asked == [
        HealthQuery(view="vm", namespace="payments", name="db"),
        HealthQuery(view="node", name="n1.example.com"),
        HealthQuery(view="cluster", zone="z"),
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, ExitCode.FINDING),
        (503, ExitCode.NO_DAEMON),
        (400, ExitCode.USAGE),
        (500, ExitCode.INTERNAL),
    ],
)
def test_a_refusal_is_one_line_with_its_exit_code(api, status, code):
    api.refusal = HealthAnswer(status=status, detail="there is no node n9; did you mean n09?")
    answer = api.run("node/n9")
    assert (answer.code, answer.out) == (code, "")
    assert answer.err == "remediator: there is no node n9; did you mean n09?\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("n02",), "'n02': write node/NAME or vm/NAMESPACE/NAME"),
        (("vm/db",), "'vm/db': write node/NAME"),
        (("node/",), "'node/': write node/NAME"),
        (("node/n1", "--zone", "a"), "--zone is for the whole cluster"),
        (("--nats", "nats://x", "--server", "http://y"), "give one of --server and --nats"),
        (("-o", "xml"), "'xml' is not one of"),
    ],
)
def test_wrong_arguments_are_said_and_exit_2(remediator, arguments, says):
    answer = remediator("health", *arguments)
    assert answer.code == ExitCode.USAGE
    assert says in answer.err


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_no_daemon_is_one_line_and_exit_7(remediator, monkeypatch):
    answer = remediator("health", "--server", f"http://127.0.0.1:{free_port()}")
    assert answer.code == ExitCode.NO_DAEMON
    assert answer.err.count("\n") == 1
    assert "say where to ask" not in answer.err
    from remediator.cli import health_source  # noqa: PLC0415

    monkeypatch.setattr(health_source, "DEFAULT_SERVER", f"http://127.0.0.1:{free_port()}")
    assert "say where to ask: --server URL or --nats URL" in remediator("health").err


def test_what_is_no_remediator_is_said(remediator, background):
    async def start():
        async def page(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            await writer.drain()
            writer.close()

        return await asyncio.start_server(page, "127.0.0.1", 0)

    server = background(start())
    port = server.sockets[0].getsockname()[1]
    answer = remediator("health", "--server", f"http://127.0.0.1:{port}")
    assert answer.code == ExitCode.NO_DAEMON
    assert "is no remediator API" in answer.err
    background(_close(server))


async def _close(server):
    server.close()
    await server.wait_closed()


def test_a_view_of_another_version_is_not_guessed_at(api):
    api.refusal = HealthAnswer(status=200, view=msgspec.Raw(b'{"at":1.0,"new":true}'))
    answer = api.run()
    assert answer.code == ExitCode.NO_DAEMON
    assert "the daemon speaks another version" in answer.err
    assert json.loads(api.run("-o", "json").out) == {"at": 1.0, "new": True}


def test_over_nats_the_leader_answers(remediator, background, tmp_path, monkeypatch):
    server = EmbeddedServer(tmp_path / "nats")
    background(server.__aenter__())
    settings = server.settings
    monkeypatch.setenv("REMEDIATOR_NATS__USER", settings.user)
    monkeypatch.setenv("REMEDIATOR_NATS__PASSWORD_FILE", str(settings.password_file))

    async def lead():
        connection = await connect(settings, "leader")
        reader = Reader()

        async def answer(payload):
            return encode(await reader.answer(decode_query(payload)))

        answerer = Answerer(connection, subjects.QUERY_HEALTH, answer)

        task = asyncio.create_task(answerer.run())
        await answerer.listening.wait()
        return connection, task

    nobody = remediator("health", "--nats", settings.url)
    assert nobody.code == ExitCode.NO_DAEMON
    assert nobody.err == "remediator: no daemon on this NATS leads now\n"
    connection, task = background(lead())
    answer = remediator("health", "node/n03", "--nats", settings.url)
    assert (answer.code, answer.err) == (ExitCode.OK, "")
    assert answer.out == (GOLDEN / "health-node.table").read_text()

    async def stop():
        task.cancel()
        await connection.close()
        await server.__aexit__(None, None, None)

    background(stop())


def test_an_unreachable_nats_is_one_line_and_exit_4(remediator, monkeypatch):
    monkeypatch.setenv("REMEDIATOR_NATS__CONNECT_TIMEOUT_S", "300ms")
    answer = remediator("health", "--nats", f"nats://127.0.0.1:{free_port()}")
    assert answer.code == ExitCode.NO_NATS
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.0 s"),
        (3.25, "3.2 s"),
        (99.9, "99.9 s"),
        (99.96, "1 min 40 s"),
        (252.0, "4 min 12 s"),
        (3600.0, "1 h"),
        (7500.0, "2 h 5 min"),
        (90_061.0, "1 d 1 h"),
    ],
)
def test_durations_take_two_units_at_most(seconds, text):
    assert span(seconds) == text
