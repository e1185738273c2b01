"""A host loses power with twenty VMs on it."""

from __future__ import annotations

import os

import pytest

from tests.cluster.storytelling import TWENTY, calm, fenced, tell

NODE = "n01"
BACK_S = 120.0
# The default pace lets ten guests boot at once, and half of these twenty wait for the other half.
ALL_AT_ONCE = {"engine": {"pacing": {"starts_at_once_cluster": 20, "starts_at_once_node": 5}}}


async def test_twenty_vms_of_a_dead_host_run_elsewhere_at_the_default_pace(set_stage):
    async with set_stage(TWENTY, all_on=NODE) as stage:
        line = await lose_power(stage)

        assert line.verdict_s <= 15.0
        assert line.first("requested_s") <= 15.0
        assert line.slowest("up_s") <= 90.0


async def test_twenty_vms_of_a_dead_host_are_requested_within_25_seconds(set_stage):
    async with set_stage(TWENTY, all_on=NODE, **ALL_AT_ONCE) as stage:
        line = await lose_power(stage)

        assert line.verdict_s <= 15.0
        assert line.slowest("requested_s") <= 25.0


async def lose_power(stage):
    cluster = stage.cluster
    victims = cluster.vms_on(NODE)
    assert len(victims) == 20
    await calm()
    fault_at = cluster.faults.power_loss(NODE).at
    try:
        await cluster.wait_until(cluster.all_up, timeout_s=BACK_S)
    finally:
        line = await tell(stage, "power loss", NODE, victims, fault_at)
    assert cluster.ledger.double_runs == ()
    assert fenced(await stage.daemon.decisions()) == {NODE}
    return line


@pytest.mark.skipif(
    "CLUSTER_BASELINE" not in os.environ,
    reason="takes eight minutes and tests Kubernetes, not us: CLUSTER_BASELINE=1 runs it",
)
async def test_without_a_daemon_no_vm_of_a_dead_host_comes_back(set_stage):
    async with set_stage(TWENTY, all_on=NODE, daemon=False) as stage:
        cluster = stage.cluster
        victims = cluster.vms_on(NODE)
        fault_at = cluster.faults.power_loss(NODE).at
        await calm(420.0)  # evictions begin after 350 s
        line = await tell(stage, "power loss, no daemon", NODE, victims, fault_at)
        assert line.first("requested_s") is None
