from __future__ import annotations

import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
import yaml

from remediator.bus.protocols import StoredRecord
from remediator.exit_codes import ExitCode
from remediator.journal import projection, schema


def seqs(text):
    return [one["seq"] for one in json.loads(text)]


def test_lists_newest_first_as_plain_lines_where_there_is_no_terminal(remediator, database):
    answer = remediator("decisions", "list", "--db", database)
    lines = answer.out.splitlines()
    assert answer.code == ExitCode.OK
    assert lines[0].split()[:2] == ["SEQ", "TIME"]
    assert [line.split()[0] for line in lines[1:]] == [str(seq) for seq in range(9, 0, -1)]
    assert "\x1b" not in answer.out
    assert lines[4].split()[4:8] == ["finished", "-", "fence", "succeeded"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (("--vm", "payments/db"), [8, 7, 4]),
        (("--node", "n3", "--action", "fence"), [6, 5]),
        (("--outcome", "succeeded"), [7, 6]),
        (("--verdict", "Unreachable"), [4, 3]),
        (("--policy", "node-lost", "--kind", "resolved"), [9]),
        (("--text", "nobody probes"), [3]),
        (("--since", "2026-09-21T14:13:40", "--until", "2026-09-21T14:13:50Z"), [8, 7]),
        (("--limit", "2"), [9, 8]),
        (("--limit", "2", "--before", "8"), [7, 6]),
        (("--incident", "inc-99"), []),
    ],
)
def test_filters(remediator, database, filters, expected):
    answer = remediator("decisions", "list", "--db", database, "-o", "json", *filters)
    assert seqs(answer.out) == expected


def test_a_full_page_says_how_to_see_older_ones(remediator, database):
    answer = remediator("decisions", "list", "--db", database, "--limit", "3")
    assert answer.err == "older ones: --before 7\n"


def test_yaml_is_yaml(remediator, database):
    answer = remediator("decisions", "list", "--db", database, "-o", "yaml", "--limit", "1")
    assert yaml.safe_load(answer.out)[0]["kind"] == "resolved"


def test_show_explains(remediator, database):
    answer = remediator("decisions", "show", "6", "--db", database)
    assert answer.code == ExitCode.OK
    assert "What proof was held\n  power-off-verified, from redfish bmc-n3" in answer.out
    assert json.loads(remediator("decisions", "show", 6, "--db", database, "-o", "json").out)


def test_show_of_what_is_not_there(remediator, database):
    answer = remediator("decisions", "show", "99", "--db", database)
    assert answer.code == ExitCode.FINDING
    assert answer.err == f"remediator: there is no decision 99 in {database}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("list", "--verdict", "Ded"), "--verdict: 'Ded' is not one of"),
        (("list", "--since", "yesterday"), "--since: 'yesterday' is not a time"),
        (("list", "--nats", "nats://x"), "give one of --db and --nats, not both"),
        (("list", "--limit", "0"), "--limit"),
        (("show", "six"), "SEQ"),
        (("lst",), "Did you mean"),
    ],
)
def test_wrong_arguments_are_said_and_exit_2(remediator, database, arguments, says):
    answer = remediator("decisions", *arguments, *(("--db", database) * (len(arguments) > 1)))
    assert answer.code == ExitCode.USAGE
    assert says in answer.err


def test_verify_of_a_sound_chain(remediator, database, book):
    answer = remediator("decisions", "verify", "--db", database)
    assert answer.code == ExitCode.OK
    assert answer.out.startswith("9 records, every link holds")
    assert book.head.digest in answer.out


def test_verify_names_the_first_bad_record(remediator, database):
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE decisions SET payload = CAST(replace(payload, 'nobody', 'no one') AS BLOB)"
            " WHERE seq = 3"
        )
    connection.close()
    answer = remediator("decisions", "verify", "--db", database)
    assert answer.code == ExitCode.FINDING
    assert answer.out.startswith("BROKEN at record 4: does not follow record 3")


