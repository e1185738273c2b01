"""The daemon killed at every record of a VM's remedy: the VM is up again, and once only."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import scenario_file
from scenario_log import problems, render
from scenario_stage import Stage

from remediator.sim.virtual_time import run

HERE = Path(__file__).parent
# A leader that has just started excuses a silent guest for as long as a boot may take (300 s), and
# then counts its silence anew.
UNTIL_S = 1500.0


async def _play(scenario: scenario_file.Scenario, *, kill_at: int = 0):
    stage = Stage(scenario)
    if kill_at:
        stage.kill_after = {kill_at}
    return await stage.play()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("story", ["vm-snapshot-first"])
def test_the_daemon_may_be_killed_at_every_record_of_a_remedy(story):
    scenario = scenario_file.read(HERE / story / "scenario.yaml")
    scenario = msgspec.structs.replace(scenario, until_s=UNTIL_S)
    records = len(run(_play(scenario)).decisions)
    assert records >= 7
    for seq in range(2, records + 1):
        played = run(_play(scenario, kill_at=seq))
        log = render(played)
        assert any(f"at record {seq}" in text for _, _, text in played.happened)
        assert problems(played) == [], f"killed at record {seq}:\n{log}"
        restarts = sum("/restart" in path for _, path in played.writes)
        snapshots = sum("virtualmachinesnapshots" in path for _, path in played.writes)
        assert restarts == 1, f"killed at record {seq}:\n{log}"
        assert snapshots == ("snapshot" in story), f"killed at record {seq}:\n{log}"
