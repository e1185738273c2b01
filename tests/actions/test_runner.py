"""The runner: one action per subject, a hard deadline, an outcome for everything but demotion."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from remediator.engine.model import OutcomeStatus

FAILED, SUCCEEDED = OutcomeStatus.FAILED, OutcomeStatus.SUCCEEDED


async def test_an_action_that_hangs_fails_at_its_deadline(hands, make):
    hands.api.delay_s = 1000.0
    began_at = hands.clock.now()
    outcome = await hands.do(make.cordon, deadline_s=7)
    assert outcome.status is FAILED
    assert "not finished within 7 s" in outcome.detail
    assert outcome.finished_at - began_at == pytest.approx(7.0, abs=0.1)


async def test_a_second_action_on_a_busy_subject_is_refused_with_an_outcome(hands, make):
    hands.api.delay_s = 1.0
    hands.runner.start(make.action(make.cordon, action_id="inc-1/cordon/1"))
    await asyncio.sleep(0.1)
    hands.runner.start(make.action(make.fence, action_id="inc-1/fence/1"))
    assert hands.outcomes == []  # not inside start
    await asyncio.sleep(0.1)
    assert [o.action_id for o in hands.outcomes] == ["inc-1/fence/1"]
    assert hands.outcomes[0].status is FAILED
    assert hands.outcomes[0].changed is False
    await asyncio.sleep(5)
    assert [o.action_id for o in hands.outcomes] == ["inc-1/fence/1", "inc-1/cordon/1"]


async def test_the_same_action_started_twice_runs_once(hands, make):
    hands.api.delay_s = 0.5
    hands.runner.start(make.action(make.cordon))
    hands.runner.start(make.action(make.cordon))
    await asyncio.sleep(5)
    assert [o.status for o in hands.outcomes] == [SUCCEEDED]


async def test_actions_on_different_subjects_run_at_once(hands, make):
    hands.api.delay_s = 1.0
    hands.api.put("/api/v1/nodes/n2", make.node_object(name="n2"))
    hands.runner.start(make.action(make.cordon, action_id="a"))
    other = msgspec.structs.replace(make.cordon, node="n2")
    hands.runner.start(make.action(other, action_id="b"))
    assert set(hands.runner.running) == {"a", "b"}
    await asyncio.sleep(4.5)  # read the node, look for a claim, claim it, patch
    assert len(hands.outcomes) == 2


async def test_the_next_action_may_start_from_the_outcome_of_the_last(hands, make):
    seen = []

    def next_step(outcome):
        seen.append(outcome.action_id)
        if outcome.action_id == "one":
            hands.runner.start(make.action(make.cordon, action_id="two"))

    hands.runner.on_finished = next_step
    hands.api.delay_s = 0.5
    hands.runner.start(make.action(make.cordon, action_id="one"))
    await asyncio.sleep(2.2)  # two reads and two writes: the second action is under way
    assert seen == ["one"]
    assert hands.runner.running == ("two",)
    await asyncio.sleep(2)
    assert seen == ["one", "two"]
    assert hands.runner.running == ()


async def test_stop_cancels_what_runs_and_reports_nothing(hands, make):
    hands.api.delay_s = 100.0
    hands.runner.start(make.action(make.cordon, deadline_s=50))
    await asyncio.sleep(1)
    await hands.runner.stop()
    assert hands.runner.running == ()
    hands.api.delay_s = 0.001
    hands.api.calls.clear()
    hands.runner.start(make.action(make.cordon))
    await asyncio.sleep(60)
    assert hands.outcomes == []
    assert hands.api.calls == []


async def test_garbage_from_the_api_server_is_an_outcome_and_no_crash(hands, make):
    page = msgspec.structs.replace(make.status(200, ""), body=b"<html>busy</html>")
    hands.api.faults["GET"] = [page]
    outcome = await hands.do(make.cordon)
    assert outcome.status is FAILED
    assert "HTML" in outcome.detail
    assert "\n" not in outcome.detail


async def test_a_fault_of_our_own_is_an_outcome_and_no_crash(hands, make):
    def broken(_method, _path):
        raise ZeroDivisionError("a\nlong story")

    hands.api.before = broken
    outcome = await hands.do(make.cordon)
    assert outcome.status is FAILED
    assert outcome.detail == "ZeroDivisionError: a long story"


async def test_each_action_leaves_one_log_line_without_secrets(hands, make):
    with capture_logs() as lines:
        await hands.do(make.fence, deadline_s=30)
    finished = [line for line in lines if line["event"] == "action_finished"]
    assert len(finished) == 1
    assert finished[0]["status"] == "succeeded"
    assert finished[0]["subject"] == "node/n1"
    assert finished[0]["proof"] == "power-off-verified"
    assert "s3cret" not in repr(lines)
    assert "Basic" not in repr(lines)
