"""Live migrations between emulated hosts (facts/lab.md sections 4 and 5)."""

from __future__ import annotations

import asyncio

from remediator.sim.resources import (
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)


def migrate(cluster, vm):
    namespace, name = vm.split("/")
    return cluster.store.create(
        VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
        {
            "metadata": {"generateName": "move-", "namespace": namespace},
            "spec": {"vmiName": name},
        },
    )


def phase(cluster, migration):
    meta = migration["metadata"]
    found = cluster.store.find(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, meta["namespace"], meta["name"])
    return "" if found is None else found.get("status", {}).get("phase", "")


def shared(cluster, node):
    return [vm for vm in cluster.vms_on(node) if cluster.vms[vm].access_mode == "ReadWriteMany"]


def test_a_live_migration_moves_the_guest_without_a_gap_or_a_double_run(in_cluster):
    async def story(cluster):
        vm = shared(cluster, "n01")[0]
        up_at = cluster.ledger.up_at(vm)
        vmi = cluster.store.get(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))
        gaps = []
        cluster.ledger.subscribe(lambda _e: gaps.append(len(cluster.ledger.running_copies(vm))))
        migration = migrate(cluster, vm)
        took_s = await cluster.wait_until(
            lambda: phase(cluster, migration) == "Succeeded", timeout_s=30
        )
        assert 3.0 < took_s < 12.0
        (copy,) = cluster.ledger.running_copies(vm)
        moved = cluster.store.get(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))
        assert moved["metadata"]["uid"] == vmi["metadata"]["uid"]
        assert moved["status"]["nodeName"] == copy.node != "n01"
        assert cluster.ledger.up_at(vm) == up_at
        assert cluster.ledger.double_runs == ()
        await asyncio.sleep(30)
        assert cluster.ledger.running_copies(vm) == (copy,)
        assert moved["status"]["phase"] == "Running"
        source = [
            p
            for p in cluster.store.list(PODS, labels="kubevirt.io=virt-launcher")
            if p["metadata"]["labels"]["kubevirt.io/created-by"] == vmi["metadata"]["uid"]
            and p["spec"]["nodeName"] == "n01"
        ]
        assert [p["status"]["phase"] for p in source] == ["Succeeded"]

    in_cluster(story, rwx_share=1.0, diskless_share=0.0)


def test_a_guest_can_be_migrated_twice(in_cluster):
    async def story(cluster):
        vm = shared(cluster, "n01")[0]
        for _ in range(2):
            migration = migrate(cluster, vm)
            await cluster.wait_until(
                lambda m=migration: phase(cluster, m) == "Succeeded", timeout_s=40
            )
        assert len(cluster.ledger.running_copies(vm)) == 1
        assert len(cluster.ledger.copies(vm)) == 3
        assert cluster.ledger.double_runs == ()

    in_cluster(story, rwx_share=1.0, diskless_share=0.0)


def test_a_migration_away_from_a_hung_virt_handler_parks_and_harms_nobody(in_cluster):
    async def story(cluster):
        vm = shared(cluster, "n01")[0]
        cluster.faults.handler_hang("n01")
        migration = migrate(cluster, vm)
        await asyncio.sleep(400)
        assert phase(cluster, migration) == "TargetReady"
        (copy,) = cluster.ledger.running_copies(vm)
        assert copy.node == "n01"
        assert cluster.ledger.is_up(vm)

    in_cluster(story, rwx_share=1.0, diskless_share=0.0)


def test_a_source_that_dies_mid_copy_fails_the_migration_and_nothing_restarts(in_cluster):
    async def story(cluster):
        vm = shared(cluster, "n01")[0]
        migration = migrate(cluster, vm)
        await cluster.wait_until(lambda: phase(cluster, migration) == "Running", timeout_s=30)
        cluster.faults.power_loss("n01")
        await cluster.wait_until(lambda: phase(cluster, migration) in ("Failed", ""), timeout_s=10)
        await asyncio.sleep(30)
        assert cluster.ledger.running_copies(vm) == ()
        vmi = cluster.store.get(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))
        assert (vmi["status"]["phase"], vmi["status"]["nodeName"]) == ("Running", "n01")

    in_cluster(story, rwx_share=1.0, diskless_share=0.0)


def test_a_target_that_dies_mid_copy_leaves_the_guest_where_it_is(in_cluster):
    async def story(cluster):
        vm = shared(cluster, "n01")[0]
        migration = migrate(cluster, vm)
        await cluster.wait_until(lambda: phase(cluster, migration) == "Running", timeout_s=30)
        vmi = cluster.store.get(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))
        cluster.faults.power_loss(vmi["status"]["migrationState"]["targetNode"])
        await cluster.wait_until(lambda: phase(cluster, migration) == "Failed", timeout_s=30)
        await asyncio.sleep(30)
        (copy,) = cluster.ledger.running_copies(vm)
        assert copy.node == "n01"
        assert cluster.ledger.is_up(vm)

    in_cluster(story, rwx_share=1.0, diskless_share=0.0)
