"""The VM subresources with their refusals, and what virt-api lets nobody change."""

from __future__ import annotations

import asyncio

import pytest

from remediator.sim.problems import Problem
from remediator.sim.resources import (
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)


def call(c, verb, body=None):
    """Ask for a subresource of the VM; return (status, message of a refusal)."""
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/vm/{verb}"
    return c.ask("PUT", path, body)


async def running(c, strategy="Always", **vm):
    c.add_vm("vm", strategy=strategy, **vm)
    if strategy in ("Manual", "Halted"):
        await asyncio.sleep(1)
        call(c, "start")
    await c.until(lambda: c.phase("vm") == "Running", within_s=30)
    return c.vmi_uid("vm")


@pytest.mark.parametrize(
    ("strategy", "verb", "why"),
    [
        ("Always", "start", "already running"),
        ("Manual", "start", "already running"),
        ("Once", "restart", "does not support manual restart requests"),
    ],
)
def test_what_a_running_vm_refuses(simulate, strategy, verb, why):
    async def story(c):
        await running(c, strategy)
        status, message = call(c, verb)
        assert status == 409
        assert why in message

    simulate(story)


@pytest.mark.parametrize(
    ("strategy", "verb", "why"),
    [
        ("Halted", "stop", "VM is not running"),
        ("Halted", "restart", "does not support manual restart requests"),
        ("Manual", "stop", "VM is not running"),
        ("Manual", "restart", "VM is not running"),
        ("Manual", "migrate", "VM is not running"),
    ],
)
def test_what_a_stopped_vm_refuses(simulate, strategy, verb, why):
    async def story(c):
        c.add_vm("vm", strategy=strategy)
        await asyncio.sleep(1)
        status, message = call(c, verb)
        assert status == 409
        assert why in message

    simulate(story)


def test_rerun_on_failure_refuses_a_start_while_its_failed_instance_exists(simulate):
    async def story(c):
        await running(c, "RerunOnFailure")
        c.set_vmi_phase(c.vmi("vm"), "Failed")
        status, message = call(c, "start")
        assert status == 409
        assert "does not support starting VM from failed state" in message

    simulate(story)


@pytest.mark.parametrize("strategy", ["Always", "Once"])
def test_stopping_sets_halted_where_the_strategy_would_start_it_again(simulate, strategy):
    async def story(c):
        await running(c, strategy)
        assert call(c, "stop") == (202, "")
        assert c.vm("vm")["spec"]["runStrategy"] == "Halted"
        await c.until(lambda: c.vmi("vm") is None, within_s=10)
        assert call(c, "start") == (202, "")
        assert c.vm("vm")["spec"]["runStrategy"] == "Always"
        await c.until(lambda: c.phase("vm") == "Running", within_s=10)

    simulate(story)


@pytest.mark.parametrize("strategy", ["Manual", "RerunOnFailure"])
def test_stopping_keeps_the_strategy_where_requests_rule_and_a_start_brings_it_back(
    simulate, strategy
):
    async def story(c):
        await running(c, strategy)
        call(c, "stop")
        # The guest shuts down cleanly.
        await asyncio.sleep(0.5)
        c.set_vmi_phase(c.vmi("vm"), "Succeeded")
        await c.until(lambda: c.vmi("vm") is None, within_s=10)
        await c.never(lambda: c.vmi("vm") is not None, for_s=60)
        assert c.vm("vm")["spec"]["runStrategy"] == strategy
        call(c, "start")
        await c.until(lambda: c.phase("vm") == "Running", within_s=10)

    simulate(story)


@pytest.mark.parametrize("strategy", ["Always", "Manual", "RerunOnFailure"])
def test_a_restart_replaces_the_instance(simulate, strategy):
    async def story(c):
        uid = await running(c, strategy)
        assert call(c, "restart") == (202, "")
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=10)
        await c.until(lambda: c.phase("vm") == "Running", within_s=10)
        await asyncio.sleep(5)
        assert not c.vm("vm")["status"].get("stateChangeRequests")

    simulate(story)


def test_a_restart_with_grace_0_sets_1_and_forces_nothing_on_a_dead_node(simulate, dead_node):
    async def story(c):
        await dead_node(c)
        uid = c.vmi_uid("vm")
        call(c, "restart", body={"gracePeriodSeconds": 0})
        await asyncio.sleep(1)
        assert c.vmi("vm")["spec"]["terminationGracePeriodSeconds"] == 1
        assert "deletionTimestamp" in c.vmi("vm")["metadata"]
        await c.never(lambda: c.vmi_uid("vm") != uid, for_s=300)

    simulate(story)


