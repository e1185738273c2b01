"""The same questions to every source must give the same answers."""

from __future__ import annotations

import json

import pytest

from remediator.api.app import Part, make_app, serving
from remediator.bus.connection import connect
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.journal_stream import NatsJournal
from remediator.bus.protocols import StoredRecord
from remediator.bus.streams import ensure_all
from remediator.cli import sources
from remediator.cli.entry import CommandError
from remediator.exit_codes import ExitCode
from remediator.journal.query import DecisionQuery, StoredDecision
from remediator.journal.store import DecisionStore
from remediator.journal.writer import JournalWriter
from remediator.policy.loader import shipped_directory

QUESTIONS = [
    ("list", "-o", "json"),
    ("list", "-o", "json", "--vm", "payments/db", "--limit", "2"),
    ("list", "-o", "json", "--node", "n3", "--since", "2026-09-21T14:13:35"),
    ("list", "--verdict", "Unreachable"),
    ("show", "6"),
    ("show", "6", "-o", "yaml"),
]


@pytest.fixture
def server(background, database):
    """A daemon's API over the projection."""

    async def start():
        store = await DecisionStore.open(database)
        app = make_app(readiness=lambda: {"x": Part(ok=True)}, journal=store, now=lambda: 0.0)
        context = serving(app, "127.0.0.1", 0)
        return store, context, await context.__aenter__()

    async def stop():
        await context.__aexit__(None, None, None)
        await store.close()

    store, context, port = background(start())
    yield f"http://127.0.0.1:{port}"
    background(stop())


@pytest.fixture
def nats(background, book, tmp_path, monkeypatch):
    """A real NATS server that holds the journal."""
    embedded = EmbeddedServer(tmp_path / "nats")

    async def start():
        await embedded.start()
        connection = await connect(embedded.settings, "test")
        await ensure_all(connection)
        writer = JournalWriter(NatsJournal(connection))
        for decision, payload in book.written:
            await writer.append(decision, payload)
        return connection

    async def stop():
        await connection.close()
        await embedded.stop()

    connection = background(start())
    monkeypatch.setenv("REMEDIATOR_NATS__USER", embedded.settings.user)
    monkeypatch.setenv("REMEDIATOR_NATS__PASSWORD_FILE", embedded.settings.password_file)
    yield embedded.settings.url
    background(stop())


def test_the_api_answers_as_the_file_does(remediator, database, server):
    for question in QUESTIONS:
        expected = remediator("decisions", *question, "--db", database)
        answer = remediator("decisions", *question, "--server", server)
        assert (answer.code, answer.out) == (expected.code, expected.out)
        assert answer.out


def test_nats_answers_as_the_file_does(remediator, database, nats, book):
    for question in QUESTIONS:
        expected = remediator("decisions", *question, "--db", database)
        answer = remediator("decisions", *question, "--nats", nats)
        assert (answer.code, answer.out) == (expected.code, expected.out)
    answer = remediator("decisions", "verify", "--nats", nats)
    assert answer.code == ExitCode.OK
    assert book.head.digest in answer.out


def test_the_chain_can_be_verified_through_the_api(remediator, server, book):
    answer = remediator("decisions", "verify", "--server", server)
    assert answer.code == ExitCode.OK
    assert book.head.digest in answer.out


def test_the_api_s_refusal_is_told(remediator, server):
    answer = remediator("decisions", "show", "99", "--server", server)
    assert answer.code == ExitCode.FINDING
    answer = remediator("decisions", "list", "--server", f"{server}/wrong")
    assert answer.code == ExitCode.NO_DAEMON
    assert "Not Found" in answer.err


async def test_following_waits_for_a_source_that_went_away(book, capsys, monkeypatch):
    monkeypatch.setattr(sources, "POLL_S", 0.001)
    stored = [StoredDecision(seq=d.seq, payload=payload) for d, payload in book.written]
    answers = [
        stored[:2],
        CommandError(ExitCode.NO_DAEMON, "gone"),
        CommandError(ExitCode.NO_DAEMON, "still gone"),
        stored[2:3],
        CommandError(ExitCode.USAGE, "no such filter"),
    ]

    class Flaky:
        async def select(self, query):
            self.asked = query.after_seq
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    source = Flaky()
    following = sources.follow(source, DecisionQuery(after_seq=0))
    assert [(await anext(following)).seq for _ in range(3)] == [1, 2, 3]
    with pytest.raises(CommandError, match="no such filter"):
        await anext(following)
    assert source.asked == 3
    assert capsys.readouterr().err == "remediator: gone; waiting for it\n"


async def test_a_file_that_the_daemon_began_anew_is_opened_anew(database, book):
    source = sources.SqliteSource(database)
    assert len(await source.select(DecisionQuery())) == 9
    database.unlink()
    with pytest.raises(CommandError, match="there is no such file"):
        await source.select(DecisionQuery())
    store = await DecisionStore.open(database)
    decision, payload = book.written[0]
    await store.project([StoredRecord(decision.seq, "s", payload)])
    assert len(await source.select(DecisionQuery())) == 1
    source.close()
    await store.close()


def test_a_backtest_and_an_export_read_every_source_alike(remediator, database, server, nats):
    since = ("--since", "2026-01-01")
    ask = ("policy", "backtest", "--policies", shipped_directory(), "-o", "json", *since)
    for command in (ask, ("decisions", "export")):
        expected = remediator(*command, "--db", database)
        assert expected.code == ExitCode.OK
        assert remediator(*command, "--nats", nats).out == expected.out
        assert remediator(*command, "--server", server).out == expected.out
    assert json.loads(remediator(*ask, "--nats", nats).out)["without_inputs"] == 1
