from __future__ import annotations

from remediator.engine.model import ProofKind, Verdict
from remediator.engine.rules import Policy, SubjectKind
from remediator.engine.settings import FenceLevel, FenceMethod
from remediator.policy.findings import Surroundings, findings, findings_in
from remediator.policy.loader import in_order


def policy(name, verdicts=(Verdict.DEAD,), **fields):
    return Policy(name=name, source="x.yaml", content_hash=name, verdicts=verdicts, **fields)


def told(*policies):
    return [f"{one.policy}: {one.text}" for one in findings(in_order(policies))]


def told_in(around, *policies):
    return [f"{one.policy}: {one.text}" for one in findings_in(policies, around)]


def test_a_wider_policy_before_it_hides_one():
    (said,) = told(policy("a", priority=1), policy("b", node_labels={"x": "y"}))
    assert said == "b: can never match: a, asked before, answers Dead of the same subjects"


def test_two_that_together_answer_all_of_it_hide_one():
    both = (Verdict.DEAD, Verdict.UNREACHABLE)
    (said,) = told(
        policy("a", priority=1), policy("b", (Verdict.UNREACHABLE,), priority=2), policy("c", both)
    )
    assert said.startswith("c: can never match: a and b, asked before, answer Dead, Unreachable")


def test_what_is_narrower_later_slower_or_elsewhere_hides_nothing():
    later = policy("z")
    assert told(policy("a", node_labels={"x": "y"}, priority=1), later) == []
    assert told(policy("a", for_s=10.0, priority=1), later) == []
    assert told(policy("a", priority=200), policy("b", node_labels={"x": "y"})) == []
    of_vms = policy("a", (Verdict.CRASHED,), subject=SubjectKind.VM, priority=1)
    assert told(of_vms, later) == []


def test_policies_for_other_subjects_do_not_contradict_each_other():
    fence = policy("a", node_labels={"pool": "a"})
    hold = policy("b", node_labels={"pool": "b"}, enforce=False)
    assert told(fence, hold) == []
    assert "contradicts a" in told(fence, policy("b", node_labels={"rack": "b"}, enforce=False))[0]


def test_fence_without_a_method_can_never_be_allowed():
    assert told_in(Surroundings(fence_methods=()), policy("a")) == [
        "a: fence can never be allowed: no fence configuration is for any of these nodes"
    ]
    elsewhere = FenceMethod(name="bmc", nodes=("*",), labels={"pool": "b"})
    assert told_in(Surroundings(fence_methods=(elsewhere,)), policy("a")) == []
    of_a = policy("a", node_labels={"pool": "a"})
    assert len(told_in(Surroundings(fence_methods=(elsewhere,)), of_a)) == 1


def test_a_proof_that_no_method_gives_is_told():
    level = FenceLevel(proof=ProofKind.ASSUMED_AFTER)
    around = Surroundings(fence_methods=(FenceMethod(name="x", nodes=("*",), levels=(level,)),))
    (said,) = told_in(around, policy("a"))
    assert said.endswith("none of these: those that there are give assumed-after") or (
        "give assumed-after" in said
    )


def test_migrate_where_nothing_can_be_moved_is_told():
    moves = policy("a", (Verdict.DEGRADED,), steps=("cordon", "migrate"))
    (said,) = told_in(Surroundings(migratable=False), moves)
    assert "migrate can never be allowed" in said
    assert told_in(Surroundings(migratable=None), moves) == []


def test_selectors_that_fit_nothing_here_are_told():
    around = Surroundings(
        node_labels=[{"pool": "a"}], vm_labels=[{"app": "x"}], namespaces=frozenset({"shop"})
    )
    assert told_in(around, policy("a", node_labels={"pool": "b"})) == [
        "a: no node has these labels now"
    ]
    of_vms = policy(
        "v",
        (Verdict.CRASHED,),
        subject=SubjectKind.VM,
        namespaces=("shop", "team-*"),
        vm_labels={"app": "y"},
        steps=("restart",),
    )
    assert told_in(around, of_vms) == [
        "v: no VM has these labels now",
        "v: no namespace 'team-*' has a VM now",
    ]


def test_nothing_is_told_of_what_is_not_known():
    assert told_in(Surroundings(), policy("a", node_labels={"pool": "b"})) == []
