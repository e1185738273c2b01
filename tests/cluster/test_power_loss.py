"""A host loses power with twenty VMs on it."""

from __future__ import annotations

import asyncio

from remediator.sim.cluster_spec import ClusterSpec
from tests.cluster.timeline import TimeLine

NODE = "n01"
TWENTY = ClusterSpec(
    nodes=6,
    zones=3,
    vms=20,
    run_strategies={"Always": 0.6, "RerunOnFailure": 0.4},
    rwx_share=0.5,
    diskless_share=0.2,
)
CALM_S = 12.0  # so that every lease has been seen renewed
BACK_S = 90.0


async def test_a_dead_hosts_twenty_vms_run_elsewhere_within_25_seconds(set_stage):
    async with set_stage(TWENTY, all_on=NODE) as stage:
        cluster = stage.cluster
        victims = cluster.vms_on(NODE)
        assert len(victims) == 20
        await asyncio.sleep(CALM_S)

        fault_at = cluster.faults.power_loss(NODE).at
        try:
            await cluster.wait_until(cluster.all_up, timeout_s=BACK_S)
        finally:
            decisions = await stage.daemon.decisions()
            line = TimeLine.read("power loss", cluster, NODE, victims, fault_at, decisions)
            print(line)

        assert cluster.ledger.double_runs == ()
        assert line.verdict_s is not None
        assert line.verdict_s <= 15.0
        assert line.slowest("requested_s") <= 25.0
