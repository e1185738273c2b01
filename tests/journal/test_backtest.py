"""Other policies, asked what was asked: which answers differ, and why."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.chain import ClauseRow, DecisionKind
from remediator.engine.inputs import Answered, Ground, Inputs, MatchSeen
from remediator.engine.model import Verdict, node_subject
from remediator.engine.settings import FenceLevel
from remediator.journal.backtest import Backtest, describe
from remediator.policy.loader import load_text

AT = 1_790_000_000.0

LOST = """
apiVersion: remediator.io/v1alpha1
kind: RemediationPolicy
metadata: {name: node-lost}
spec:
  verdicts: [Dead, Unreachable]
  forVerdict: {Unreachable: 20s}
"""


def policies(*texts):
    return load_text("\n---\n".join(texts), file="policies.yaml")


def answer(text=LOST, **fields):
    """What the policy of this text has answered to a dead node of one VM with a disk."""
    (policy,) = policies(text)
    known = Answered(
        policy=policy.name,
        policy_hash=policy.content_hash,
        steps=policy.steps,
        for_s=0.0,
        required_proof=tuple(kind.value for kind in policy.required_proof),
        levels=(0,),
    )
    return msgspec.structs.replace(known, **fields)


def planned(book, then, *, verdict=Verdict.DEAD, stood_s=0.0, incident="inc-1", labels=None):
    seen = MatchSeen(
        kind="Node", name="n1", verdict=verdict, since_at=AT - stood_s, at=AT, answer=then,
        labels=labels or {}, facts={"cluster.unhealthy_ratio": 0.25},
    )  # fmt: skip
    ground = Ground(vms=1, disks=("readWriteOnce",), fence_method="bmc", levels=(FenceLevel(),))
    decision, _ = book.write(
        DecisionKind.PLANNED, node_subject("n1"), at=AT, incident=incident, verdict=verdict,
        inputs=Inputs(match=seen, ground=ground),
    )  # fmt: skip
    return decision


def report_of(others, *decisions):
    test = Backtest(policies(*others))
    for decision in decisions:
        test.take(decision)
    return test.report()


def test_the_same_policies_would_answer_the_same(book):
    report = report_of([LOST], planned(book, answer()))
    assert (report.asked, report.incidents, report.differing) == (1, 1, 0)


def test_a_policy_whose_words_changed_but_not_its_doing_is_no_difference(book):
    report = report_of([LOST.replace("spec:", "spec:\n  priority: 7")], planned(book, answer()))
    assert report.differing == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("spec:", "spec:\n  mode: observe"), "enforces yes, now no"),
        (("spec:", "spec:\n  approval: {required: true}"), "needs approval no, now yes"),
        (
            ("spec:", "spec:\n  requiredProof: [rebooted]"),
            (
                "proof without power-off-verified, instance-gone, storage-fenced, kernel-dead, "
                "operator-confirmed; usable fence levels without 0"
            ),
        ),
        (("spec:", "spec:\n  steps: [cordon]"), "steps without fence, release, recover"),
        (("Unreachable: 20s", "Unreachable: 20s, Dead: 0s"), None),
    ],
)
def test_a_difference_says_what_the_same_policy_does_otherwise(book, change, why):
    report = report_of([LOST.replace(*change)], planned(book, answer()))
    assert [one.why[: len(why or "")] for one in report.differences] == ([why] if why else [])


def test_a_policy_that_would_wait_longer_says_how_much_later(book):
    then = answer(for_s=20.0)
    decision = planned(book, then, verdict=Verdict.UNREACHABLE, stood_s=20.0)
    (found,) = report_of([LOST.replace("20s", "5m")], decision).differences
    assert found.later_s == 280.0
    assert found.now.policy == "node-lost"
    assert found.why == "waits 20 s, now 300 s"


def test_a_policy_that_no_longer_answers_says_which_clause_fails(book):
    narrow = LOST.replace("spec:", "spec:\n  nodeSelector: {labels: {pool: db}}")
    (found,) = report_of([narrow], planned(book, answer())).differences
    assert describe(found.now) == "no policy"
    assert found.why == "node-lost does not match: label pool=db ((absent))"


def test_a_condition_reads_the_facts_as_they_were_then(book):
    calm = LOST.replace("spec:", "spec:\n  condition: cluster.unhealthy_ratio < 0.2")
    (found,) = report_of([calm], planned(book, answer())).differences
    assert "condition cluster.unhealthy_ratio < 0.2 (false" in found.why
    calmer = LOST.replace("spec:", "spec:\n  condition: cluster.unhealthy_ratio < 0.3")
    assert report_of([calmer], planned(book, answer())).differing == 0


def test_another_policy_that_answers_is_named_with_its_clauses(book):
    other = LOST.replace("name: node-lost", "name: database-hosts").replace(
        "spec:", "spec:\n  priority: 1\n  nodeSelector: {labels: {pool: db}}"
    )
    decision = planned(book, answer(), labels={"pool": "db"})
    (found,) = report_of([LOST, other], decision).differences
    assert found.now.policy == "database-hosts"
    assert found.why.endswith(
        "database-hosts matches: verdict in [Dead, Unreachable] (Dead), label pool=db (db)"
    )


def test_where_no_policy_answered_a_new_one_is_a_difference(book):
    decision = planned(book, Answered())
    (found,) = report_of([LOST], decision).differences
    assert (describe(found.then), found.now.policy) == ("no policy", "node-lost")


def test_one_answer_is_told_once_however_often_it_was_asked(book):
    asked = [planned(book, answer()) for _ in range(3)]
    report = report_of([LOST.replace("spec:", "spec:\n  mode: observe")], *asked)
    assert (report.asked, report.differing) == (3, 1)


def test_records_without_inputs_are_counted_and_not_compared(book):
    row = ClauseRow(policy="node-lost", clause="verdict", value="Dead", held=True)
    old, _ = book.write(DecisionKind.PLANNED, node_subject("n1"), clauses=(row,))
    report = report_of([LOST], old)
    assert (report.without_inputs, report.asked) == (1, 0)