def test_verify_sees_a_missing_record_and_unreadable_bytes(remediator, tmp_path, book):
    records = [StoredRecord(d.seq, "s", payload) for d, payload in book.written]
    for name, change, first in (
        ("hole", lambda rows: [*rows[:4], *rows[5:]], 5),
        ("bytes", lambda rows: [*rows[:6], StoredRecord(7, "s", b"\xff"), *rows[7:]], 7),
    ):
        path = tmp_path / f"{name}.sqlite"
        connection = schema.open_for_writing(path)
        projection.project(connection, change(records))
        connection.close()
        answer = remediator("decisions", "verify", "--db", path)
        assert answer.code == ExitCode.FINDING
        assert f"BROKEN at record {first}" in answer.out


def test_a_file_that_is_no_journal_exits_5(remediator, tmp_path):
    (tmp_path / "x.sqlite").write_bytes(b"not a database" * 500)
    for path, says in (
        (tmp_path / "x.sqlite", "cannot be read"),
        (tmp_path / "nothing.sqlite", "there is no such file"),
    ):
        answer = remediator("decisions", "list", "--db", path)
        assert answer.code == ExitCode.JOURNAL
        assert says in answer.err
        assert answer.err.count("\n") == 1


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_no_daemon_is_one_line_and_exit_7(remediator):
    answer = remediator("decisions", "list", "--server", f"http://127.0.0.1:{free_port()}")
    assert answer.code == ExitCode.NO_DAEMON
    assert answer.err.count("\n") == 1
    answer = remediator("decisions", "list", "--server", "what is this")
    assert answer.code == ExitCode.NO_DAEMON
    assert answer.err.count("\n") == 1


def test_without_a_daemon_the_local_file_is_read_and_that_is_said(
    remediator, database, monkeypatch
):
    from remediator.cli import source_options  # noqa: PLC0415

    monkeypatch.setattr(source_options, "DEFAULT_SERVER", f"http://127.0.0.1:{free_port()}")
    answer = remediator("decisions", "list", "-o", "json")
    assert answer.code == ExitCode.NO_DAEMON
    assert "say where to read: --server URL, --db FILE or --nats URL" in answer.err
    monkeypatch.setenv("REMEDIATOR_JOURNAL__PATH", str(database))
    answer = remediator("decisions", "list", "-o", "json")
    assert len(seqs(answer.out)) == 9
    assert "no daemon answers" in answer.err


def test_an_unreachable_nats_is_one_line_and_exit_4(remediator, monkeypatch):
    monkeypatch.setenv("REMEDIATOR_NATS__CONNECT_TIMEOUT_S", "300ms")
    answer = remediator("decisions", "list", "--nats", f"nats://127.0.0.1:{free_port()}")
    assert answer.code == ExitCode.NO_NATS
    assert answer.err.count("\n") == 1


def test_a_wrong_nats_url_is_a_settings_error(remediator):
    answer = remediator("decisions", "list", "--nats", "http://127.0.0.1")
    assert answer.code == ExitCode.USAGE
    assert "nats.url" in answer.err


def command(*arguments):
    return [sys.executable, "-c", "from remediator.cli import main; main()", *arguments]


def test_a_reader_that_goes_away_is_no_noise(database):
    process = subprocess.Popen(
        command("decisions", "list", "--db", str(database)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == ExitCode.BROKEN_PIPE


def test_tail_prints_new_records_until_ctrl_c_and_ends_quietly(database, book):
    process = subprocess.Popen(
        command("decisions", "tail", "--db", str(database), "-o", "json", "--node", "n3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell's background job ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        got = read_lines(process.stdout, 8)
        assert [json.loads(line)["seq"] for line in got] == [2, 3, 4, 5, 6, 7, 8, 9]
        decision, payload = book.write(why="one more", subject=book.written[1][0].subject)
        connection = schema.open_for_writing(database)
        projection.project(connection, [StoredRecord(decision.seq, "s", payload)])
        connection.close()
        assert json.loads(read_lines(process.stdout, 1)[0])["why"] == "one more"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == ExitCode.INTERRUPTED
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def read_lines(pipe, number, within_s=20.0):
    deadline = time.monotonic() + within_s
    data = b""
    while data.count(b"\n") < number:
        left = deadline - time.monotonic()
        assert left > 0, data
        if select.select([pipe], [], [], left)[0]:
            data += os.read(pipe.fileno(), 65536)
    return data.splitlines()
