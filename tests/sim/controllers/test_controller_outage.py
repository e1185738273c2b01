"""While the API server is down no controller acts; afterwards they catch up."""

from __future__ import annotations

import asyncio

import pytest

OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        (lambda f: f.hang(), lambda f: f.clear()),
        (lambda f: f.reset(), lambda f: f.clear()),
        (lambda f: f.unavailable_html(), lambda f: f.clear()),
        (lambda f: f.partition("control-plane"), lambda f: f.heal("control-plane")),
    ],
    ids=["hang", "reset", "html-503", "partition"],
)
def test_a_force_deleted_pod_is_noticed_only_after_the_outage(simulate, fault, mend):
    async def story(c):
        c.add_vm("vm")
        await c.until(lambda: c.phase("vm") == "Running", within_s=30)
        uid = c.vmi_uid("vm")
        fault(c.faults)
        c.force_delete(c.pod("vm"))
        await c.never(lambda: c.phase("vm") != "Running", for_s=60)
        mend(c.faults)
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=1)

    simulate(story)


def test_five_minutes_without_api_make_no_node_not_ready(simulate):
    async def story(c):
        c.add_vm("vm")
        await c.until(lambda: c.phase("vm") == "Running", within_s=30)
        uid = c.vmi_uid("vm")
        c.faults.hang()
        for host in c.hosts.values():
            host.alive = False  # nobody's lease gets through
        await asyncio.sleep(300)
        for host in c.hosts.values():
            host.alive = True
        c.faults.clear()
        await c.never(
            lambda: any(c.ready(n) != "True" for n in c.hosts) or c.taints("n0"), for_s=120
        )
        assert c.vmi_uid("vm") == uid

    simulate(story)


def test_a_short_hiccup_does_not_start_the_grace_of_a_dead_node_again(simulate, dead_node):
    async def story(c):
        node = await dead_node(c)
        lost_at = c.now()
        await asyncio.sleep(20)
        c.faults.hang()
        await asyncio.sleep(5)
        c.faults.clear()
        await c.until(lambda: c.ready(node) == "Unknown", within_s=40)
        assert c.now() - lost_at <= 56

    simulate(story)


def test_a_long_outage_starts_the_grace_of_a_dead_node_again(simulate, dead_node):
    async def story(c):
        node = await dead_node(c)
        await asyncio.sleep(20)
        c.faults.hang()
        await asyncio.sleep(60)
        c.faults.clear()
        took_s = await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        assert took_s >= 50

    simulate(story)


def test_a_long_outage_starts_the_wait_for_an_unmount_again(simulate, dead_node):
    async def story(c):
        node = await dead_node(c, mode="ReadWriteOnce")
        await c.until(lambda: c.ready(node) == "Unknown", within_s=60)
        c.force_delete(c.pod("vm"))
        await asyncio.sleep(200)
        c.faults.hang()
        await asyncio.sleep(60)
        c.faults.clear()
        took_s = await c.until(
            lambda: c.phase("vm") == "Running" and c.node_of("vm") != node, within_s=380
        )
        assert took_s >= 360

    simulate(story)
