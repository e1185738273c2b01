"""A fenced host's power comes back, or its Node object goes away."""

from __future__ import annotations

from dataclasses import replace

from remediator.sim.hosts.node_object import NODES_PATH
from tests.cluster.storytelling import TEN, busiest, calm, fenced, tell

BACK_S = 120.0


async def test_a_host_that_returns_late_takes_vms_again(set_stage):
    async with set_stage(TEN) as stage:
        cluster = stage.cluster
        node = busiest(stage)
        victims = cluster.vms_on(node)
        await calm()
        fault_at = cluster.faults.power_loss(node).at
        await cluster.wait_until(cluster.all_up, timeout_s=BACK_S)
        assert marks(stage, node) != ([], False)

        cluster.faults.power_restore(node, boot_s=5.0)
        try:
            await cluster.wait_until(lambda: marks(stage, node) == ([], False), timeout_s=BACK_S)
        finally:
            await tell(stage, "power loss and return", node, victims, fault_at)
        await calm()
        assert marks(stage, node) == ([], False)
        assert cluster.vms_on(node) == []  # nobody starts an old copy
        assert cluster.ledger.double_runs == ()


async def test_vms_come_back_when_the_node_object_is_deleted_after_the_power_loss(set_stage):
    # Kubernetes' own work: its pod garbage collection takes 60 to 80 s, and force-detaching
    # ReadWriteOnce volumes six minutes more, which is why there are none here.
    async with set_stage(replace(TEN, rwx_share=1.0)) as stage:
        cluster = stage.cluster
        node = busiest(stage)
        victims = cluster.vms_on(node)
        await calm()
        fault_at = cluster.faults.power_loss(node).at
        cluster.faults.delete_node(node)
        try:
            await cluster.wait_until(cluster.all_up, timeout_s=180.0)
        finally:
            await tell(stage, "power loss, Node object deleted", node, victims, fault_at)
        assert cluster.ledger.double_runs == ()
        assert fenced(await stage.daemon.decisions()) <= {node}


def marks(stage, node):
    """Return the taints of the node and whether it is cordoned."""
    _, found = stage.plane.call("GET", f"{NODES_PATH}/{node}")
    spec = found["spec"]
    return [taint["key"] for taint in spec.get("taints") or ()], spec.get("unschedulable", False)
