from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from remediator import logs
from remediator.engine.chain import Decision, DecisionKind, GuardRow
from remediator.engine.model import (
    IncidentState,
    Outcome,
    OutcomeStatus,
    Proof,
    ProofKind,
    Verdict,
    node_subject,
)


@pytest.fixture
def stream():
    before = set(logs._secrets)
    config = structlog.get_config()
    root_level = logging.getLogger().level
    out = io.StringIO()
    logs.configure(level="info", stream=out)
    yield out
    logs._secrets.clear()
    logs._secrets.update(before)
    structlog.configure(**config)
    root = logging.getLogger()
    root.setLevel(root_level)
    for handler in [one for one in root.handlers if isinstance(one, logs._Bridge)]:
        root.removeHandler(handler)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_time_level_and_event_first(stream):
    structlog.get_logger("x").info("watch_started", resource="nodes", count=3)
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    assert (line["event"], line["resource"], line["count"]) == ("watch_started", "nodes", 3)


def test_the_level_holds(stream):
    structlog.get_logger("x").debug("too_much")
    assert lines(stream) == []
    logs.configure(level="debug", stream=stream)
    structlog.get_logger("x").debug("wanted")
    assert lines(stream)[0]["event"] == "wanted"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "bmc_password",
        "token",
        "access_token",
        "Authorization",
        "api_key",
        "client_secret",
    ],
)
def test_values_under_secret_looking_keys_are_blanked(stream, key):
    structlog.get_logger("x").info("login", **{key: "hunter2", "nested": {key: "hunter2"}})
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0][key] == logs.REDACTED


def test_names_of_files_with_secrets_are_no_secrets(stream):
    structlog.get_logger("x").info("reading", password_file="/run/secrets/bmc", secret_name="bmc")
    assert lines(stream)[0]["password_file"] == "/run/secrets/bmc"
    assert lines(stream)[0]["secret_name"] == "bmc"


def test_registered_secrets_are_blanked_wherever_they_turn_up(stream):
    logs.register_secret("c0rrect-horse\n")
    log = structlog.get_logger("x")
    log.info("said c0rrect-horse", items=["a c0rrect-horse b"], raw=b"c0rrect-horse")
    try:
        int("bad login with c0rrect-horse")
    except ValueError:
        log.exception("failed")
    logging.getLogger("some.library").warning("sent %s", "c0rrect-horse")
    assert "c0rrect-horse" not in stream.getvalue()
    assert stream.getvalue().count(logs.REDACTED) >= 5


def test_a_secret_of_one_letter_does_not_blank_everything(stream):
    logs.register_secret("a")
    logs.register_secret("")
    structlog.get_logger("x").info("a_banana")
    assert lines(stream)[0]["event"] == "a_banana"


def test_passwords_inside_urls_are_blanked():
    assert logs.redact("nats://op:pw@bus:4222, https://x/y?a=b@c") == (
        f"nats://{logs.REDACTED}@bus:4222, https://x/y?a=b@c"
    )


def test_what_libraries_log_comes_the_same_way(stream):
    logging.getLogger("aiohttp.server").error("Error handling request %s", "GET /")
    logging.getLogger("aiohttp.access").info("GET / 200")
    logging.getLogger("noisy").debug("nothing")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "library_log", "aiohttp.server", "error",
    )  # fmt: skip
    assert line["text"] == "Error handling request GET /"


def test_configuring_twice_does_not_double_the_lines(stream):
    logs.configure(level="info", stream=stream)
    logging.getLogger("lib").warning("once")
    assert len(lines(stream)) == 1


def test_a_console_is_for_people(stream):
    logs.configure(form="console", stream=stream)
    structlog.get_logger("x").info("watch_started", resource="nodes")
    assert "watch_started" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_values_that_json_does_not_know_are_written_as_text(stream):
    structlog.get_logger("x").info("odd", error=ValueError("x"), subject=node_subject("n1"))
    (line,) = lines(stream)
    assert line["error"] == "x"
    assert line["subject"]["name"] == "n1"


def test_one_canonical_line_per_decision(stream):
    proof = Proof(kind=ProofKind.REBOOTED, node="n1", boot_id="b", at=3.0, source="node status")
    decision = Decision(
        seq=7, prev="0" * 64, at=10.0, leader="r-0", epoch=2, kind=DecisionKind.FINISHED,
        subject=node_subject("n1"), why="verified off", mode="enforce", incident="inc-3",
        state=IncidentState.FENCED, verdict=Verdict.DEAD, row="power-off",
        guards=(
            GuardRow(guard="mode", answer="grant", why=""),
            GuardRow(guard="cool-down", answer="wait", why=""),
        ),
        outcome=Outcome(
            action_id="inc-3/fence/1", status=OutcomeStatus.SUCCEEDED, detail="off",
            started_at=4.0, finished_at=6.5, proof=proof,
        ),
    )  # fmt: skip
    logs.log_decision(decision)
    (line,) = lines(stream)
    del line["timestamp"]
    assert line == {
        "level": "info", "event": "decision", "seq": 7, "kind": "finished", "subject": "node/n1",
        "why": "verified off", "mode": "enforce", "incident": "inc-3", "state": "fenced",
        "verdict": "Dead", "row": "power-off", "action": "inc-3/fence/1",
        "refused_by": ["cool-down"], "leader": "r-0", "epoch": 2, "outcome": "succeeded",
        "detail": "off", "took_s": 2.5, "proof": "rebooted",
    }  # fmt: skip
