"""What an eviction of a launcher pod is answered, and how an evacuation is taken back."""

from __future__ import annotations

import asyncio

import pytest

from remediator.sim.apiserver import SubresourceCall
from remediator.sim.controllers.eviction import _cancel, _evict
from remediator.sim.problems import Problem
from remediator.sim.resources import (
    POD_DISRUPTION_BUDGETS,
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)


def call(c, res, name, *, body=None, dry=False):
    query = {"dryRun": "All"} if dry else {}
    return SubresourceCall(
        store=c.store,
        res=res,
        namespace="default",
        name=name,
        verb="eviction",
        method="POST",
        query=query,
        body=body or {},
        user="someone",
    )


def evict(c, name, *, dry=False):
    return _evict(call(c, PODS, c.pod(name)["metadata"]["name"], dry=dry))


def strategy(c, name, value):
    c.store.mutate(
        VIRTUAL_MACHINE_INSTANCES,
        "default",
        name,
        lambda vmi: vmi["spec"].update(evictionStrategy=value),
    )
    c.store.mutate(
        VIRTUAL_MACHINE_INSTANCES,
        "default",
        name,
        lambda vmi: vmi["status"].update(conditions=[{"type": "LiveMigratable", "status": "True"}]),
        subresource="status",
    )


def evacuating(c, name):
    return c.vmi(name)["status"].get("evacuationNodeName")


async def running(c, name="vm", value="LiveMigrate"):
    c.add_vm(name)
    await c.until(lambda: c.phase(name) == "Running", within_s=30)
    strategy(c, name, value)


def budget(c, allowed):
    c.store.create(
        POD_DISRUPTION_BUDGETS,
        {
            "metadata": {"name": "b", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"kubevirt.io": "virt-launcher"}}},
        },
    )
    c.store.mutate(
        POD_DISRUPTION_BUDGETS,
        "default",
        "b",
        lambda obj: obj.update(status={"disruptionsAllowed": allowed}),
        subresource="status",
    )


def test_a_dry_run_is_answered_alike_and_changes_nothing(simulate):
    async def story(c):
        await running(c)
        with pytest.raises(Problem, match="triggered evacuation of VMI") as refused:
            evict(c, "vm", dry=True)
        assert refused.value.status == 429
        assert evacuating(c, "vm") is None
        strategy(c, "vm", "None")
        code, _ = evict(c, "vm", dry=True)
        assert code == 201
        assert "deletionTimestamp" not in c.pod("vm")["metadata"]

    simulate(story)


def test_without_an_eviction_strategy_the_vm_is_stopped(simulate):
    async def story(c):
        await running(c, value="None")
        evict(c, "vm")
        assert "deletionTimestamp" in c.pod("vm")["metadata"]

    simulate(story)


@pytest.mark.parametrize(("allowed", "granted"), [(0, False), (1, True)])
def test_a_budget_answers_429_in_words_of_its_own(simulate, allowed, granted):
    async def story(c):
        await running(c, value="None")
        budget(c, allowed)
        if granted:
            assert evict(c, "vm", dry=True)[0] == 201
            return
        with pytest.raises(Problem, match="disruption budget") as refused:
            evict(c, "vm", dry=True)
        assert refused.value.status == 429

    simulate(story)


def test_an_evacuation_that_is_taken_back_is_not_begun_anew(simulate):
    async def story(c):
        await running(c)
        with pytest.raises(Problem):
            evict(c, "vm")
        node = evacuating(c, "vm")
        await c.until(
            lambda: c.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default"), within_s=5
        )
        body = {"evacuationNodeName": node}
        assert _cancel(call(c, VIRTUAL_MACHINE_INSTANCES, "vm", body=body))[0] == 202
        assert evacuating(c, "vm") is None
        (made,) = c.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default")
        meta = made["metadata"]
        c.store.delete(
            VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default", meta["name"], uid=meta["uid"]
        )
        await asyncio.sleep(60)
        assert c.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default") == []
        assert c.phase("vm") == "Running"

    simulate(story)


def test_taking_back_names_the_node(simulate):
    async def story(c):
        await running(c)
        with pytest.raises(Problem) as refused:
            _cancel(call(c, VIRTUAL_MACHINE_INSTANCES, "vm"))
        assert refused.value.status == 400

    simulate(story)


def test_a_migration_whose_copy_never_begins_ends_when_it_is_deleted(simulate):
    async def story(c):
        await running(c)
        c.store.create(
            VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
            {
                "metadata": {"name": "m", "namespace": "default"},
                "spec": {"vmiName": "vm"},
            },
            user="someone",
        )

        def state():
            return c.vmi("vm")["status"].get("migrationState") or {}

        await c.until(lambda: state().get("targetNode"), within_s=10)
        c.store.mutate(
            VIRTUAL_MACHINE_INSTANCES,
            "default",
            "vm",
            lambda vmi: vmi["status"]["migrationState"].update(targetNodeAddress="10.0.0.2"),
        )
        await asyncio.sleep(60)
        (made,) = c.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default")
        assert made["status"]["phase"] == "TargetReady", "no virt-handler starts the copy"
        c.store.delete(
            VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default", "m", uid=made["metadata"]["uid"]
        )
        await c.until(
            lambda: not c.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, "default"), within_s=2
        )
        assert c.phase("vm") == "Running"

    simulate(story)
