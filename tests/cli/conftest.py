from __future__ import annotations

import asyncio
import importlib.util
import threading
from pathlib import Path

import pytest

from remediator.bus.protocols import StoredRecord
from remediator.cli.entry import run_cli
from remediator.journal import projection, schema

# The records that tests of the journal are about; test directories are no packages.
_spec = importlib.util.spec_from_file_location(
    "journal_records", Path(__file__).parent.parent / "journal" / "conftest.py"
)
journal_records = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(journal_records)


@pytest.fixture
def book():
    made = journal_records.Book()
    journal_records.write_incident(made)
    return made


@pytest.fixture
def database(tmp_path, book):
    """A projection with the story of a dead node."""
    path = tmp_path / "journal.sqlite"
    connection = schema.open_for_writing(path)
    projection.project(
        connection, [StoredRecord(d.seq, "s", payload) for d, payload in book.written]
    )
    connection.close()
    return path


class Answer:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def remediator(capsys, monkeypatch, tmp_path):
    """Run one command line in this process, away from the person's own files and variables."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def run(*arguments):
        capsys.readouterr()
        code = run_cli([str(one) for one in arguments])
        out, err = capsys.readouterr()
        return Answer(int(code), out, err)

    return run


@pytest.fixture
def background():
    """An event loop in a thread, for servers that a command talks to."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(work, timeout_s=30):
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_s)

    yield call
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
