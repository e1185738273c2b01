from __future__ import annotations

import pytest

from remediator.engine.match_facts import NONE, VARIABLES
from remediator.engine.rules import ConditionError, SubjectKind
from remediator.policy.conditions import CelCondition, ConditionFaultsError

NOTHING = {name: NONE[each.type] for name, each in VARIABLES[SubjectKind.VM].items()}

# Expressions, what they are of the facts, and the result: what any engine behind them must do, too.
CASES = [
    ("node.ready", {"node.ready": True}, True),
    ("!node.ready", {"node.ready": True}, False),
    ("node.vms > 2", {"node.vms": 3}, True),
    ("node.vms >= 3 && node.vms != 4", {"node.vms": 3}, True),
    ("node.vms in [1, 2]", {"node.vms": 3}, False),
    ("zone.unhealthy_ratio > 0.5", {"zone.unhealthy_ratio": 0.5}, False),
    ("zone.unhealthy_ratio <= 0.5", {"zone.unhealthy_ratio": 0.5}, True),
    ("node.silent_for > duration('20s')", {"node.silent_for": 20.001}, True),
    ("node.silent_for > duration('1m30s')", {"node.silent_for": 90.0}, False),
    ("verdict.stands_for >= duration('5m')", {"verdict.stands_for": 300.0}, True),
    ("node.name == 'n1'", {"node.name": "n1"}, True),
    ("node.name.startsWith('gpu-')", {"node.name": "gpu-7"}, True),
    ("node.name.endsWith('7')", {"node.name": "gpu-8"}, False),
    ("node.name.contains('pu')", {"node.name": "gpu-7"}, True),
    ("node.name.matches('^gpu-[0-9]+$')", {"node.name": "gpu-17"}, True),
    ("node.name.size() == 2", {"node.name": "é1"}, True),
    ("node.name + node.zone == 'ab'", {"node.name": "a", "node.zone": "b"}, True),
    ("'gpu' in node.labels", {"node.labels": {"gpu": "yes"}}, True),
    ("!('gpu' in node.labels)", {}, True),
    ("'gpu' in node.labels && node.labels['gpu'] == 'yes'", {}, False),
    ("node.labels['gpu'] == 'yes'", {"node.labels": {"gpu": "yes"}}, True),
    ("node.labels.gpu == 'yes'", {"node.labels": {"gpu": "yes"}}, True),
    ("has(node.labels.gpu)", {"node.labels": {"gpu": "yes"}}, True),
    ("node.labels[?'gpu'].orValue('no') == 'no'", {}, True),
    ("node.labels.exists(k, k.startsWith('g'))", {"node.labels": {"gpu": "yes"}}, True),
    ("node.labels.all(k, node.labels[k] == 'x')", {"node.labels": {"a": "x", "b": "x"}}, True),
    ("node.taints.exists(t, t.endsWith(':NoExecute'))", {"node.taints": ["a:NoExecute"]}, True),
    ("node.taints.exists_one(t, t == 'a')", {"node.taints": ["a", "a"]}, False),
    ("node.taints.filter(t, t != 'a').size() == 1", {"node.taints": ["a", "b"]}, True),
    ("size(node.bad_conditions) == 0", {}, True),
    ("'KernelDeadlock' in node.bad_conditions", {"node.bad_conditions": ["KernelDeadlock"]}, True),
    ("node.ready ? node.vms > 1 : node.vms > 5", {"node.ready": True, "node.vms": 2}, True),
    # "or" and "and" answer from the side that they can tell, as Kubernetes' do.
    ("node.vms > 2 || node.labels['x'] == 'y'", {"node.vms": 3}, True),
    ("node.labels['x'] == 'y' || node.vms > 2", {"node.vms": 3}, True),
    ("node.vms > 2 && node.labels['x'] == 'y'", {"node.vms": 1}, False),
    ("vm.migratable && !vm.migrating", {"vm.migratable": True}, True),
    ("vm.disk_kind == 'readWriteOnce'", {"vm.disk_kind": "none"}, False),
    ("'ceph' in vm.storage_classes", {"vm.storage_classes": ["ceph", "local"]}, True),
    ("vm.down_for > duration('10m')", {"vm.down_for": 601.0}, True),
    ("verdict.row in ['panicked', 'failed']", {"verdict.row": "failed"}, True),
    ("double(node.vms) > 2.5", {"node.vms": 3}, True),
    ("string(node.vms) == '3'", {"node.vms": 3}, True),
    ("node.vms % 2 == 1", {"node.vms": 3}, True),
    ("-node.vms < 0", {"node.vms": 3}, True),
    ("(node.vms + 1) * 2 == 8", {"node.vms": 3}, True),
]


@pytest.mark.parametrize(("text", "facts", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_condition_is_what_cel_says(text, facts, expected):
    assert CelCondition(text, SubjectKind.VM).holds(NOTHING | facts) is expected


@pytest.mark.parametrize(
    ("text", "facts", "says"),
    [
        ("node.labels['gpu'] == 'yes'", {"node.labels": {}}, "Key not found"),
        ("10 / node.vms > 1", {"node.vms": 0}, "divide by zero"),
        ("node.vms * 9223372036854775807 > 1", {"node.vms": 3}, "integer overflow"),
        ("node.taints[3] == 'x'", {"node.taints": []}, "Index error"),
        ("node.name.matches(node.zone)", {"node.name": "a", "node.zone": "["}, "regular expr"),
        ("node.vms > 1", {}, "node.vms is not known here"),
        ("node.vms > 1", {"node.vms": "three"}, "Unexpected value type"),
        ("node.silent_for > duration('1s')", {"node.silent_for": "long"}, "is no duration"),
        ("node.silent_for > duration('1s')", {"node.silent_for": float("nan")}, "NaN"),
        ("zone.unhealthy_ratio > 0.1", {"zone.unhealthy_ratio": True}, "is no number"),
    ],
)
def test_what_goes_wrong_as_it_runs_is_an_error_and_never_true(text, facts, says):
    with pytest.raises(ConditionError, match=says):
        CelCondition(text, SubjectKind.NODE).holds(facts)


def test_it_says_which_facts_it_reads_and_which_words_it_holds():
    condition = CelCondition("node.vms > 1 && 'gpu' in node.labels", SubjectKind.NODE)
    assert condition.names == ("node.labels", "node.vms")
    assert condition.literals == {"gpu"}


def test_a_word_in_a_text_is_no_fact():
    assert CelCondition("node.name == 'zone.nodes'", SubjectKind.NODE).names == ("node.name",)


def test_the_same_text_about_another_kind_is_another_condition():
    node, vm = (CelCondition("node.ready", kind) for kind in SubjectKind)
    assert node == CelCondition("node.ready", SubjectKind.NODE)
    assert node != vm
    assert len({node, vm, CelCondition("node.ready", SubjectKind.VM)}) == 2


def test_the_caret_stands_under_the_place_also_far_to_the_right():
    text = "node.ready && " * 8 + "node.redy"
    with pytest.raises(ConditionFaultsError) as caught:
        CelCondition(text, SubjectKind.NODE)
    (fault,) = caught.value.faults
    said, line, caret = fault.shown(text).split("\n")
    assert said.startswith("'node.redy' is not known")
    assert line[caret.index("^") :].startswith("node.redy")


def test_a_raw_text_hides_nothing_from_the_rules():
    """A backslash ends nothing in a raw text: what follows it is code."""
    with pytest.raises(ConditionFaultsError, match="map"):
        CelCondition(r"node.name == r'\' || node.taints.map(x, x) == []", SubjectKind.NODE)
