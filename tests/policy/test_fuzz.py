"""Documents and facts at random: no crash, no hang, no match by error.

FUZZ_POLICIES=100000 pytest tests/policy/test_fuzz.py runs as many of each (make soak); otherwise a
few hundred. FUZZ_SEED begins elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from datetime import timedelta

import msgspec
import pytest
import yaml

from remediator.engine.match_facts import NONE, VARIABLES, FactType
from remediator.engine.model import ProofKind, Verdict
from remediator.engine.rules import ConditionError, MatchInput, Policy, PolicySet, SubjectKind
from remediator.policy import read_text
from remediator.policy.conditions import CelCondition, ConditionFaultsError
from remediator.policy.document import OF_LIVING_NODES, OF_LOST_NODES, OF_VMS, STEP_WORDS
from remediator.policy.loader import read_object

# --- what somebody writes to make a daemon slow, large or wrong ----------------------------------

_THIRTY = str(list(range(30)))


def _nested_growth(depth):
    text = "node.name"
    for at in range(depth):
        text = f"[{text}].map(a{at}, {'+'.join([f'a{at}'] * 8)})[0]"
    return f"{text} == 'x'"


def _nested_exists(depth):
    text = "true"
    for at in range(depth):
        text = f"[1, 2, 3].all(x{at}, {text})"
    return text


HOSTILE = [
    _nested_growth(8),
    _nested_exists(12),
    f"{_THIRTY}.all(a, {_THIRTY}.all(b, {_THIRTY}.all(c, {_THIRTY}.all(d, a + b + c + d >= 0))))",
    "[node.name].exists(a, [a + a].exists(b, [b + b].exists(c, c == '')))",
    "[[node.name]].exists(a, [[a, a, a, a]].exists(b, b == [b]))",
    "node.labels.all(a, node.labels.all(b, a != b || a == b))",
    "node.labels.all(a, a.matches('(x+x+)+y'))",
    "node.name.matches('(a+)+$')",
    "node.name.matches('((a{100}){10}){1}')",
    "node.name.matches('(a{1000}){1000}')",
    "node.name.matches(node.name)",
    "(" * 400 + "true" + ")" * 400,
    "!" * 900 + "true",
    "-" * 900 + "1 == 1",
    "[" * 400,
    "{1:" * 300,
    "f(" * 400,
    "true ? " * 140,
    "node.name + " * 80 + "'x' == ''",
    " && ".join(["node.ready"] * 5000),
    "a." * 450 + "b",
    "'" * 999,
    '"""' + "a" * 990,
    "r'\\' + [1].map(x, x) + '",
    "/" * 999,
    "// only a comment",
    "1 / 0 > 1",
    "9223372036854775807 + node.vms > 0",
    "dyn(node.name) > 1",
    "node.labels['no such key'] == 'x'",
    "node.taints[99] == 'x'",
    "duration('999999999999h') > node.silent_for",
    "timestamp('0000-00-00T00:00:00Z') < timestamp('9999-12-31T23:59:59Z')",
    "type(node.name) == string",
    "node.name.optMap(x, x + x).orValue('') == ''",
    "[node.name].optFlatMap(x, x).orValue('') == ''",
    "cel.bind(x, node.name + node.name, x + x == '')",
    "\x00node.ready",
    "node.ready\u202e",
    "\ud7ff" * 300,
]

# --- random documents ----------------------------------------------------------------------------

COUNT = int(os.environ.get("FUZZ_POLICIES", "400"))
SEED = int(os.environ.get("FUZZ_SEED", "8"))
# No single document or question may take this long, however loaded the machine: hangs are caught.
HANG_S = 5.0

WORDS = [
    *(each.value for each in Verdict),
    *STEP_WORDS,
    *(each.value for each in ProofKind),
    *("Node", "VirtualMachine", "observe", "enforce", "hold", "next", "on", "off", "", "~", "null"),
    *(
        "5s",
        "5m",
        "-1",
        "1e9",
        "9" * 30,
        "0 22 * * *",
        "*/0 * * * *",
        "UTC",
        "Mars/Base",
        "é",
        "\t",
    ),
    *(
        "node.vms > 1",
        "node.redy",
        "'x' in node.labels",
        "vm.agent",
        "1/0 > 1",
        "{",
        "[1].map(x,x)",
    ),
    *(1, 0, -1, 2.5, True, False, None, [], {}, float("1e300")),
]
KEYS = [
    *("subject", "verdicts", "nodeSelector", "vmSelector", "for", "forVerdict", "condition"),
    *("mode", "steps", "requiredProof", "requiredProofByDisk", "limits", "approval"),
    *("activeWindows", "startManual", "priority", "labels", "namespaces", "do", "timeout"),
    *("attempts", "onFailure", "atOnce", "perHour", "by", "lapsesAfter", "then", "schedule"),
    *("duration", "timeZone", "required", "Dead", "readWriteOnce", "nonsense", "on"),
]
TOP = KEYS[:16]


