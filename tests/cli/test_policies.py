"""``remediator policy``: lint, show, schema, test, explain."""

from __future__ import annotations

import json

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry

from remediator.api.app import make_app, serving
from remediator.engine.chain import ClauseRow
from remediator.engine.model import Verdict
from remediator.engine.policy_view import PolicyView, PolicyWord
from remediator.engine.view_lines import LeaderLine
from remediator.engine.views import GuardLine
from remediator.exit_codes import ExitCode
from remediator.health_query import HealthAnswer
from remediator.metrics import Metrics

HEAD = "apiVersion: remediator.io/v1alpha1\nkind: RemediationPolicy\n"


def write(directory, name, spec="verdicts: [Dead]"):
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.yaml"
    path.write_text(f"{HEAD}metadata: {{name: {name}}}\nspec: {{{spec}}}\n")
    return path


# --- lint -----------------------------------------------------------------------------------------


def test_lint_tells_faults_and_warnings_and_counts_them(remediator, tmp_path):
    write(tmp_path, "a", "verdicts: [Dead], priority: 1")
    write(tmp_path, "b")
    write(tmp_path, "c", 'verdicts: [Dead], condition: "node.redy"')
    answer = remediator("policy", "lint", tmp_path)
    assert answer.code == ExitCode.FINDING
    assert f"{tmp_path}/c.yaml:4:38: spec.condition: 'node.redy' is not known" in answer.out
    assert "\n    node.redy\n    ^\n" in answer.out
    assert f"warning: {tmp_path}/b.yaml:3:12: metadata.name: can never match: a" in answer.out
    assert answer.err == "1 fault, 1 warning\n"


def test_lint_takes_a_single_file_and_speaks_json(remediator, tmp_path):
    path = write(tmp_path, "a", "verdicts: [Ded]")
    answer = remediator("policy", "lint", path, "-o", "json")
    assert answer.code == ExitCode.FINDING
    told = json.loads(answer.out)
    assert told["policies"] == told["warnings"] == []
    assert told["faults"][0].startswith(f"{path}:4:19: spec.verdicts[0]: 'Ded' is not one of")


def test_lint_finds_steps_that_the_fence_configurations_cannot_allow(remediator, tmp_path):
    write(tmp_path / "p", "a", "verdicts: [Dead], nodeSelector: {labels: {pool: gpu}}")
    fences = tmp_path / "f"
    fences.mkdir()
    (fences / "hand.yaml").write_text(
        "apiVersion: remediator.io/v1alpha1\nkind: FenceConfig\nmetadata: {name: hand}\n"
        "spec: {nodes: {labels: {pool: web}}, devices: [{name: h, method: operator}],"
        " levels: [{devices: [h]}]}\n"
    )
    answer = remediator("policy", "lint", tmp_path / "p", "--fence-configs", fences)
    assert answer.code == ExitCode.FINDING
    assert "fence can never be allowed: no fence configuration is for any" in answer.out


# --- show and schema ------------------------------------------------------------------------------


def test_show_writes_every_field_out(remediator, tmp_path):
    write(
        tmp_path,
        "a",
        "subject: VirtualMachine, verdicts: [Crashed], vmSelector: {namespaces: [shop]},"
        " condition: vm.disks > 0, activeWindows: [{schedule: '0 22 * * *', duration: 6h}],"
        " steps: [{do: restart, timeout: 5m, attempts: 2, onFailure: hold}, notify],"
        " limits: {perHour: 3}, approval: {by: [ann], lapsesAfter: 30m, then: proceed}",
    )
    text = remediator("policy", "show", tmp_path).out
    for line in (
        "when    a VM is Crashed",
        "vms     all in shop",
        "if      vm.disks > 0",
        "open    '0 22 * * *' for 6 h (UTC)",
        "then    restart (5 min, 2 times, else hold), notify",
        "limits  3 an hour",
        "asks    ann; unanswered for 30 min it acts",
    ):
        assert f"   {line}" in text
    (plain,) = json.loads(remediator("policy", "show", tmp_path, "-o", "json").out)
    assert plain["steps"][0] == {
        "do": "restart", "timeout": 300.0, "attempts": 2, "onFailure": "hold",
    }  # fmt: skip
    assert yaml.safe_load(remediator("policy", "show", tmp_path, "-o", "yaml").out) == [plain]


def test_the_schema_and_the_variables_are_printed(remediator):
    schema = yaml.safe_load(remediator("policy", "schema").out)
    assert "condition" in schema["properties"]["spec"]["properties"]
    known = json.loads(remediator("policy", "schema", "--variables", "-o", "json").out)
    assert known["VirtualMachine"]["vm.disks"].startswith("int: ")
    assert "vm.disks" not in known["Node"]


# --- test -----------------------------------------------------------------------------------------


def table(directory, cases):
    tests = directory / "tests"
    tests.mkdir()
    (tests / "t.yaml").write_text(
        "apiVersion: remediator.io/v1alpha1\nkind: PolicyTest\nmetadata: {name: t}\n"
        f"cases:\n{cases}"
    )


def test_tables_that_hold_are_counted(remediator, tmp_path):
    write(tmp_path, "a")
    table(tmp_path, "  - {name: x, given: {verdict: Dead}, expect: {policy: a}}\n")
    answer = remediator("policy", "test", tmp_path)
    assert (answer.code, answer.out) == (ExitCode.OK, "1 of 1 cases as expected\n")


