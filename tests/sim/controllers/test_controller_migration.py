"""Live migration: its phases, its end, and what becomes of it when the source dies."""

from __future__ import annotations

import asyncio

import pytest

from remediator.sim.controllers import ControlPlaneSettings
from remediator.sim.problems import Problem
from remediator.sim.resources import (
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)
from remediator.sim.timestamps import rfc3339


async def migrating(c, name="vm", until="TargetReady", **vm):
    """Start a VM and a migration of it, both handlers doing their part up to a phase."""
    c.add_vm(name, **vm)
    await c.until(lambda: c.phase(name) == "Running", within_s=30)
    migration = request(c, name)
    if until is not None:
        await c.until(lambda: state(c, name).get("targetNode"), within_s=10)
        tell(c, name, targetNodeAddress="10.0.0.2")
        await c.until(lambda: phase(c, migration) == until, within_s=5)
    return migration


def request(c, name, user="someone"):
    made = c.store.create(
        VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
        {
            "metadata": {"generateName": "m-", "namespace": "default"},
            "spec": {"vmiName": name},
        },
        user=user,
    )
    return made["metadata"]["name"]


def phase(c, migration):
    found = c.migration(migration)
    return "" if found is None else (found.get("status") or {}).get("phase", "")


def state(c, name):
    return c.vmi(name)["status"].get("migrationState") or {}


def tell(c, name, **values):
    c.store.mutate(
        VIRTUAL_MACHINE_INSTANCES,
        "default",
        name,
        lambda vmi: vmi["status"]["migrationState"].update(values),
    )


def target_of(c, name):
    return next(p for p in c.pods(name) if "kubevirt.io/migrationJobUID" in p["metadata"]["labels"])


def test_a_migration_moves_the_vmi_without_a_new_uid(simulate):
    async def story(c):
        migration = await migrating(c)
        uid, source = c.vmi_uid("vm"), c.node_of("vm")
        labels = c.vmi("vm")["metadata"]["labels"]
        target = state(c, "vm")["targetNode"]
        assert target != source
        assert labels["kubevirt.io/migrationTargetNodeName"] == target
        tell(c, "vm", startTimestamp=rfc3339(c.clock.now()))
        await c.until(lambda: phase(c, migration) == "Running", within_s=1)
        assert (
            await c.until(
                lambda: c.vm("vm")["status"]["printableStatus"] == "Migrating", within_s=1
            )
            < 1
        )
        tell(c, "vm", completed=True, endTimestamp=rfc3339(c.clock.now()))
        await asyncio.sleep(1)
        assert phase(c, migration) == "Running", "the target has not taken over yet"

        def take_over(vmi):
            vmi["status"]["nodeName"] = target
            vmi["metadata"]["labels"]["kubevirt.io/nodeName"] = target

        c.store.mutate(VIRTUAL_MACHINE_INSTANCES, "default", "vm", take_over)
        await c.until(lambda: phase(c, migration) == "Succeeded", within_s=1)
        source_pod = next(p for p in c.pods("vm") if p["spec"]["nodeName"] == source)
        c.force_delete(source_pod)  # it no longer counts
        await c.never(lambda: c.phase("vm") != "Running", for_s=30)
        assert c.vmi_uid("vm") == uid

    simulate(story)


def test_the_source_dies_and_the_target_pod_ends_the_migration_fails_and_nothing_restarts(
    simulate,
):
    async def story(c):
        migration = await migrating(c)
        uid, source = c.vmi_uid("vm"), c.node_of("vm")
        tell(c, "vm", startTimestamp=rfc3339(c.clock.now()))
        c.hosts[source].power_off()
        name = target_of(c, "vm")["metadata"]["name"]
        c.store.mutate(
            PODS,
            "default",
            name,
            lambda p: p["status"].update(phase="Failed"),
            subresource="status",
        )
        assert await c.until(lambda: phase(c, migration) == "Failed", within_s=0.2) <= 0.2
        await asyncio.sleep(1)
        assert state(c, "vm")["failureReason"] == "Target pod is down"
        await c.never(lambda: c.phase("vm") != "Running" or c.vmi_uid("vm") != uid, for_s=30)

    simulate(story)


