"""docs/policies.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from remediator.engine.match_facts import OF_BOTH, OF_VMS
from remediator.engine.rules import SubjectKind
from remediator.policy import load_text
from remediator.policy.conditions import CelCondition
from remediator.policy.document import STEP_WORDS, Spec

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()


@pytest.mark.parametrize("variables", [OF_BOTH, OF_VMS], ids=["both", "vms"])
def test_the_variables_are_those_of_the_code(variables):
    rows = [f"| `{one.name}` | {one.type} | {one.means} |" for one in variables]
    assert "\n".join(rows) in PAGE


def test_every_field_has_its_line():
    rows = re.findall(r"^\| `([A-Za-z]+)[.A-Za-z]*` \|", PAGE, re.MULTILINE)
    fields = {field.encode_name for field in msgspec.structs.fields(Spec)}
    assert fields <= set(rows)


def test_every_step_is_told():
    assert [word for word in STEP_WORDS if f"`{word}`" not in PAGE] == []


def test_the_example_is_sound():
    example = re.search(r"```yaml\n(apiVersion.*?kind: RemediationPolicy.*?)```", PAGE, re.DOTALL)
    (policy,) = load_text(example[1], file="example.yaml")
    assert policy.name == "gpu-host-sick"
    assert policy.approval.by == ("group:night-shift",)


def test_the_examples_of_conditions_are_sound():
    block = re.search(r"## Conditions.*?```\n(.*?)```", PAGE, re.DOTALL)[1]
    lines = [line.partition("  #")[0].strip() for line in block.splitlines() if line]
    lines.append('node.labels[?"gpu"].orValue("") == "nvidia"')
    for line in lines:
        assert CelCondition(line, SubjectKind.NODE).names, line
