"""The shipped policies: sound, in order, safe by default, and as their tables say."""

from __future__ import annotations

import pytest

from remediator.engine.model import ProofKind
from remediator.engine.rules import SubjectKind
from remediator.policy import load_directory, read, shipped_directory
from remediator.policy.document import OF_LOST_NODES
from remediator.policy.table_tests import files_of, run_file

SHIPPED = load_directory(shipped_directory())
RESULTS = [one for file in files_of(shipped_directory()) for one in run_file(file, SHIPPED)]


@pytest.mark.parametrize("result", RESULTS, ids=[f"{one.table}: {one.case}" for one in RESULTS])
def test_the_tables_hold(result):
    assert result.faults == (), result.trace


def test_nothing_is_odd_about_them():
    reading = read(shipped_directory())
    assert reading.problems == ()
    assert reading.warnings == ()


def test_each_has_its_file_and_its_table_with_a_match_and_a_near_miss():
    tables = {file.stem: file.read_text() for file in files_of(shipped_directory())}
    for policy in SHIPPED:
        assert policy.source.endswith(f"/{policy.name}.yaml")
        assert f"policy: {policy.name}" in tables[policy.name]
        assert "missed:" in tables[policy.name]


def test_they_are_safe_by_default():
    for policy in SHIPPED:
        assert not policy.start_manual
        assert ProofKind.ASSUMED_AFTER not in policy.required_proof
        if policy.approval is not None:
            assert not policy.approval.proceeds
        fences = "fence" in policy.steps
        lost = policy.subject is SubjectKind.NODE and set(policy.verdicts) <= set(OF_LOST_NODES)
        assert fences is lost
        assert fences or not {"release", "recover"} & set(policy.steps)


def test_each_can_be_read_in_a_minute():
    for policy in SHIPPED:
        lines = (shipped_directory() / f"{policy.name}.yaml").read_text().splitlines()
        assert len(lines) <= 40, policy.name
        assert lines[0].startswith("# ")
