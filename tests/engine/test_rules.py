from __future__ import annotations

import random

import pytest

from remediator.engine.match_facts import VARIABLES, about_node, about_vm
from remediator.engine.model import Verdict, node_subject, vm_subject
from remediator.engine.rules import (
    ConditionError,
    MatchInput,
    Policy,
    PolicySet,
    SubjectKind,
    first_match,
    near_misses,
)

NOW = 1000.0


class Wants:
    """A condition that compares one fact, and fails where it has no such fact."""

    def __init__(self, name, value):
        self.text, self.names = f"{name} == {value}", (name,)
        self._value = value

    def holds(self, facts):
        if self.names[0] not in facts:
            raise ConditionError(f"there is no {self.names[0]}")
        return facts[self.names[0]] == self._value


class Between:
    text = "the hour of the cleaners"

    def __init__(self, opens_at, closes_at):
        self._span = opens_at, closes_at

    def active(self, at):
        return self._span[0] <= at < self._span[1]

    def opens_at(self, after):
        return self._span[0] if after < self._span[0] else None


def policy(name="p", verdicts=(Verdict.DEAD,), **fields):
    return Policy(name=name, source="test", content_hash=name, verdicts=verdicts, **fields)


def dead(**fields):
    given = {"kind": SubjectKind.NODE, "name": "n1", "verdict": Verdict.DEAD, "since_at": NOW - 60}
    return MatchInput(**{**given, **fields})


def crashed(**fields):
    return dead(kind=SubjectKind.VM, namespace="shop", verdict=Verdict.CRASHED, **fields)


def test_the_first_by_priority_and_then_by_name_wins():
    late, early, second = policy("a", priority=9), policy("z", priority=1), policy("zz", priority=1)
    assert first_match([late, second, early], dead(), NOW).policy is early
    assert [each.name for each in PolicySet([late, second, early])] == ["z", "zz", "a"]


@pytest.mark.parametrize(
    ("fields", "given", "missed"),
    [
        ({"node_labels": {"gpu": "yes"}}, {}, "p: label gpu=yes is (absent)"),
        ({"node_labels": {"gpu": "yes"}}, {"labels": {"gpu": "no"}}, "p: label gpu=yes is no"),
        ({"for_s": 90.0}, {}, "p: for 90 s is 60.0 s"),
        (
            {"condition": Wants("node.vms", 3)},
            {"facts": {"node.vms": 2}},
            "p: condition node.vms == 3 is false (node.vms = 2)",
        ),
        (
            {"windows": (Between(NOW + 50, NOW + 60),)},
            {},
            "p: active window the hour of the cleaners is closed, opens in 50 s",
        ),
    ],
)
def test_a_near_miss_names_the_clause_that_failed_and_its_value(fields, given, missed):
    match = first_match([policy(**fields)], dead(**given), NOW)
    assert match.policy is None
    assert near_misses(match.clauses) == [missed]


def test_a_namespace_is_a_shell_pattern():
    wanted = policy(
        subject=SubjectKind.VM, verdicts=(Verdict.CRASHED,), namespaces=("db", "sh*"), for_s=1.0
    )
    assert first_match([wanted], crashed(), NOW).policy is wanted
    other = crashed()
    match = first_match([wanted], MatchInput(**{**_fields(other), "namespace": "web"}), NOW)
    assert near_misses(match.clauses) == ["p: namespace in [db, sh*] is web"]


def _fields(given):
    return {name: getattr(given, name) for name in given.__struct_fields__}


def test_a_vm_is_selected_by_its_own_labels_and_not_by_those_of_nodes():
    wanted = policy(
        subject=SubjectKind.VM,
        verdicts=(Verdict.CRASHED,),
        vm_labels={"tier": "db"},
        node_labels={"ignored": "here"},
    )
    assert first_match([wanted], crashed(labels={"tier": "db"}), NOW).policy is wanted
    assert first_match([wanted], crashed(labels={"ignored": "here"}), NOW).policy is None


def test_a_policy_of_vms_never_answers_for_a_node():
    of_vms = policy(subject=SubjectKind.VM, verdicts=(Verdict.DEAD,))
    match = first_match([of_vms], dead(), NOW)
    assert match.policy is None
    assert match.clauses[0].value == "no policy is about one"


def test_an_error_in_a_condition_is_no_match_and_stands_in_the_trace():
    match = first_match([policy(condition=Wants("node.vms", 3))], dead(), NOW)
    assert match.policy is None
    assert match.clauses[-1].value.startswith("error: there is no node.vms")


def test_it_says_when_a_policy_would_match_if_the_verdict_stands():
    slow, slower = policy("a", for_s=100.0), policy("b", for_s=70.0)
    assert first_match([slow, slower], dead(), NOW).due_at == NOW - 60 + 70.0