def anything(rng, depth=0):
    kind = rng.random()
    if depth > 3 or kind < 0.5:
        return rng.choice(WORDS)
    if kind < 0.75:
        return [anything(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(KEYS): anything(rng, depth + 1) for _ in range(rng.randint(0, 4))}


FAMILIES = [
    ("Node", OF_LOST_NODES, [["cordon", "fence", "reschedule"], ["cordon", "fence"], ["cordon"]]),
    ("Node", OF_LIVING_NODES, [["cordon", "migrate"], ["cordon", "notify", "hold"], ["notify"]]),
    ("VirtualMachine", sorted(OF_VMS), [["restart"], ["softReboot", "restart", "notify", "hold"]]),
]


def likely(rng):
    """Return a spec that is nearly right: random ones seldom get beyond their types."""
    subject, verdicts, steps = rng.choice(FAMILIES)
    spec = {
        "subject": subject,
        "verdicts": [each.value for each in rng.sample(verdicts, rng.randint(1, len(verdicts)))],
        "for": rng.choice(["0s", "10s", "5m", 3]),
        "priority": rng.randint(0, 200),
        "steps": rng.choice(steps),
    }
    if rng.random() < 0.1:
        spec["steps"] = rng.sample(list(STEP_WORDS), rng.randint(1, 4))
    if rng.random() < 0.6:
        spec["condition"] = expression(rng, SubjectKind(subject))
    if rng.random() < 0.1:
        cron = " ".join(rng.choice(["0", "*", "*/5", "22", "31", "2", "1-5"]) for _ in range(5))
        zone = rng.choice(["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
        spec["activeWindows"] = [{"schedule": cron, "duration": "6h", "timeZone": zone}]
    if rng.random() < 0.3:
        selector = "nodeSelector" if subject == "Node" else "vmSelector"
        spec[selector] = {"labels": {"pool": rng.choice("ab")}}
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        spec[rng.choice(TOP)] = anything(rng)
    return spec


def expression(rng, kind, depth=0):
    """Return a condition that is mostly well typed."""
    if depth < 3 and rng.random() < 0.4:
        left, right = expression(rng, kind, depth + 1), expression(rng, kind, depth + 1)
        return rng.choice(["{} && {}", "({} || {})", "!({}) && {}"]).format(left, right)
    variable = rng.choice(list(VARIABLES[kind].values()))
    name = variable.name if rng.random() < 0.95 else variable.name[:-1]
    match variable.type:
        case FactType.BOOL:
            return rng.choice([name, f"!{name}", f"{name} == true"])
        case FactType.INT:
            return rng.choice([f"{name} > {rng.randint(-2, 5)}", f"10 / {name} > 2"])
        case FactType.DOUBLE:
            return f"{name} {rng.choice('<>')} {rng.random():.2f}"
        case FactType.STRING:
            return rng.choice([f"{name} == 'a'", f"{name}.matches('^a+')", f"{name}.size() > 3"])
        case FactType.DURATION:
            return f"{name} > duration('{rng.choice([1, 90])}s')"
        case FactType.STRINGS:
            return rng.choice(
                [f"'a' in {name}", f"{name}.exists(x, x == 'a')", f"{name}[0] == 'a'"]
            )
        case _:
            return rng.choice(
                [f"'pool' in {name}", f"{name}['pool'] == 'a'", f"{name}.pool == 'b'"]
            )


def fact(rng, kind):
    """Return a value of the type, now and then one of another or none at all."""
    if rng.random() < 0.05:
        return rng.choice([None, "x", 1, 1.5, True, [], {}, float("nan"), float("inf"), 10**30])
    return {
        FactType.BOOL: lambda: rng.random() < 0.5,
        FactType.INT: lambda: rng.randint(-1, 6),
        FactType.DOUBLE: rng.random,
        FactType.STRING: lambda: rng.choice(["", "a", "aaa", "b", "é" * 50]),
        FactType.DURATION: lambda: rng.choice([0.0, 5.0, 1e9, 0.001]),
        FactType.STRINGS: lambda: rng.sample(["a", "b", "c"], rng.randint(0, 3)),
        FactType.LABELS: lambda: {"pool": rng.choice("ab")} if rng.random() < 0.5 else {},
    }[kind]()


class Watch:
    def __init__(self):
        self.worst_s, self.what = 0.0, None

    def __call__(self, what, begun_s):
        took_s = time.process_time() - begun_s
        if took_s > self.worst_s:
            self.worst_s, self.what = took_s, what
        assert took_s < HANG_S, what


def test_no_document_crashes_or_hangs_the_loader():
    watch = Watch()
    sound = 0
    for nth in range(COUNT):
        rng = random.Random(f"{SEED}/{nth}")
        begun_s = time.process_time()
        if nth % 4 == 0:  # text, broken at any place
            text = yaml.safe_dump({"kind": "RemediationPolicy", "spec": likely(rng)})
            cut = rng.randrange(len(text))
            text = (
                text[:cut] + rng.choice(["", "\t", "{", "'", "\n", ": ", "\x00"]) + text[cut + 1 :]
            )
            reading = read_text(text, file="fuzz.yaml")
            assert reading.problems or reading.policies or not text.strip(), (nth, text)
            sound += len(reading.policies)
        else:
            spec = anything(rng) if nth % 4 == 1 else likely(rng)
            policy, problems = read_object("fuzz", spec if isinstance(spec, dict) else {"x": spec})
            assert (policy is None) == bool(problems), (nth, spec)
            sound += policy is not None
        watch((SEED, nth), begun_s)
    assert sound > COUNT // 100  # the generator reaches sound ones, too


def test_no_facts_crash_hang_or_match_by_error():
    watch = Watch()
    known = [policy for nth in range(400) if (policy := sound_policy(nth)) is not None]
    assert len(known) > 20
    matched = errors = 0
    for nth in range(COUNT):
        rng = random.Random(f"facts/{SEED}/{nth}")
        policies = PolicySet(rng.sample(known, rng.randint(1, 20)))
        kind = rng.choice(list(SubjectKind))
        facts = {name: fact(rng, each.type) for name, each in VARIABLES[kind].items()}
        for name in rng.sample(sorted(facts), rng.choice([0, 0, 1, 3])):
            del facts[name]
        given = MatchInput(
            kind=kind,
            name="x",
            namespace="shop",
            labels={"pool": rng.choice("ab")} if rng.random() < 0.5 else {},
            verdict=rng.choice(list(Verdict)),
            since_at=1e9,
            facts=facts,
        )
        begun_s = time.process_time()
        match = policies.first_match(given, 1e9 + rng.choice([0, 20, 1000]))
        watch((SEED, nth), begun_s)
        if match.policy is not None:
            matched += 1
            rows = [row for row in match.clauses if row.policy == match.policy.name]
            assert all(row.held for row in rows), (nth, rows)
            assert not any("error" in row.value for row in rows), (nth, rows)
            condition = match.policy.condition
            assert condition is None or condition.holds(facts) is True
        errors += sum(row.value.startswith("error") for row in match.clauses)
        assert not any(row.held and row.value.startswith("error") for row in match.clauses)
        msgspec.json.encode(match.clauses)
    assert matched > COUNT // 100
    assert errors > 0


def sound_policy(nth) -> Policy | None:
    policy, _ = read_object(f"p{nth}", likely(random.Random(f"sound/{nth}")))
    return policy


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_expression_is_refused_or_ends(text):
    """How fast is measured by bench; here it must not grow, hang or pass by error."""
    begun_s = time.process_time()
    try:
        condition = CelCondition(text, SubjectKind.NODE)
    except ConditionFaultsError:
        pass
    else:
        labels = {f"key-{at}": "v" * 63 for at in range(300)}
        facts = {name: NONE[each.type] for name, each in VARIABLES[SubjectKind.NODE].items()}
        facts |= {"node.name": "a" * 253, "node.labels": labels, "node.taints": ["t" * 300] * 50}
        with contextlib.suppress(ConditionError):
            condition.holds(facts)
    assert time.process_time() - begun_s < HANG_S


def test_durations_of_facts_are_what_conditions_compare():
    condition = CelCondition("node.silent_for > duration('20s')", SubjectKind.NODE)
    assert condition.holds({"node.silent_for": timedelta(seconds=21).total_seconds()})
    assert not condition.holds({"node.silent_for": 20.0})
