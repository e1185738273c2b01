"""A node loses power: what Kubernetes and KubeVirt do about its VMs (lab sections 0 and 1)."""

from __future__ import annotations

import asyncio

import pytest

from remediator.sim.resources import LEASES, NODES, VOLUME_ATTACHMENTS

OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}


def test_nothing_brings_a_vm_back_for_15_minutes(simulate, dead_node):
    async def story(c):
        node = await dead_node(c)
        lost_at = c.now()
        took_s = await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        assert 40 <= took_s <= 55
        await c.until(lambda: ("unreachable", "NoExecute") in c.taints(node), within_s=0.5)
        await c.until(lambda: ("unreachable", "NoSchedule") in c.taints(node), within_s=0.5)
        await c.until(lambda: "deletionTimestamp" in c.pod("vm")["metadata"], within_s=320)
        assert 340 <= c.now() - lost_at <= 356
        uid = c.vmi_uid("vm")
        await c.never(lambda: c.phase("vm") != "Running", for_s=900 - (c.now() - lost_at))
        assert c.vmi_uid("vm") == uid
        assert c.node_of("vm") == node
        ready = next(x for x in c.vmi("vm")["status"]["conditions"] if x["type"] == "Ready")
        assert ready["status"] == "False"

    simulate(story)


def test_the_vmi_of_a_node_not_ready_is_not_ready_without_a_reason(simulate, dead_node):
    async def story(c):
        node = await dead_node(c)
        await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        await asyncio.sleep(1)
        ready = next(x for x in c.vmi("vm")["status"]["conditions"] if x["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "")
        assert c.phase("vm") == "Running"

    simulate(story)


@pytest.mark.parametrize("mode", ["ReadWriteMany", "ReadWriteOnce"])
def test_out_of_service_taint_at_not_ready_frees_the_vm_within_one_gc_period(
    simulate, dead_node, mode
):
    async def story(c):
        node = await dead_node(c, mode=mode)
        await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        first = c.pod("vm")["metadata"]["uid"]
        c.taint(node, OUT_OF_SERVICE)
        await c.until(lambda: "deletionTimestamp" in c.pod("vm")["metadata"], within_s=1)
        await c.until(
            lambda: first not in {p["metadata"]["uid"] for p in c.pods("vm")}, within_s=21
        )
        await c.until(lambda: c.phase("vm") == "Running" and c.node_of("vm") != node, within_s=6)

    simulate(story)


def test_out_of_service_taint_alone_does_not_free_pods_while_the_node_counts_as_ready(
    simulate, dead_node
):
    async def story(c):
        node = await dead_node(c)
        c.taint(node, OUT_OF_SERVICE)
        await c.until(lambda: "deletionTimestamp" in c.pod("vm")["metadata"], within_s=1)
        uid = c.vmi_uid("vm")
        while c.ready(node) == "True":
            assert c.vmi_uid("vm") == uid
            await asyncio.sleep(0.5)
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=22)

    simulate(story)


@pytest.mark.parametrize("seed", range(5))
def test_a_force_deleted_pod_puts_a_new_vmi_in_place_within_600_ms(simulate, dead_node, seed):
    async def story(c):
        node = await dead_node(c)
        c.cordon(node)
        uid = c.vmi_uid("vm")
        c.force_delete(c.pod("vm"))
        assert await c.until(lambda: c.phase("vm") == "Failed", within_s=0.06) > 0
        took_s = await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=0.6)
        assert took_s >= 0.03
        await c.until(lambda: c.pods("vm") and c.pod("vm")["spec"].get("nodeName"), within_s=0.35)
        assert c.pod("vm")["spec"]["nodeName"] != node
        await c.until(lambda: c.phase("vm") == "Running", within_s=5)

    simulate(story, seed=seed)


@pytest.mark.parametrize("mode", ["ReadWriteMany", "ReadWriteOnce"])
def test_taint_then_force_delete_runs_elsewhere_in_6_s_with_the_node_still_ready(
    simulate, dead_node, mode
):
    async def story(c):
        node = await dead_node(c, mode=mode)
        c.taint(node, OUT_OF_SERVICE)
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.phase("vm") == "Running" and c.node_of("vm") != node, within_s=6)
        assert c.ready(node) == "True"
        assert c.attachments("pv-vm") == {c.node_of("vm"): True}

    simulate(story)


def test_force_delete_without_any_taint_goes_back_to_the_dead_node_and_stays_there(
    simulate, dead_node
):
    async def story(c):
        for name in list(c.hosts)[1:]:  # every other node is fuller than the dead one
            c.add_vm(f"load-{name}", spec={"nodeSelector": {"kubernetes.io/hostname": name}})
        node = await dead_node(c, spec={"domain": {"cpu": {"cores": 1}}})
        assert node == "n0"
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.pods("vm") and c.pod("vm")["spec"].get("nodeName"), within_s=2)
        assert c.pod("vm")["spec"]["nodeName"] == node
        await c.never(lambda: c.phase("vm") != "Scheduling", for_s=38)

    simulate(story)