def test_it_says_when_a_window_opens_and_which_policies_only_wait_for_theirs():
    waits = policy(windows=(Between(NOW + 50, NOW + 60),))
    match = first_match([waits], dead(), NOW)
    assert (match.due_at, match.closed) == (NOW + 50, ("p",))
    assert first_match([waits], dead(), NOW + 55).policy is waits
    over = policy(windows=(Between(0.0, 1.0),))
    assert first_match([over], dead(), NOW).due_at is None


def test_no_window_is_waited_for_where_the_condition_fails():
    both = policy(windows=(Between(NOW + 50, NOW + 60),), condition=Wants("node.vms", 1))
    match = first_match([both], dead(facts={"node.vms": 0}), NOW)
    assert (match.due_at, match.closed) == (None, ())


def test_where_many_answer_only_those_are_asked_whose_selectors_fit():
    pools = [policy(f"pool-{at}", node_labels={"pool": str(at)}, priority=at) for at in range(200)]
    asked = []

    class Asked(Wants):
        def holds(self, facts):
            asked.append(self.names)
            return super().holds(facts)

    pools.append(policy("any", condition=Asked("node.vms", 1), priority=500))
    pools.append(
        policy("pool-7-too", node_labels={"pool": "7", "x": "y"}, condition=Asked("node.vms", 1))
    )
    found = PolicySet(pools)
    assert found.first_match(dead(labels={"pool": "42"}), NOW).policy is pools[42]
    match = found.first_match(dead(labels={"pool": "none"}, facts={"node.vms": 0}), NOW)
    assert match.policy is None
    assert len(asked) == 1
    assert match.clauses[-1].value == "201 other policies select other subjects"


def test_the_index_answers_as_asking_everybody_would():
    rng = random.Random(8)
    for _ in range(200):
        policies = [
            policy(
                f"p{at}",
                subject=(kind := rng.choice(list(SubjectKind))),
                verdicts=tuple(rng.sample([Verdict.DEAD, Verdict.CRASHED], rng.randint(1, 2))),
                priority=rng.randint(1, 5),
                for_s=rng.choice([0.0, 0.0, 30.0, 90.0]),
                node_labels=_some(rng) if kind is SubjectKind.NODE else {},
                vm_labels=_some(rng) if kind is SubjectKind.VM else {},
                namespaces=tuple(rng.sample(["a", "b", "c*"], rng.choice([0, 0, 1, 2])))
                if kind is SubjectKind.VM
                else (),
            )
            for at in range(rng.choice([5, 40, 120]))
        ]
        known = PolicySet(policies)
        for _ in range(10):
            given = dead(
                kind=rng.choice(list(SubjectKind)),
                verdict=rng.choice([Verdict.DEAD, Verdict.CRASHED]),
                namespace=rng.choice(["a", "b", "cc"]),
                labels=_some(rng) | _some(rng),
            )
            words = known.words(given, NOW)
            assert [word.policy for word in words] == list(known)
            expected = next((word.policy for word in words if word.matches), None)
            assert known.first_match(given, NOW).policy is expected


def _some(rng):
    return {key: rng.choice("xy") for key in rng.sample(["k1", "k2", "k3"], rng.choice([0, 1, 2]))}


# --- facts ----------------------------------------------------------------------------------------


def test_every_variable_can_be_read_of_any_node(cluster):
    context = cluster.engine.context
    node = context.inventory.nodes["n1"]
    given = about_node(context, node, Verdict.DEAD, context.now - 30, "power-off")
    read = dict(given.facts)
    assert set(read) == set(VARIABLES[SubjectKind.NODE])
    assert read["node.name"] == "n1"
    assert read["verdict.row"] == "power-off"
    assert read["verdict.stands_for"] == 30.0
    assert read["cluster.nodes"] == len(context.inventory.nodes)
    assert read["zone.unhealthy"] == 0


def test_every_variable_can_be_read_of_a_vm_without_any_object(cluster):
    given = about_vm(cluster.engine.context, vm_subject("shop", "gone"), Verdict.STUCK, 0.0)
    read = dict(given.facts)
    assert set(read) == set(VARIABLES[SubjectKind.VM])
    assert (read["vm.name"], read["node.name"], read["vm.phase"]) == ("gone", "", "")


def test_a_fact_that_no_condition_reads_is_not_computed(cluster):
    context = cluster.engine.context
    given = about_node(context, context.inventory.nodes["n1"], Verdict.DEAD, 0.0)
    context.down_now = None
    first_match([policy(condition=Wants("node.vms", 3))], given, context.now)
    assert context.down_now is None
    assert given.facts["cluster.unhealthy"] == 0
    assert context.down_now is not None
    assert str(node_subject("n1")) == "node/n1"
