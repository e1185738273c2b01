"""What people write wrong, and what they are told: tests/policy/bad/NAME.yaml and NAME.txt.

After a message was improved: UPDATE_GOLDEN=1 pytest tests/policy/test_bad_documents.py, and read
the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remediator.policy import read_text

BAD = Path(__file__).parent / "bad"
NAMES = sorted(path.stem for path in BAD.glob("*.yaml"))


def told(name):
    reading = read_text((BAD / f"{name}.yaml").read_text(), file=f"{name}.yaml")
    faults = [str(one) for one in reading.problems]
    return "\n".join([*faults, *(f"warning: {one}" for one in reading.warnings)]) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_document_is_told_as_written_down(name):
    wanted = BAD / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        wanted.write_text(told(name))
    assert told(name) == wanted.read_text()


def test_every_fault_has_its_line_and_column_and_warnings_alone_are_no_faults():
    for name in NAMES:
        reading = read_text((BAD / f"{name}.yaml").read_text(), file="x.yaml")
        assert bool(reading.problems) != name.startswith("warn-"), name
        assert reading.problems or reading.warnings, name
        for problem in (*reading.problems, *reading.warnings):
            assert problem.line >= 1, name
            assert problem.column >= 1, name


def test_the_corpus_is_whole():
    assert len(NAMES) >= 60
    assert {path.stem for path in BAD.glob("*.txt")} == set(NAMES)
