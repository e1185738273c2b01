"""Explanations against texts that a person has read: tests/journal/golden/*.txt.

To change them on purpose: REWRITE_GOLDEN=1 pytest tests/journal/test_explain.py, and read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remediator.engine.chain import DecisionKind, EvidenceRow, GuardRow
from remediator.engine.model import (
    Action,
    IncidentState,
    Outcome,
    OutcomeStatus,
    Subject,
    Ungate,
    Verdict,
    vm_subject,
)
from remediator.journal.explain import explain

GOLDEN = Path(__file__).with_name("golden")


def check(name, text):
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def story(book):
    return [decision for decision, _ in book.written if decision.incident]


@pytest.mark.parametrize("seq", [2, 3, 4, 6, 7, 9])
def test_the_story_of_a_dead_node(dead_node, seq):
    told = story(dead_node)
    check(f"dead-node-{seq}", explain(next(one for one in told if one.seq == seq), told))


def test_a_record_alone_explains_what_it_knows(dead_node):
    check("leading", explain(dead_node.written[0][0]))


def test_a_refusal_says_which_guards_said_no_and_until_when(book):
    at = 1_790_000_000.0
    decision, _ = book.write(
        DecisionKind.REFUSED,
        why="zone-share: 3 of 4 nodes down or silent, limit 2",
        at=at,
        incident="inc-1",
        state=IncidentState.HELD,
        verdict=Verdict.UNREACHABLE,
        row="unreachable-by-handler",
        guards=(
            GuardRow(guard="mode", answer="grant", why="enforce"),
            GuardRow(guard="cool-down", answer="wait", why="fenced 60 s ago", until=at + 540),
            GuardRow(guard="zone-share", answer="refuse", why="3 of 4 nodes down, limit 2"),
        ),
    )
    check("refused", explain(decision, [decision]))


def test_a_failed_action_says_so_and_when_it_is_tried_again(dead_node):
    fence = dead_node.written[4][0].action
    decision, _ = dead_node.write(
        DecisionKind.FINISHED,
        dead_node.written[4][0].subject,
        "the BMC does not answer",
        at=1_790_000_100.0,
        incident="inc-2",
        mode="enforce",
        action=fence,
        retry_at=1_790_000_105.0,
        outcome=Outcome(
            action_id=fence.id,
            status=OutcomeStatus.FAILED,
            detail="no answer within 5 s",
            started_at=1_790_000_070.0,
            finished_at=1_790_000_100.0,
            changed=False,
        ),
    )
    text = explain(decision, [decision])
    check("failed", text)
    assert "none yet: nothing is released" in text


@pytest.fixture
def silent_guest(book):
    """A VM whose guest falls silent and comes back, told in three records."""
    at, vm = 1_790_000_000.0, vm_subject("shop", "db")

    def evidence(stood_s, *, agent="lost"):
        return (
            EvidenceRow(plane="wanted", value="yes", since_s=0.0, detail="run strategy Always"),
            EvidenceRow(
                plane="phase", value="running", since_s=0.0, detail="VMI Running on n3; ready"
            ),
            EvidenceRow(plane="paused", value="no", since_s=0.0),
            EvidenceRow(plane="migration", value="none", since_s=0.0),
            EvidenceRow(plane="agent", value=agent, since_s=stood_s),
        )

    told = {"verdict": Verdict.GUEST_SILENT, "row": "agent-lost", "incident": "inc-1"}
    why = "GuestSilent: its guest agent answered in this VMI and does not any more"
    book.write(
        DecisionKind.OPENED,
        vm,
        why,
        at=at,
        state=IncidentState.SUSPECTED,
        evidence=evidence(120.0),
        **told,
    )
    book.write(
        DecisionKind.VERDICT,
        vm,
        why,
        at=at + 180.0,
        state=IncidentState.CONFIRMED,
        evidence=evidence(300.0),
        **told,
    )
    book.write(
        DecisionKind.RESOLVED,
        vm,
        "nothing has spoken against it for 30 s",
        at=at + 400.0,
        incident="inc-1",
        state=IncidentState.RESOLVED,
        evidence=evidence(0.0, agent="up"),
    )
    return book


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_the_story_of_a_silent_guest(silent_guest, seq):
    told = story(silent_guest)
    check(f"silent-guest-{seq}", explain(told[seq - 1], told))


def test_a_row_of_vms_that_this_version_does_not_know_is_still_named(book):
    decision, _ = book.write(
        DecisionKind.OPENED,
        vm_subject("shop", "db"),
        incident="inc-1",
        state=IncidentState.SUSPECTED,
        verdict=Verdict.STUCK,
        row="row-of-tomorrow",
    )
    text = explain(decision, [decision])
    assert "Stuck, by row 'row-of-tomorrow' of the VM verdict table" in text


def test_what_came_later_is_not_taken_for_known_then(dead_node):
    told = story(dead_node)
    text = explain(told[0], told)
    before, _, after = text.partition("The whole incident")
    assert "power-off-verified" not in before
    assert "Unreachable" not in before
    assert "runs on n7" in after


def test_an_incident_with_thousands_of_records_stays_readable(dead_node):
    for number in range(500):
        dead_node.write(
            DecisionKind.PROGRESS,
            vm_subject("many", f"vm{number}"),
            f"vm{number} is up",
            at=1_790_000_100.0 + number,
            incident="inc-2",
            stage="up",
        )
    told = story(dead_node)
    text = explain(told[250], told)
    assert text.count("\n") < 150
    assert f">  +{told[250].at - told[0].at:.1f} s" in text.replace("    ", "")
    assert "more: remediator decisions list --incident inc-2" in text
    assert "opened" in text
    assert "vm499 is up" in text
    assert "… 481 more VMs" in text


def test_many_actions_of_a_kind_are_told_in_one_line(dead_node):
    action = dead_node.written[6][0].action
    for number in range(3):
        dead_node.write(
            DecisionKind.FINISHED,
            vm_subject("many", f"vm{number}"),
            "done",
            at=1_790_000_100.0 + number,
            incident="inc-2",
            action=action,
            outcome=Outcome(
                action_id=action.id,
                status=OutcomeStatus.FAILED if number == 2 else OutcomeStatus.SUCCEEDED,
                detail="",
                started_at=1_790_000_100.0,
                finished_at=1_790_000_101.0 + number,
            ),
        )
    text = explain(dead_node.written[-1][0], story(dead_node))
    assert "force-stop: 0.3 s to 3 s, 4 times (3 succeeded, 1 failed)" in text


def test_an_opened_gate_is_told_without_a_word_on_proof(book):
    vm = vm_subject("shop", "db")
    work = Ungate(namespace="shop", vmi="db", pod="virt-launcher-db-x", pod_uid="p1")
    action = Action(
        id="gate-p1/ungate/1", incident="", subject=vm, attempt=1, deadline_s=10.0, work=work
    )
    decision, _ = book.write(DecisionKind.STARTED, vm, "there is a place", action=action)
    told = explain(decision, [decision])
    assert "The action ungate was started: there is a place" in told
    assert "proof" not in told


def test_a_change_of_the_pace_is_told(book):
    daemon = Subject("daemon", "me")
    decision, _ = book.write(DecisionKind.PACED, daemon, "adopts 3 launcher pods")
    told = explain(decision, [])
    assert "The pace of starts changed: adopts 3 launcher pods" in told