def test_force_deleting_the_source_pod_fails_the_migration_and_restarts_the_vm(simulate):
    async def story(c):
        migration = await migrating(c)
        uid, source = c.vmi_uid("vm"), c.node_of("vm")
        c.hosts[source].power_off()
        c.cordon(source)
        c.force_delete(next(p for p in c.pods("vm") if p["spec"]["nodeName"] == source))
        await c.until(lambda: phase(c, migration) in ("Failed", ""), within_s=0.2)
        # The target's kubelet takes 2 s to end its pod; only then do the finalizers fall.
        took_s = await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=4)
        assert took_s > 1.5
        await c.until(lambda: c.phase("vm") == "Running", within_s=10)
        assert c.node_of("vm") != source
        await c.until(lambda: c.migration(migration) is None, within_s=1)

    simulate(story)


def test_a_new_instance_gets_no_pod_while_a_migration_of_the_old_one_has_not_ended(simulate):
    async def story(c):
        c.add_vm("vm")
        await c.until(lambda: c.phase("vm") == "Running", within_s=30)
        uid = c.vmi_uid("vm")
        migration = request(c, "vm")
        c.force_delete(c.pod("vm"))
        await c.until(lambda: c.vmi_uid("vm") not in ("", uid), within_s=0.7)
        waited_s = 0.0
        while phase(c, migration) != "Failed":
            assert c.pods("vm") == []
            assert waited_s < 10
            await asyncio.sleep(0.01)
            waited_s += 0.01
        assert waited_s > 1
        await c.until(lambda: c.pods("vm"), within_s=0.2)

    simulate(story, settings=ControlPlaneSettings(migration_latency_s=(3.0, 3.0)))


def test_a_migration_whose_source_handler_is_silent_parks_in_target_ready(simulate):
    async def story(c):
        migration = await migrating(c)
        await c.never(lambda: phase(c, migration) != "TargetReady", for_s=600)
        assert c.phase("vm") == "Running"

    simulate(story)


def test_a_deleted_migration_that_was_not_handed_over_leaves_no_target_pod(simulate):
    async def story(c):
        migration = await migrating(c, until=None)
        await c.until(lambda: len(c.pods("vm")) == 2, within_s=2)
        c.store.delete(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default", migration)
        await c.until(lambda: c.migration(migration) is None, within_s=1)
        await c.until(lambda: len(c.pods("vm")) == 1, within_s=5)
        assert c.phase("vm") == "Running"

    simulate(story)


def test_a_target_that_fits_nowhere_is_given_up_after_5_minutes(simulate):
    async def story(c):
        migration = await migrating(c, until=None)
        await c.until(lambda: phase(c, migration) == "Scheduling", within_s=1)
        took_s = await c.until(lambda: phase(c, migration) == "Failed", within_s=320)
        assert took_s >= 295
        assert c.phase("vm") == "Running"

    simulate(story, nodes=1)


def test_no_more_than_two_migrations_leave_one_node_at_once(simulate):
    async def story(c):
        for name in ("a", "b", "c"):
            c.add_vm(name, spec={"nodeSelector": {"kubernetes.io/hostname": "n0"}})
        await c.until(lambda: all(c.phase(n) == "Running" for n in "abc"), within_s=30)
        requested = {n: request(c, n) for n in "abc"}
        await asyncio.sleep(20)
        phases = sorted(phase(c, m) for m in requested.values())
        assert phases == ["Pending", "Scheduling", "Scheduling"]

    simulate(story)


@pytest.mark.parametrize("case", ["missing", "rwo", "twice", "priority"])
def test_admission_refuses_migrations_that_cannot_be(simulate, case):
    async def story(c):
        c.add_vm("vm")
        await c.until(lambda: c.phase("vm") == "Running", within_s=30)
        spec = {"vmiName": "vm"}
        if case == "missing":
            spec["vmiName"] = "other"
        elif case == "priority":
            spec["priority"] = "system-critical"
        elif case == "twice":
            request(c, "vm")
        else:
            condition = {
                "type": "LiveMigratable",
                "status": "False",
                "reason": "DisksNotLiveMigratable",
                "lastTransitionTime": rfc3339(c.clock.now()),
            }
            c.store.mutate(
                VIRTUAL_MACHINE_INSTANCES,
                "default",
                "vm",
                lambda vmi: vmi["status"]["conditions"].append(condition),
            )
        with pytest.raises(Problem) as refused:
            c.store.create(
                VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
                {"metadata": {"name": "m", "namespace": "default"}, "spec": spec},
                user="someone",
            )
        assert refused.value.status == 400
        assert case != "rwo" or "DisksNotLiveMigratable" in refused.value.message

    simulate(story)
