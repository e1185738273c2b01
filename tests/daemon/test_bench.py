"""The benchmark works: its numbers are nobody's business here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "bench" / "run.py"


@pytest.mark.timeout(180)
def test_the_benchmark_runs_small_and_prints_its_table():
    # One of the two cold starts is enough: they differ in the objects only.
    parts = ["decode", "bus", "engine", "admission", "end-to-end", "sync-disks"]
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", *parts],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for row in (
        "reflector",
        "publisher, window of 256",
        "appended one by one",
        "heartbeats, quiet",
        "answered, p99",
        "signal to decision, p99",
        "start to all lists complete",
        "memory, peak",
    ):
        assert row in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_benchmark_of_probes_runs_small():
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", "probes"],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for row in ("CPU of a prober", "signals that travel in peace", "death to down by two zones"):
        assert row in done.stdout


@pytest.mark.timeout(180)
def test_the_benchmark_of_storms_runs_small_and_ours_is_no_slower_than_no_pace():
    done = subprocess.run(
        [sys.executable, str(RUN.with_name("storm.py")), "--quick"],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    past_the_knee = {row[0].strip("| "): row[2] for row in rows[7:]}
    assert float(past_the_knee["ours"]) <= 0.5 * float(past_the_knee["none"])
