"""docs/vm-remedies.md says what the code does: steps, times, run strategies, the story told."""

from __future__ import annotations

import re
from pathlib import Path

from remediator.actions import kill_pod
from remediator.durations import format_duration
from remediator.engine import vm_plan, vm_recovery
from remediator.engine.model import RunStrategy
from remediator.engine.settings import EngineSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "vm-remedies.md").read_text()
REMEDIES = EngineSettings().remedies


def rows(first_cell: str) -> dict[str, list[str]]:
    found = re.findall(rf"^\| {first_cell} \|(.*)\|$", PAGE, re.MULTILINE)
    return {row[0]: [cell.strip() for cell in row[1].split("|")] for row in found}


def test_every_step_is_told_with_its_time():
    told = rows("`([a-z-]+)`")
    assert [step for step in vm_plan.STEPS if step not in told] == []
    times = {
        "soft-reboot": REMEDIES.soft_reboot_s,
        "unpause": REMEDIES.unpause_s,
        "restart": REMEDIES.restart_s,
        "force-stop": REMEDIES.force_stop_s,
        "snapshot": REMEDIES.snapshot_s,
    }
    assert {step: told[step][-1] for step in times} == {
        step: format_duration(seconds) for step, seconds in times.items()
    }


def test_every_run_strategy_is_told():
    told = PAGE[PAGE.index("## By run strategy") : PAGE.index("## What is never done")]
    named = {strategy.value or "no VirtualMachine" for strategy in RunStrategy}
    assert [name for name in named if name not in told] == []


def test_the_durations_in_the_text_are_those_of_the_code():
    for text in (
        f"begins anew {format_duration(REMEDIES.follow_up_s)} later",
        f"again {format_duration(REMEDIES.follow_up_s)} later",
        f"fits for {format_duration(vm_recovery.SETTLE_S)}",
        f"lease within {kill_pod._ANSWERS_WITHIN_S:g} s",
        f"with {vm_plan.SHORTEST_GRACE_S} s where it is terminating already",
    ):
        assert text in " ".join(PAGE.split()), text


def test_the_story_that_is_quoted_went_so():
    log = (ROOT / "tests/scenarios/vm-silent-ladder/expected.log").read_text()
    went = {" ".join(line.split()) for line in log.splitlines()}
    quoted = PAGE[PAGE.index("```\n   0.0") :].split("```")[1].strip().splitlines()
    assert len(quoted) == 8
    for line in quoted:
        at, what, *_ = line.split(maxsplit=2)
        words = line.split(maxsplit=3)[-1] if what == "started" else line.split(maxsplit=2)[-1]
        assert any(one.startswith(at) and one.endswith(words) for one in went), line
