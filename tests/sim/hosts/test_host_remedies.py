"""What can be asked of KubeVirt about a sick guest: soft reboot, unpause, restart, snapshot."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from remediator.sim.controllers.snapshots import volume_statuses
from remediator.sim.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINE_SNAPSHOTS,
    VIRTUAL_MACHINES,
)

ALL = {"agent_share": 1.0, "run_strategies": {"Always": 1.0}, "diskless_share": 0.0}
SUBRESOURCES = "/apis/subresources.kubevirt.io/v1/namespaces"


def put(cluster, vm, what, verb, body=None):
    """PUT a subresource as any client; return the status and what a refusal says."""
    namespace, name = vm.split("/")
    answer = cluster.server.handle(
        "PUT",
        f"{SUBRESOURCES}/{namespace}/{what}/{name}/{verb}",
        [],
        {"user-agent": "test", "content-type": "application/json"},
        msgspec.json.encode(body or {}),
    )
    text = msgspec.json.decode(answer.body)["message"] if answer.body else ""
    return answer.status, text


def of_guest(cluster, vm, verb):
    return put(cluster, vm, "virtualmachineinstances", verb)


def vmi(cluster, vm):
    return cluster.store.find(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))


def has(cluster, vm, condition):
    found = vmi(cluster, vm)["status"].get("conditions", ())
    return any(each["type"] == condition and each["status"] == "True" for each in found)


def first_vm(cluster):
    return min(cluster.vms)


def host_of(cluster, vm):
    (copy,) = cluster.ledger.running_copies(vm)
    return copy.node


# --- soft reboot ----------------------------------------------------------------------------------


def test_a_soft_reboot_brings_a_lost_agent_back_in_the_same_instance(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        uid = vmi(cluster, vm)["metadata"]["uid"]
        cluster.faults.agent_lost(vm)
        await asyncio.sleep(2)
        assert of_guest(cluster, vm, "softreboot") == (202, "")
        await cluster.wait_until(lambda: has(cluster, vm, "AgentConnected"), timeout_s=60)
        assert vmi(cluster, vm)["metadata"]["uid"] == uid
        assert not cluster.ledger.double_runs

    in_cluster(story, **ALL)


def test_a_frozen_guest_obeys_no_soft_reboot(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.guest_freezes(vm)
        await asyncio.sleep(2)
        assert of_guest(cluster, vm, "softreboot")[0] == 202
        await asyncio.sleep(120)
        assert not has(cluster, vm, "AgentConnected")

    in_cluster(story, **ALL)


def test_a_soft_reboot_needs_an_agent_or_a_power_button(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.agent_lost(vm)
        await asyncio.sleep(2)

        def without_acpi(obj):
            obj["spec"].setdefault("domain", {})["features"] = {"acpi": {"enabled": False}}

        cluster.store.mutate(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"), without_acpi)
        status, text = of_guest(cluster, vm, "softreboot")
        assert status == 409
        assert "neither have the agent connected nor the ACPI feature enabled" in text

    in_cluster(story, **ALL)


def test_a_guest_that_stands_still_is_not_rebooted(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        assert of_guest(cluster, vm, "pause") == (202, "")
        await asyncio.sleep(1)
        status, text = of_guest(cluster, vm, "softreboot")
        assert (status, "VMI is paused" in text) == (409, True)

    in_cluster(story, **ALL)


@pytest.mark.parametrize("verb", ["softreboot", "unpause", "pause"])
def test_what_is_not_there_or_does_not_run_refuses(in_cluster, verb):
    async def story(cluster):
        assert of_guest(cluster, "team-a/nobody", verb)[0] == 404
        vm = first_vm(cluster)
        cluster.faults.crash_loop(vm)
        await cluster.wait_until(
            lambda: (vmi(cluster, vm) or {}).get("status", {}).get("phase") == "Scheduling",
            timeout_s=60,
            step_s=0.05,
        )
        status, text = of_guest(cluster, vm, verb)
        assert (status, "VMI is not running" in text) == (409, True)

    in_cluster(story, **ALL)


@pytest.mark.parametrize("fault", ["handler_hang", "partition", "power_loss"])
def test_a_virt_handler_that_is_not_reached_is_an_internal_error(in_cluster, fault):
    async def story(cluster):
        vm = first_vm(cluster)
        getattr(cluster.faults, fault)(host_of(cluster, vm))
        status, text = of_guest(cluster, vm, "softreboot")
        assert status == 500
        assert "dialing virt-handler" in text

    in_cluster(story, **ALL)


# --- pause and unpause ----------------------------------------------------------------------------


def test_a_guest_goes_on_where_its_disk_works_again(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.io_error(vm)
        await asyncio.sleep(2)
        cluster.faults.io_mends(vm)
        await asyncio.sleep(60)
        assert has(cluster, vm, "Paused"), "nobody lets it go on by itself"
        assert of_guest(cluster, vm, "unpause") == (202, "")
        await asyncio.sleep(30)
        assert not has(cluster, vm, "Paused")

    in_cluster(story, **ALL)


def test_a_disk_that_still_fails_stops_the_guest_again(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.io_error(vm)
        await asyncio.sleep(2)
        assert of_guest(cluster, vm, "unpause") == (202, "")
        await asyncio.sleep(0.5)
        assert not has(cluster, vm, "Paused")
        await asyncio.sleep(2)
        assert has(cluster, vm, "Paused")

    in_cluster(story, **ALL)


def test_a_guest_that_runs_cannot_be_unpaused(in_cluster):
    async def story(cluster):
        status, text = of_guest(cluster, first_vm(cluster), "unpause")
        assert (status, "VMI is not paused" in text) == (409, True)

    in_cluster(story, **ALL)


# --- restart --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "within_s"), [({}, 40.0), ({"gracePeriodSeconds": 0}, 6.0)])
def test_a_forced_restart_gives_a_guest_that_runs_a_second(in_cluster, body, within_s):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.guest_freezes(vm)
        (old,) = cluster.ledger.running_copies(vm)
        assert put(cluster, vm, "virtualmachines", "restart", body) == (202, "")
        took_s = await cluster.wait_until(lambda: old.ended_at is not None, timeout_s=120)
        assert within_s / 10 < took_s <= within_s
        await cluster.wait_until(lambda: cluster.ledger.running_copies(vm), timeout_s=60)
        assert not cluster.ledger.double_runs

    in_cluster(story, **ALL)


# --- snapshots ------------------------------------------------------------------------------------


def take(cluster, vm, **spec):
    namespace, name = vm.split("/")
    cluster.store.create(
        VIRTUAL_MACHINE_SNAPSHOTS,
        {
            "metadata": {"name": "one", "namespace": namespace},
            "spec": {
                "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": name},
                **spec,
            },
        },
    )

    def status():
        return cluster.store.get(VIRTUAL_MACHINE_SNAPSHOTS, namespace, "one").get("status") or {}

    return status


def test_a_snapshot_takes_its_time_and_is_ready(in_cluster):
    async def story(cluster):
        status = take(cluster, first_vm(cluster))
        await asyncio.sleep(1)
        assert (status()["phase"], status()["readyToUse"]) == ("InProgress", False)
        await asyncio.sleep(15)
        assert (status()["phase"], status()["readyToUse"]) == ("Succeeded", True)

    in_cluster(story, **ALL)


def test_a_snapshot_that_cannot_be_made_fails_at_its_deadline(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.snapshots_fail(vm)
        status = take(cluster, vm, failureDeadline="1m30s")
        await asyncio.sleep(80)
        assert status()["phase"] == "InProgress"
        assert status()["error"]["message"]
        await asyncio.sleep(15)
        assert (status()["phase"], status()["readyToUse"]) == ("Failed", False)

    in_cluster(story, **ALL)


def test_a_vm_says_which_of_its_volumes_can_be_kept(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)

        def said():
            found = cluster.store.get(VIRTUAL_MACHINES, *vm.split("/"))["status"]
            return [each["enabled"] for each in found["volumeSnapshotStatuses"]]

        await asyncio.sleep(1)
        assert said() == [True]
        cluster.faults.no_snapshots(vm)
        cluster.faults.agent_lost(vm)
        cluster.faults.pause_guest(vm)
        await asyncio.sleep(5)
        assert said() == [False]

    in_cluster(story, **ALL)


def test_a_volume_without_claim_is_never_kept():
    vm = {"spec": {"template": {"spec": {"volumes": [{"name": "cd", "containerDisk": {}}]}}}}
    (said,) = volume_statuses(vm, enabled=True)
    assert said["enabled"] is False
    assert said["reason"]