def test_a_case_that_differs_is_told_with_its_trace(remediator, tmp_path):
    write(tmp_path, "a", "verdicts: [Dead], for: 1m")
    table(
        tmp_path,
        "  - name: too early\n    given: {verdict: Dead, for: 30s}\n    expect: {policy: a}\n"
        "  - name: another reason\n    given: {verdict: Dead, for: 30s}\n"
        "    expect: {policy: none, missed: {a: condition}}\n",
    )
    answer = remediator("policy", "test", tmp_path)
    assert answer.code == ExitCode.FINDING
    assert f"FAILED {tmp_path}/tests/t.yaml:5: too early\n" in answer.out
    assert "expected policy a, found none" in answer.out
    assert "a: for 60 s: 30.0 s FAILS" in answer.out
    assert "a was to miss by 'condition'; it missed by: for 60 s: 30.0 s" in answer.out
    assert answer.out.endswith("0 of 2 cases as expected\n")


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("given: {verdict: Dead}, expect: {policy: b}", "there is no policy 'b'"),
        ("given: {verdict: Ded}, expect: {policy: a}", "'Ded' is not one of"),
        ("given: {verdict: Dead, facts: {node.vmz: 1}}, expect: {policy: a}", "is no fact of a"),
        ("given: {verdict: Dead, facts: {node.vms: two}}, expect: {policy: a}", "is a int, found"),
        ("given: {verdict: Dead, at: noon}, expect: {policy: a}", "'noon' is not a time"),
        ("given: {verdict: Dead}, expect: {policy: a, steps: [dance]}", "'dance' is no step"),
    ],
)
def test_a_table_with_a_fault_is_refused_with_its_place(remediator, tmp_path, case, says):
    write(tmp_path, "a")
    table(tmp_path, f"  - {{name: x, {case}}}\n")
    answer = remediator("policy", "test", tmp_path)
    assert answer.code == ExitCode.USAGE
    assert says in answer.err
    assert f"{tmp_path}/tests/t.yaml:5:" in answer.err


def test_the_shipped_tables_hold(remediator):
    assert remediator("policy", "test").code == ExitCode.OK


# --- explain --------------------------------------------------------------------------------------

VIEW = PolicyView(
    at=1_795_144_327.0,
    leader=LeaderLine(identity="remediator-0", epoch=3, since_s=60.0, mode="enforce"),
    subject="node/n03",
    verdict=Verdict.DEAD,
    row="power-off",
    since_s=42.0,
    incident="inc-17 (held)",
    chosen="node-lost",
    would=("cordon, fence, release, recover; 2 VMs",),
    guards=(GuardLine(guard="cool-down", answer="wait", why="fenced lately", in_s=90.0),),
    words=(
        PolicyWord(
            name="site-lost",
            mode="enforce",
            steps=("cordon",),
            matches=False,
            chosen=False,
            clauses=(
                ClauseRow(policy="site-lost", clause="condition x", value="false", held=False),
            ),
        ),
        PolicyWord(
            name="node-lost",
            mode="enforce",
            steps=("cordon",),
            matches=True,
            chosen=True,
            clauses=(ClauseRow(policy="node-lost", clause="for 0 s", value="42.0 s", held=True),),
        ),
    ),
)


class Reader:
    def __init__(self):
        self.asked, self.refusal = [], None

    async def answer(self, query):
        self.asked.append(query)
        return self.refusal or HealthAnswer(status=200, view=msgspec.Raw(msgspec.json.encode(VIEW)))


@pytest.fixture
def api(background, remediator):
    reader = Reader()

    async def start():
        app = make_app(
            readiness=dict,
            journal=None,
            now=lambda: 0.0,
            metrics=Metrics(CollectorRegistry()),
            health=reader,
        )
        context = serving(app, "127.0.0.1", 0)
        return context, await context.__aenter__()

    context, port = background(start())
    reader.run = lambda *arguments: remediator(
        "policy", "explain", *arguments, "--server", f"http://127.0.0.1:{port}"
    )
    yield reader
    background(context.__aexit__(None, None, None))


def test_explain_says_what_would_happen_and_why_others_would_not(api):
    answer = api.run("node/n03")
    assert answer.code == ExitCode.OK
    assert answer.out.splitlines() == [
        "node/n03 is Dead (power-off), for 42 s, inc-17 (held)",
        "policy   node-lost",
        "would    cordon, fence, release, recover; 2 VMs",
        "but      cool-down: wait: fenced lately (1 min 30 s more)",
        "",
        "-  site-lost",
        "    FAILS  condition x: false",
        "=> node-lost",
        "    holds  for 0 s: 42.0 s",
    ]


def test_explain_asks_what_its_arguments_say(api):
    api.run("vm/shop/db", "--if", "Crashed")
    asked = api.asked[-1]
    assert (asked.view, asked.namespace, asked.name, asked.verdict) == (
        "policies", "shop", "db", "Crashed",
    )  # fmt: skip
    api.run("node/n03")
    assert (api.asked[-1].namespace, api.asked[-1].verdict) == ("", "")


def test_explain_speaks_json(api):
    assert json.loads(api.run("node/n03", "-o", "json").out)["chosen"] == "node-lost"


def test_a_refusal_is_one_line(api):
    api.refusal = HealthAnswer(status=404, detail="there is no node n99")
    answer = api.run("node/n99")
    assert (answer.code, answer.err) == (ExitCode.FINDING, "remediator: there is no node n99\n")


def test_a_subject_that_is_none_is_refused_before_anybody_is_asked(remediator):
    answer = remediator("policy", "explain", "n03")
    assert answer.code == ExitCode.USAGE
    assert "write node/NAME or vm/NAMESPACE/NAME" in answer.err
