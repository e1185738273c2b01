"""What each run strategy does after the end of an instance (KubeVirt facts section 5.3)."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from remediator.sim.controllers import ControlPlaneSettings
from remediator.sim.controllers.run_strategy import Choice, Step, choose
from remediator.sim.controllers.vm_status import start_backoff_s
from remediator.sim.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES


async def running(c, strategy):
    c.add_vm("vm", strategy=strategy)
    if strategy == "Manual":
        request_start(c)
    await c.until(lambda: c.phase("vm") == "Running", within_s=30)
    await asyncio.sleep(5)
    return c.vmi_uid("vm")


def request_start(c):
    c.store.mutate(
        VIRTUAL_MACHINES,
        "default",
        "vm",
        lambda vm: vm.setdefault("status", {}).update(stateChangeRequests=[{"action": "Start"}]),
        subresource="status",
    )


@pytest.mark.parametrize("strategy", ["Always", "RerunOnFailure"])
def test_a_failed_instance_is_replaced(simulate, strategy):
    async def story(c):
        uid = await running(c, strategy)
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=0.6)
        await c.until(lambda: c.phase("vm") == "Running", within_s=6)
        await asyncio.sleep(5)
        assert not c.vm("vm")["status"].get("stateChangeRequests")
        assert c.vm("vm")["status"]["printableStatus"] == "Running"

    simulate(story)


@pytest.mark.parametrize("strategy", ["Manual", "Once"])
def test_a_failed_instance_stays_failed_and_the_vm_reads_stopped(simulate, strategy):
    async def story(c):
        uid = await running(c, strategy)
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.phase("vm") == "Failed", within_s=1)
        await c.never(lambda: c.vmi_uid("vm") != uid, for_s=600)
        assert c.vm("vm")["status"]["printableStatus"] == "Stopped"

    simulate(story)


@pytest.mark.parametrize(
    ("strategy", "comes_back"),
    [("Always", True), ("RerunOnFailure", False), ("Manual", False), ("Once", True)],
)
def test_an_instance_deleted_by_a_user_comes_back_by_strategy(simulate, strategy, comes_back):
    async def story(c):
        uid = await running(c, strategy)
        # A guest that shuts down cleanly: the handler says Succeeded before the pod goes.
        c.store.delete(VIRTUAL_MACHINE_INSTANCES, "default", "vm")
        c.set_vmi_phase(c.vmi("vm"), "Succeeded")
        await c.until(lambda: c.vmi_uid("vm") != uid, within_s=10)
        if comes_back:
            await c.until(lambda: c.phase("vm") == "Running", within_s=10)
        else:
            await c.never(lambda: c.vmi("vm") is not None, for_s=120)
            assert c.vm("vm")["status"]["printableStatus"] == "Stopped"

    simulate(story)


@pytest.mark.parametrize(
    ("strategy", "comes_back"), [("Always", True), ("RerunOnFailure", False), ("Manual", False)]
)
def test_a_guest_that_shut_itself_down_comes_back_only_with_always(simulate, strategy, comes_back):
    async def story(c):
        uid = await running(c, strategy)
        c.set_vmi_phase(c.vmi("vm"), "Succeeded")
        if comes_back:
            await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=10)
        else:
            await c.never(lambda: c.vmi_uid("vm") not in ("", uid), for_s=120)

    simulate(story)


def test_rerun_on_failure_stays_stopped_when_an_evicted_guest_shuts_down_cleanly(simulate):
    async def story(c):
        await running(c, "RerunOnFailure")
        c.taint(c.node_of("vm"), {"key": "k", "effect": "NoExecute"})
        await c.until(lambda: "deletionTimestamp" in c.pod("vm")["metadata"], within_s=1)
        c.set_vmi_phase(c.vmi("vm"), "Succeeded")  # kubevirt#9823
        await c.until(lambda: c.vmi("vm") is None, within_s=5)
        await c.never(lambda: c.vmi("vm") is not None, for_s=120)

    simulate(story)


def test_a_halted_vm_gets_no_instance_and_loses_the_one_it_has(simulate):
    async def story(c):
        await running(c, "Always")
        c.store.mutate(
            VIRTUAL_MACHINES, "default", "vm", lambda vm: vm["spec"].update(runStrategy="Halted")
        )
        await c.until(lambda: c.vmi("vm") is None, within_s=10)
        await c.never(lambda: c.vmi("vm") is not None, for_s=60)

    simulate(story)


def test_the_older_running_field_means_always_or_halted():
    vm = {"spec": {"running": True}}
    assert choose(vm, None) == Choice(Step.START, backs_off=True)
    vm = {"spec": {"running": False}}
    assert choose(vm, None) == Choice(Step.NOTHING)


def test_deleting_the_vmi_of_a_dead_node_hangs_until_its_pod_object_goes(simulate, dead_node):
    async def story(c):
        node = await dead_node(c)
        uid = c.vmi_uid("vm")
        c.store.delete(VIRTUAL_MACHINE_INSTANCES, "default", "vm")
        await c.until(lambda: "deletionTimestamp" in c.pod("vm")["metadata"], within_s=1)
        assert c.pod("vm")["metadata"]["deletionGracePeriodSeconds"] == 60
        await c.never(lambda: c.phase("vm") != "Running" or c.vmi_uid("vm") != uid, for_s=300)
        assert len(c.vmi("vm")["metadata"]["finalizers"]) == 2
        assert c.vm("vm")["status"]["printableStatus"] == "Stopping"
        c.cordon(node)
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=0.7)

    simulate(story)


def test_a_vm_that_is_deleted_takes_its_instance_and_pod_with_it(simulate):
    async def story(c):
        await running(c, "Always")
        c.store.delete(VIRTUAL_MACHINES, "default", "vm")
        await c.until(lambda: c.store.find(VIRTUAL_MACHINES, "default", "vm") is None, within_s=10)
        assert c.vmi("vm") is None
        assert c.pods("vm") == []

    simulate(story)


def test_instances_that_never_ran_are_started_again_at_growing_intervals(simulate):
    async def story(c):
        c.add_vm("vm", spec={"nodeSelector": {"no": "such-node"}})
        starts = []
        for _ in range(4):
            await c.until(lambda: c.pods("vm"), within_s=400)
            starts.append(c.now())
            await asyncio.sleep(0.2)
            c.force_delete(c.pod("vm"))
            await c.until(lambda: c.vmi("vm") is None, within_s=1)
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        # 10 s * n², up to half of that more; a second each way for whole-second timestamps.
        for n, gap in enumerate(gaps, start=1):
            assert 10 * n**2 - 1 <= gap <= 15 * n**2 + 2, gaps
        assert c.vm("vm")["status"]["startFailure"]["consecutiveFailCount"] == 4
        assert c.vm("vm")["status"]["printableStatus"] == "CrashLoopBackOff"

    simulate(story)


def test_a_crash_loop_after_running_is_not_paced(simulate):
    async def story(c):
        await running(c, "Always")
        for _ in range(4):
            uid = c.vmi_uid("vm")
            c.force_delete(c.pod("vm"))
            await c.until(lambda uid=uid: c.vmi_uid("vm") not in ("", uid), within_s=0.6)
            await c.until(lambda: c.phase("vm") == "Running", within_s=6)
            assert "startFailure" not in c.vm("vm")["status"]

    simulate(story)


def test_the_start_back_off_is_capped():
    settings = ControlPlaneSettings()
    rng = random.Random(1)
    assert all(start_backoff_s(n, rng=rng, settings=settings) == 300 for n in range(6, 50))


def test_a_vm_without_disks_starts_and_restarts(simulate, dead_node):
    async def story(c):
        node = await dead_node(c, mode=None)
        c.cordon(node)
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.phase("vm") == "Running" and c.node_of("vm") != node, within_s=6)

    simulate(story)