def test_rwo_without_out_of_service_taint_waits_6_minutes_for_its_volume(simulate, dead_node):
    async def story(c):
        node = await dead_node(c, mode="ReadWriteOnce")
        await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        c.force_delete(c.pod("vm"))
        deleted_at = c.now()
        await c.until(lambda: c.warnings("FailedAttachVolume"), within_s=2)
        assert "Multi-Attach error" in c.warnings("FailedAttachVolume")[0]
        await c.until(lambda: c.phase("vm") == "Running" and c.node_of("vm") != node, within_s=380)
        assert 360 <= c.now() - deleted_at <= 368
        assert c.node_of("vm") != node

    simulate(story)


def test_a_healthy_node_that_keeps_a_volume_in_use_is_waited_for_without_end(simulate):
    async def story(c):
        c.add_vm("vm", mode="ReadWriteOnce")
        await c.until(lambda: c.phase("vm") == "Running", within_s=30)
        node = c.node_of("vm")
        c.hosts[node].unmounts = False
        c.cordon(node)
        c.force_delete(c.pod("vm"))
        await asyncio.sleep(2)
        await c.never(lambda: c.phase("vm") != "Scheduling", for_s=1000)
        c.taint(node, OUT_OF_SERVICE)  # asks neither for Ready nor for the unmount
        await c.until(lambda: c.phase("vm") == "Running", within_s=6)

    simulate(story)


def test_an_attachment_deleted_by_hand_is_noticed_only_at_the_next_verification(
    simulate, dead_node
):
    async def story(c):
        node = await dead_node(c, mode="ReadWriteOnce")
        await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        await asyncio.sleep(10)
        attachment = c.store.list(VOLUME_ATTACHMENTS)[0]["metadata"]["name"]
        c.store.delete(VOLUME_ATTACHMENTS, "", attachment)
        await c.until(lambda: c.attachments("pv-vm") == {}, within_s=1)
        c.force_delete(c.pod("vm"))
        took_s = await c.until(lambda: c.attachments("pv-vm"), within_s=61)
        assert took_s > 2
        await c.until(lambda: c.phase("vm") == "Running" and c.node_of("vm") != node, within_s=6)

    simulate(story)


def test_rwx_without_out_of_service_taint_starts_elsewhere_at_once(simulate, dead_node):
    async def story(c):
        node = await dead_node(c, mode="ReadWriteMany")
        await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.phase("vm") == "Running" and c.node_of("vm") != node, within_s=6)

    simulate(story)


@pytest.mark.parametrize(("mode", "most_s"), [("ReadWriteMany", 70), ("ReadWriteOnce", 430)])
def test_deleting_the_node_frees_pods_after_the_quarantine_and_rwo_6_minutes_later(
    simulate, dead_node, mode, most_s
):
    async def story(c):
        node = await dead_node(c, mode=mode)
        await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        first = c.pod("vm")["metadata"]["uid"]
        c.store.delete(NODES, "", node)
        gone_s = await c.until(
            lambda: first not in {p["metadata"]["uid"] for p in c.pods("vm")}, within_s=61
        )
        assert 40 <= gone_s <= 60.1
        took_s = await c.until(
            lambda: c.phase("vm") == "Running" and c.node_of("vm") != node,
            within_s=most_s - gone_s + 8,
        )
        if mode == "ReadWriteOnce":
            assert took_s >= 360
        assert c.store.find(LEASES, "kube-node-lease", node) is None

    simulate(story)


def test_a_reboot_within_the_tolerations_is_itself_a_remediation(simulate, dead_node):
    async def story(c):
        node = await dead_node(c, mode="ReadWriteOnce")
        uid = c.vmi_uid("vm")
        c.hosts[node].power_on(boot_s=5.0)
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=6)
        await c.until(lambda: c.phase("vm") == "Running", within_s=8)
        assert c.vmi_uid("vm") != uid

    simulate(story)


def test_a_node_that_comes_back_loses_its_taints_within_a_monitor_period(simulate, dead_node):
    async def story(c):
        node = await dead_node(c)
        await c.until(lambda: ("unreachable", "NoExecute") in c.taints(node), within_s=60)
        c.taint(node, OUT_OF_SERVICE)
        c.hosts[node].power_on(boot_s=1.0)
        await c.until(lambda: c.taints(node) == {("out-of-service", "NoExecute")}, within_s=20)
        await asyncio.sleep(60)
        assert c.taints(node) == {("out-of-service", "NoExecute")}, "Kubernetes never removes it"

    simulate(story)


def test_virt_controller_marks_a_silent_node_unschedulable_after_5_min_and_fails_nothing(
    simulate, dead_node
):
    async def story(c):
        node = await dead_node(c)
        lost_at = c.now()

        def schedulable():
            return c.store.get(NODES, "", node)["metadata"]["labels"]["kubevirt.io/schedulable"]

        await c.until(lambda: schedulable() == "false", within_s=370)
        assert c.now() - lost_at >= 300 - 132
        assert c.warnings("NodeUnresponsive")
        assert c.phase("vm") == "Running"

    simulate(story)
