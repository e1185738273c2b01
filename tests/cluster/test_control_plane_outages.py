"""The control plane itself fails, alone or together with a host."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.storytelling import TEN, TWENTY, busiest, calm, fenced, tell

BACK_S = 120.0


@pytest.mark.parametrize("name", ["api_server", "etcd"])
async def test_an_outage_of_the_control_plane_fences_nobody(set_stage, name):
    async with set_stage(TEN) as stage:
        cluster = stage.cluster
        program = getattr(stage.plane, name)
        await calm()
        began_at = cluster.clock.now()
        await asyncio.to_thread(stage.plane.restart, program, down_s=30.0)
        await calm(30.0)
        await tell(stage, f"{name} down for 30 s", "", [], began_at)
        assert fenced(await stage.daemon.decisions()) == set()

        node = busiest(stage)
        victims = cluster.vms_on(node)
        fault_at = cluster.faults.power_loss(node).at
        try:
            await cluster.wait_until(cluster.all_up, timeout_s=BACK_S)
        finally:
            await tell(stage, f"power loss after {name} was down", node, victims, fault_at)
        assert fenced(await stage.daemon.decisions()) == {node}
        assert cluster.ledger.double_runs == ()


async def test_vms_come_back_when_the_daemon_is_removed_in_the_middle_of_the_storm(set_stage):
    async with set_stage(TWENTY, all_on="n01") as stage:
        cluster = stage.cluster
        victims = cluster.vms_on("n01")
        await calm()
        fault_at = cluster.faults.power_loss("n01").at
        await cluster.wait_until(
            lambda: any(is_new(cluster, vm, fault_at) for vm in victims), timeout_s=BACK_S
        )
        await stage.daemon.stop()
        try:
            # Kubernetes does the rest: the node is tainted already, NotReady follows within 55 s
            await cluster.wait_until(cluster.all_up, timeout_s=BACK_S)
        finally:
            await tell(stage, "daemon removed in the storm", "n01", victims, fault_at)
        assert cluster.ledger.double_runs == ()


def is_new(cluster, vm, fault_at):
    newest = cluster.instances.newest(vm)
    return newest is not None and newest.made_at > fault_at
