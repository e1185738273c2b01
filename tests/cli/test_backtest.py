"""``policy backtest`` and ``decisions export``, on the journal of two simulated faults."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import structlog
import yaml

from remediator.bus.protocols import StoredRecord
from remediator.exit_codes import ExitCode
from remediator.journal import projection, schema
from remediator.policy.loader import load_directory, shipped_directory
from remediator.rehearsal.rehearsal import Rehearsal
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.virtual_time import run

GOLDEN = Path(__file__).with_name("golden")
PATIENT = """
apiVersion: remediator.io/v1alpha1
kind: RemediationPolicy
metadata: {name: node-lost}
spec:
  verdicts: [Dead, Unreachable]
  forVerdict: {Unreachable: 5m}
  requiredProof: [power-off-verified, rebooted]
"""


def check(name, text):
    path = GOLDEN / name
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


async def _played():
    """One host loses its power, and later another its network: one policy answers both."""
    rehearsal = Rehearsal(
        ClusterSpec(nodes=6, zones=2, vms=6, seed=3),
        policies=[one for one in load_directory(shipped_directory()) if one.name == "node-lost"],
        seed=3,
    )
    await rehearsal.start()
    await rehearsal.run(30.0)
    rehearsal.cluster.faults.power_loss("n01")
    await rehearsal.run(60.0)
    rehearsal.cluster.faults.partition("n02")
    await rehearsal.run(60.0)
    records = list(rehearsal.journal.records)
    await rehearsal.stop()
    return records


@pytest.fixture(scope="module")
def records():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield run(_played())
    structlog.reset_defaults()


@pytest.fixture
def journal(tmp_path, records):
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b"".join(record.payload + b"\n" for record in records))
    return file


@pytest.fixture
def database(tmp_path, records):
    path = tmp_path / "journal.sqlite"
    connection = schema.open_for_writing(path)
    projection.project(
        connection, [StoredRecord(record.seq, "s", record.payload) for record in records]
    )
    connection.close()
    return path


@pytest.fixture
def patient(tmp_path):
    directory = tmp_path / "patient"
    directory.mkdir()
    (directory / "node-lost.yaml").write_text(PATIENT)
    return directory


@pytest.fixture
def then(tmp_path):
    """The policies that the records were made under."""
    directory = tmp_path / "then"
    directory.mkdir()
    shutil.copy(shipped_directory() / "node-lost.yaml", directory)
    return directory


def test_the_differences_stand_in_a_table_and_the_exit_code_says_so(remediator, journal, patient):
    answer = remediator("policy", "backtest", "--policies", patient, "--file", journal)
    assert answer.code == ExitCode.FINDING
    check("backtest.table", answer.out)
    assert answer.err.startswith(f"{len(journal.read_text().splitlines())} records (")
    assert "2 would be answered otherwise" in answer.err


def test_nothing_differs_under_the_policies_of_then(remediator, journal, then):
    answer = remediator("policy", "backtest", "--policies", then, "--file", journal)
    assert (answer.code, answer.out) == (ExitCode.OK, "")
    assert "none would be answered otherwise" in answer.err


def test_programs_get_json_and_yaml(remediator, journal, patient):
    ask = ("policy", "backtest", "--policies", patient, "--file", journal)
    plain = json.loads(remediator(*ask, "-o", "json").out)
    assert plain == yaml.safe_load(remediator(*ask, "-o", "yaml").out)
    assert plain["differing"] == len(plain["differences"]) == 2
    later = {one["verdict"]: one["later_s"] for one in plain["differences"]}
    assert later == {"Dead": 0.0, "Unreachable": 280.0}


def test_every_source_gives_the_same(remediator, journal, database, patient):
    ask = ("policy", "backtest", "--policies", patient)
    expected = remediator(*ask, "--file", journal)
    assert remediator(*ask, "--db", database).out == expected.out
    listed = journal.with_name("list.json")
    listed.write_text(
        remediator("decisions", "list", "--db", database, "--limit", "1000", "-o", "json").out
    )
    found = json.loads(remediator(*ask, "--file", listed, "-o", "json").out)
    assert found["differing"] == 2


def test_an_export_is_the_journal_byte_by_byte(remediator, journal, database):
    answer = remediator("decisions", "export", "--db", database)
    assert answer.out == journal.read_text()
    lines = journal.read_text().splitlines(keepends=True)
    since = json.loads(lines[len(lines) // 2])["at"]
    answer = remediator("decisions", "export", "--db", database, "--since", since)
    assert answer.out == "".join(line for line in lines if json.loads(line)["at"] >= since)


def test_one_decision_is_made_again_from_its_record(remediator, database, then, patient):
    planned = next(
        one
        for one in json.loads(remediator("decisions", "list", "--db", database, "-o", "json").out)
        if one["kind"] == "planned" and one["verdict"] == "Unreachable"
    )
    ask = ("decisions", "again", planned["seq"], "--db", database)
    answer = remediator(*ask, "--policies", then)
    assert answer.code == ExitCode.OK
    assert "  verdict  Unreachable, by row unreachable-by-network\n" in answer.out
    assert "  policy   node-lost: cordon, fence, release, recover; after 20 s\n" in answer.out
    assert answer.out.endswith("The same decision.\n")
    other = remediator(*ask, "--policies", patient)
    assert other.code == ExitCode.FINDING
    assert "  DIFFERS  policy node-lost, again none\n" in other.out


def test_a_record_that_weighs_nothing_says_so(remediator, database):
    answer = remediator("decisions", "again", 1, "--db", database)
    assert answer.code == ExitCode.OK
    assert "It holds no inputs: it weighs nothing" in answer.out


def test_since_leaves_older_decisions_out(remediator, journal, patient):
    ask = ("policy", "backtest", "--policies", patient, "--file", journal, "-o", "json")
    assert json.loads(remediator(*ask, "--since", "2030-01-01").out)["asked"] == 0


def test_lines_that_are_no_records_are_counted(remediator, journal, patient):
    with journal.open("a") as file:
        file.write("not a record\n{}\n")
    answer = remediator("policy", "backtest", "--policies", patient, "--file", journal)
    assert "2 records could not be read" in answer.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--file", "absent.jsonl"), "absent.jsonl: No such file or directory"),
        (("--file", "-", "--db", "x.sqlite"), "give one of --file and --db, not both"),
        (("--file", "-", "--since", "soon"), "--since: 'soon' is not a time"),
    ],
)
def test_wrong_options_end_with_one_line(remediator, patient, arguments, says):
    answer = remediator("policy", "backtest", "--policies", patient, *arguments)
    assert answer.code == ExitCode.USAGE
    assert says in answer.err


def test_policies_that_cannot_be_used_are_named_with_their_place(remediator, journal, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "a.yaml").write_text(PATIENT.replace("Dead, Unreachable", "Ded"))
    answer = remediator("policy", "backtest", "--policies", wrong, "--file", journal)
    assert answer.code == ExitCode.USAGE
    assert "a.yaml:6:" in answer.err
