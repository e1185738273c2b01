"""``make bench-detect`` works, small; and what it must never find, it does not find here either."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DETECT = Path(__file__).parents[2] / "bench" / "detect.py"


@pytest.fixture(scope="module")
def table() -> str:
    done = subprocess.run(
        [sys.executable, str(DETECT), "--quick"],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_every_kind_of_fault_ends_in_the_verdict_that_it_must(table):
    assert "power loss, BMC answers" in table
    assert "zone cut off" in table
    assert "MISSED" not in table, table
    assert "not as told" not in table, table


@pytest.mark.timeout(180)
def test_ordinary_trouble_fences_nobody(table):
    rows = [line for line in table.splitlines() if "signals of" in line or "replicas on" in line]
    assert len(rows) == 2
    for row in rows:
        numbers = [cell.strip() for cell in re.split(r"[│|]", row)]
        assert numbers[6] == "0", row