@pytest.mark.parametrize("grace_s", [5, -1])
def test_a_restart_knows_no_other_grace_than_0(simulate, grace_s):
    async def story(c):
        await running(c)
        assert call(c, "restart", body={"gracePeriodSeconds": grace_s})[0] == 400

    simulate(story)


def test_a_manual_vm_whose_instance_failed_is_started_again_on_request(simulate):
    async def story(c):
        uid = await running(c, "Manual")
        c.cordon(c.node_of("vm"))
        c.force_delete(c.pod("vm"))
        await asyncio.sleep(5)
        assert c.phase("vm") == "Failed"
        call(c, "start")
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=2)
        await c.until(lambda: c.phase("vm") == "Running", within_s=6)

    simulate(story)


def test_nobody_but_kubevirt_writes_a_vmi_status(simulate):
    async def story(c):
        await running(c)

        def fail(vmi):
            vmi["status"]["phase"] = "Failed"
            vmi["metadata"].setdefault("annotations", {})["mine"] = "kept"

        c.store.mutate(VIRTUAL_MACHINE_INSTANCES, "default", "vm", fail, user="remediator")
        assert c.phase("vm") == "Running"
        assert c.vmi("vm")["metadata"]["annotations"]["mine"] == "kept"
        for change in (
            lambda vmi: vmi["metadata"]["labels"].update({"kubevirt.io/nodeName": "n9"}),
            lambda vmi: vmi["spec"].update(hostname="other"),
        ):
            with pytest.raises(Problem) as refused:
                c.store.mutate(
                    VIRTUAL_MACHINE_INSTANCES, "default", "vm", change, user="remediator"
                )
            assert refused.value.status == 422
        c.store.mutate(
            VIRTUAL_MACHINE_INSTANCES,
            "default",
            "vm",
            lambda vmi: vmi["status"].update(guestOSInfo={"name": "x"}),
            user=c.node_of("vm"),  # its virt-handler may
        )
        assert c.vmi("vm")["status"]["guestOSInfo"] == {"name": "x"}

    simulate(story)


def test_an_instance_of_nobody_is_brought_back_by_nobody(simulate):
    async def story(c):
        c.store.create(
            VIRTUAL_MACHINE_INSTANCES,
            {"metadata": {"name": "alone", "namespace": "default"}, "spec": {"domain": {}}},
            user="someone",
        )
        await c.until(lambda: c.phase("alone") == "Running", within_s=10)
        c.force_delete(c.pod("alone"))
        await c.until(lambda: c.phase("alone") == "Failed", within_s=1)
        await c.never(lambda: c.phase("alone") != "Failed", for_s=60)
        c.store.delete(VIRTUAL_MACHINE_INSTANCES, "default", "alone")
        await c.until(lambda: c.vmi("alone") is None, within_s=1)

    simulate(story)


def evict(c):
    """Ask for the eviction of the VM's launcher pod."""
    name = c.pod("vm")["metadata"]["name"]
    path = f"/api/v1/namespaces/default/pods/{name}/eviction"
    return c.ask("POST", path, {"apiVersion": "policy/v1", "kind": "Eviction"})


def set_migratable(c, status):
    def change(vmi):
        vmi["status"]["conditions"].append(
            {"type": "LiveMigratable", "status": status, "reason": "DisksNotLiveMigratable"}
        )

    c.store.mutate(VIRTUAL_MACHINE_INSTANCES, "default", "vm", change)


@pytest.mark.parametrize(
    ("strategy", "migratable", "why"),
    [
        ("LiveMigrate", "True", 'Eviction triggered evacuation of VMI "default/vm"'),
        ("LiveMigrateIfPossible", "True", 'Eviction triggered evacuation of VMI "default/vm"'),
        ("LiveMigrate", "False", "configured with an eviction strategy but is not live-migratable"),
    ],
)
def test_evictions_of_launcher_pods_are_refused_with_two_meanings(
    simulate, strategy, migratable, why
):
    async def story(c):
        await running(c, spec={"evictionStrategy": strategy})
        set_migratable(c, migratable)
        status, message = evict(c)
        assert status == 429
        assert why in message
        await asyncio.sleep(1)
        migrations = c.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS)
        if migratable == "True":
            assert [m["spec"]["priority"] for m in migrations] == ["system-critical"]
            assert migrations[0]["metadata"]["name"].startswith("kubevirt-evacuation-")
        else:
            assert migrations == []

    simulate(story)


@pytest.mark.parametrize("strategy", ["None", "LiveMigrateIfPossible"])
def test_an_eviction_kills_a_vm_that_need_not_or_cannot_migrate(simulate, strategy):
    async def story(c):
        await running(c, spec={"evictionStrategy": strategy})
        set_migratable(c, "False")
        assert evict(c)[0] == 201
        assert "deletionTimestamp" in c.pod("vm")["metadata"]

    simulate(story)
