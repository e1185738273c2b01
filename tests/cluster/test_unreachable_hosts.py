"""Hosts that fall silent while their VMs go on writing."""

from __future__ import annotations

from tests.cluster.storytelling import TEN, busiest, calm, fenced, tell


async def test_vms_of_a_host_cut_off_the_api_never_run_twice(set_stage):
    async with set_stage(TEN) as stage:
        cluster = stage.cluster
        node = busiest(stage)
        victims = cluster.vms_on(node)
        await calm()
        fault_at = cluster.faults.partition(node).at
        try:
            # virt-handler's heartbeat must be missed too, which takes 132 s and more
            await cluster.wait_until(
                lambda: all(is_back(cluster, vm, node) for vm in victims), timeout_s=300.0
            )
        finally:
            line = await tell(stage, "partition", node, victims, fault_at)
        cluster.faults.heal(node)
        await calm()

        assert cluster.ledger.double_runs == ()
        assert fenced(await stage.daemon.decisions()) == {node}
        assert not cluster.hosts[node].powered
        assert line.slowest("up_s") is not None


async def test_a_host_with_a_hung_kubelet_is_not_fenced_and_its_vms_run_on(set_stage):
    async with set_stage(TEN) as stage:
        cluster = stage.cluster
        node = busiest(stage)
        victims = cluster.vms_on(node)
        await calm()
        fault_at = cluster.faults.kubelet_hang(node).at
        await calm(90.0)  # Kubernetes calls the node NotReady after 50 s
        await tell(stage, "kubelet hangs", node, victims, fault_at)

        assert fenced(await stage.daemon.decisions()) == set()
        assert cluster.vms_on(node) == victims
        assert all(cluster.ledger.is_up(vm) for vm in victims)
        assert cluster.ledger.double_runs == ()


async def test_a_host_that_returns_before_the_verdict_is_left_alone(set_stage):
    async with set_stage(TEN) as stage:
        cluster = stage.cluster
        node = busiest(stage)
        victims = cluster.vms_on(node)
        await calm()
        fault_at = cluster.faults.host_hang(node).at  # the same boot id when it comes back
        await calm(20.0)
        cluster.faults.resume(node)
        await calm(30.0)
        await tell(stage, "host hangs for 20 s", node, victims, fault_at)

        assert fenced(await stage.daemon.decisions()) == set()
        assert cluster.vms_on(node) == victims
        assert cluster.ledger.double_runs == ()


def is_back(cluster, vm, node):
    newest = cluster.instances.newest(vm)
    return newest is not None and newest.node not in ("", node) and cluster.is_up(vm)
