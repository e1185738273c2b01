"""Live migrations, carried through by the emulated hosts as the real virt-controller wants them."""

from __future__ import annotations

import dataclasses

import pytest

from remediator.sim.hosts.settings import HostSettings
from remediator.sim.hosts.wire import RefusedError
from tests.cluster.storytelling import TEN, calm, fenced, tell

SHARED = dataclasses.replace(TEN, vms=4, rwx_share=1.0, diskless_share=0.0)
SLOW_COPY = dataclasses.replace(SHARED, hosts=HostSettings(migration_copy_s=(60.0, 61.0)))
BACK_S = 120.0


async def test_a_live_migration_moves_the_guest_and_keeps_its_vmi(set_stage):
    async with set_stage(SHARED, daemon=False) as stage:
        cluster = stage.cluster
        vm = min(cluster.vms)
        before = cluster.instances.newest(vm)
        source = before.node
        path = await migrate(cluster, vm)

        await cluster.wait_until(
            lambda: cluster.ledger.running_copies(vm)[0].node != source, timeout_s=60.0
        )
        await until_phase(cluster, path, "Succeeded")
        after = cluster.instances.newest(vm)
        assert after.uid == before.uid
        assert after.node == cluster.ledger.running_copies(vm)[0].node
        assert cluster.ledger.is_up(vm)
        assert cluster.ledger.double_runs == ()


async def test_a_vm_whose_source_dies_while_it_is_copied_starts_once_elsewhere(set_stage):
    async with set_stage(SLOW_COPY) as stage:
        cluster = stage.cluster
        vm = min(cluster.vms)
        source = cluster.instances.newest(vm).node
        victims = cluster.vms_on(source)
        await calm()
        path = await migrate(cluster, vm)
        await until_phase(cluster, path, "Running")

        fault_at = cluster.faults.power_loss(source).at
        try:
            await cluster.wait_until(cluster.all_up, timeout_s=BACK_S)
        finally:
            await tell(stage, "source of a migration loses power", source, victims, fault_at)
        with pytest.raises(RefusedError, match="404"):  # it went with the VMI that it belonged to
            await cluster.objects.ask("GET", path)
        assert cluster.ledger.double_runs == ()
        assert fenced(await stage.daemon.decisions()) == {source}


async def migrate(cluster, vm):
    """Ask for a migration and return its path."""
    namespace, name = vm.split("/")
    path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstancemigrations"
    migration = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {"name": f"{name}-moves"},
        "spec": {"vmiName": name},
    }
    await cluster.objects.ask("POST", path, migration)
    return f"{path}/{name}-moves"


async def until_phase(cluster, path, phase):
    for _ in range(120):
        found = (await cluster.objects.ask("GET", path)).get("status", {}).get("phase")
        if found == phase:
            return
        await calm(0.5)
    raise AssertionError(f"{path} is {found}, not {phase}")
