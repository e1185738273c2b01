"""``remediator fence check`` and ``lint``, through a real API and over NATS."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry

from remediator.actions.fence.check_rows import CheckRow, FaultKind
from remediator.api.app import make_app, serving
from remediator.cli import fence_source
from remediator.exit_codes import ExitCode
from remediator.fence_query import FenceAnswer
from remediator.metrics import Metrics

AT = 1_795_144_327.25
WELL = CheckRow(
    node="n1", config="racks", device="bmc", method="redfish", level=1,
    source="https://bmc-n1/redfish/v1/Systems/1", power="on", owner="matches",
    identity="4c4c4544-0051-3510-8052-b4c04f4d3132", detail="PowerState is On",
    asked_at=AT - 130, took_s=0.42, good_at=AT - 129.6,
)  # fmt: skip
BROKEN = CheckRow(
    node="n2", config="racks", device="bmc", method="redfish", level=1,
    source="https://bmc-n2/redfish/v1/Systems/1", kind=FaultKind.NO_ANSWER,
    fault="connection refused", detail="connection refused", asked_at=AT - 10, took_s=3.0,
    good_at=AT - 7200,
)  # fmt: skip
NEW = CheckRow(node="n3", config="racks", device="pdu", method="agent", level=2)


class Reader:
    """A leader whose answers come a page at a time, and whose devices need a moment."""

    def __init__(self):
        self.rows, self.asked, self.refusal = [WELL, BROKEN, NEW], [], None
        self.page, self.bare, self.slow = 2, (), 0

    async def answer(self, query):
        self.asked.append(query)
        if self.refusal is not None:
            return self.refusal
        known = {row.node for row in self.rows}
        rows = [row for row in self.rows if row.node in (query.nodes or known)]
        rows = [row for row in rows if row.node > query.after]
        if query.now:
            self.slow = 2
        elif self.slow and not query.after:
            self.slow -= 1
            if not self.slow:
                self.rows = [_answered(row) for row in self.rows]
        return FenceAnswer(
            status=200,
            at=AT,
            rows=tuple(rows[: self.page]),
            more=rows[self.page - 1].node if len(rows) > self.page else "",
            bare=self.bare,
            bare_count=len(self.bare),
            unknown=tuple(node for node in query.nodes if node not in known),
        )


def _answered(row):
    return msgspec.structs.replace(
        row, asked_at=AT + 1, good_at=AT + 1, power="on", kind=FaultKind.NONE, fault=""
    )


@pytest.fixture
def api(background, remediator):
    reader = Reader()

    async def start():
        app = make_app(
            readiness=dict,
            journal=None,
            now=lambda: 0.0,
            metrics=Metrics(CollectorRegistry()),
            fence=reader,
        )
        context = serving(app, "127.0.0.1", 0)
        return context, await context.__aenter__()

    context, port = background(start())
    reader.run = lambda *arguments: remediator(
        "fence", "check", *arguments, "--server", f"http://127.0.0.1:{port}"
    )
    yield reader
    background(context.__aexit__(None, None, None))


def test_the_table_says_what_each_device_answered_and_what_is_wrong(api):
    answer = api.run()
    assert answer.code == ExitCode.FINDING
    fault = "no-answer: connection refused"
    assert answer.out.splitlines() == [
        f"NODE  DEVICE  METHOD   LEVEL  ANSWER         IDENTITY  TOOK   {'LAST GOOD':14}  FAULT",
        "n1    bmc     redfish  1      on             matches   0.4 s  2 min 10 s ago  -",
        f"n2    bmc     redfish  1      unknown        unknown   3.0 s  {'2 h ago':14}  {fault}",
        f"n3    pdu     agent    2      not asked yet  -         -      {'-':14}  -",
    ]
    assert [query.after for query in api.asked] == ["", "n2"]  # both pages


def test_without_a_fault_the_exit_code_is_0(api):
    assert api.run("n1").code == ExitCode.OK


def test_wide_tells_the_configuration_the_source_and_the_identity_too(api):
    answer = api.run("-o", "wide")
    assert "CONFIG" in answer.out
    assert "racks   https://bmc-n1/redfish/v1/Systems/1  4c4c4544-0051-3510-8052" in answer.out


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_programs_get_the_whole_answer(api, output):
    answer = api.run("-o", output)
    assert answer.code == ExitCode.FINDING
    tree = json.loads(answer.out) if output == "json" else yaml.safe_load(answer.out)
    assert [row["node"] for row in tree["rows"]] == ["n1", "n2", "n3"]
    assert tree["rows"][1]["kind"] == "no-answer"


def test_now_waits_until_every_device_was_asked_after_the_question(api):
    answer = api.run("--now")
    assert answer.code == ExitCode.OK
    assert "not asked yet" not in answer.out
    assert [query.now for query in api.asked].count(True) == 1


def test_now_gives_up_waiting_in_the_end_and_shows_what_there_is(api, monkeypatch):
    monkeypatch.setattr(fence_source, "NOW_S", 0.0)
    answer = api.run("--now", "n2")
    assert answer.code == ExitCode.FINDING
    assert "connection refused" in answer.out


def test_nodes_without_a_configuration_are_named(api):
    api.bare = ("n8", "n9")
    answer = api.run("n1")
    assert answer.err == "no fence configuration: n8, n9\n"
    assert answer.code == ExitCode.FINDING  # it was asked by name


def test_a_node_that_is_not_there_is_a_finding(api):
    answer = api.run("nobody")
    assert (answer.code, answer.out) == (ExitCode.FINDING, "")
    assert "no such node: nobody" in answer.err


def test_a_daemon_without_a_leader_is_said(api):
    api.refusal = FenceAnswer(status=503, detail="this daemon does not lead, and nobody else does")
    answer = api.run()
    assert answer.code == ExitCode.NO_DAEMON
    assert answer.err == "remediator: this daemon does not lead, and nobody else does\n"


def test_two_sources_are_refused(api):
    answer = api.run("--nats", "nats://127.0.0.1:4222")
    assert answer.code == ExitCode.USAGE


def test_a_sound_directory_is_linted_without_a_daemon(remediator, tmp_path):
    example = Path(__file__).parents[1] / "fence_config" / "every-method.yaml"
    shutil.copy(example, tmp_path / "all.yaml")
    answer = remediator("fence", "lint", tmp_path)
    assert (answer.code, answer.out) == (ExitCode.OK, f"{tmp_path}/all.yaml: all: ok\n")


def test_lint_names_every_fault_and_the_agents_that_it_could_not_ask(remediator, tmp_path):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: remediator.io/v1alpha1\nkind: FenceConfig\nmetadata: {name: a}\n"
        "spec:\n  devices: [{name: x, method: agent, program: fence_of_mine}]\n"
        "  levels: [{devices: [x, y]}]\n"
    )
    answer = remediator("fence", "lint", tmp_path)
    assert answer.code == ExitCode.FINDING
    assert answer.out == (
        f"{tmp_path}/a.yaml:6:26: spec.levels[0].devices[1]: no device is called 'y'\n"
    )
    assert answer.err == "1 fault\n"
    (tmp_path / "a.yaml").write_text((tmp_path / "a.yaml").read_text().replace(", y", ""))
    answer = remediator("fence", "lint", tmp_path)
    assert answer.code == ExitCode.OK
    assert answer.err == (
        f"{tmp_path}/a.yaml:5:38: spec.devices[0].program: fence_of_mine is not installed:"
        " its parameters were not checked\n"
    )
