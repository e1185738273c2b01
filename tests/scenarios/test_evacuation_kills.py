"""Drains and evacuations survive kill -9 of the daemon at every single record."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import scenario_file
from scenario_log import problems, render
from scenario_outcome import Played
from scenario_stage import Stage

from remediator.sim.virtual_time import run

HERE = Path(__file__).parent


async def _play(scenario: scenario_file.Scenario, *, kill_at: int = 0) -> Played:
    stage = Stage(scenario)
    if kill_at:
        stage.kill_after = {kill_at}
    return await stage.play()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("story", ["drain-two-nodes-one-at-a-time", "degraded-node-rwo-restarted"])
def test_the_daemon_may_be_killed_at_every_record(story):
    scenario = scenario_file.read(HERE / story / "scenario.yaml")
    scenario = msgspec.structs.replace(scenario, until_s=scenario.until_s + 60.0)
    records = len(run(_play(scenario)).decisions)
    assert records > 12
    for seq in range(1, records + 1):
        played = run(_play(scenario, kill_at=seq))
        assert any(f"at record {seq}" in text for _, _, text in played.happened)
        assert problems(played) == [], f"killed at record {seq}:\n{render(played)}"
