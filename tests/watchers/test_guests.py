"""Facts that VM verdicts are made of: as KubeVirt and Kubernetes say them, and no flapping."""

from __future__ import annotations

import asyncio

import pytest

from remediator.engine.model import (
    FactKind,
    MigrationFacts,
    NodeFacts,
    PodFacts,
    VmFacts,
    VmiFacts,
)
from remediator.sim.resources import (
    NAMESPACES,
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)

NS = "payments"
RUNNING = {"phase": "Running", "nodeName": "n1"}


class Guests:
    """One VM, its VMI and its launcher pod, as a test wants them."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.store = cluster.store
        self.store.create(NAMESPACES, {"metadata": {"name": NS}})
        meta = {"name": "db", "namespace": NS}
        template = {"spec": {"domain": {"devices": {}}}}
        self.store.create(
            VIRTUAL_MACHINES,
            {"metadata": dict(meta), "spec": {"runStrategy": "Always", "template": template}},
        )
        self.store.create(
            VIRTUAL_MACHINE_INSTANCES,
            {"metadata": dict(meta), "spec": {"domain": {"devices": {}}}, "status": dict(RUNNING)},
        )
        owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "db"}
        self.store.create(
            PODS,
            {
                "metadata": {
                    "name": "virt-launcher-db-x",
                    "namespace": NS,
                    "labels": {"kubevirt.io": "virt-launcher"},
                    "ownerReferences": [{**owner, "uid": "u", "controller": True}],
                },
                "spec": {
                    "nodeName": "n1",
                    "containers": [{"name": "compute", "image": "x"}],
                },
            },
        )

    def vm(self, **status):
        def change(obj):
            obj["status"] = status

        self.store.mutate(VIRTUAL_MACHINES, NS, "db", change, subresource="status")

    def vmi(self, *conditions, **annotations):
        def change(obj):
            obj["metadata"]["annotations"] = annotations
            obj["status"] = {**RUNNING, "conditions": [cond(*each) for each in conditions]}

        self.store.mutate(VIRTUAL_MACHINE_INSTANCES, NS, "db", change)

    def pod(self, **status):
        def change(obj):
            obj["status"] = {"phase": "Running", **status}

        self.store.mutate(PODS, NS, "virt-launcher-db-x", change, subresource="status")

    async def told(self, kind):
        await asyncio.sleep(1)
        return self.cluster.published.facts(kind)


def cond(kind, status, reason=""):
    return {"type": kind, "status": status, "reason": reason}


@pytest.fixture
async def guests(cluster):
    guests = Guests(cluster)
    await cluster.start()
    cluster.published.clear()
    return guests


# --- VMs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("CrashLoopBackOff", "CrashLoopBackOff"),
        ("ErrorUnschedulable", "ErrorUnschedulable"),
        ("ErrImagePull", "ImagePullBackOff"),
    ],
)
async def test_a_vm_tells_its_status(guests, written, told):
    guests.vm(printableStatus=written)
    assert [facts.status for facts in await guests.told(VmFacts)] == [told]


async def test_trying_to_pull_an_image_again_and_again_is_one_status(guests):
    for status in ("ErrImagePull", "ImagePullBackOff") * 5:
        guests.vm(printableStatus=status)
    assert len(await guests.told(VmFacts)) == 1


# --- VMIs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("Ready", "True", ""), {"ready": True, "not_ready_why": ""}),
        (
            ("Ready", "False", "GuestNotRunning"),
            {"ready": False, "not_ready_why": "GuestNotRunning"},
        ),
        (("Ready", "Unknown", "X"), {"ready": False, "not_ready_why": "X"}),
        (("Paused", "True", "PausedIOError"), {"paused": "PausedIOError"}),
        (("Paused", "True", ""), {"paused": "Paused"}),
        (("Paused", "False", "PausedByUser"), {"paused": ""}),
        (("LiveMigratable", "True", ""), {"live_migratable": True, "not_migratable_why": ""}),
        (
            ("LiveMigratable", "False", "DisksNotLiveMigratable"),
            {"live_migratable": False, "not_migratable_why": "DisksNotLiveMigratable"},
        ),
        (("AgentConnected", "True", ""), {"agent_connected": True, "agent_known": True}),
        (("AgentConnected", "False", ""), {"agent_connected": False, "agent_known": True}),
    ],
)
async def test_a_vmi_tells_what_its_conditions_say(guests, condition, expected):
    guests.vmi(("Other", "True"), condition)
    await asyncio.sleep(1)
    facts = (await guests.told(VmiFacts) or [None])[-1]
    if facts is None:  # nothing that decides has changed
        facts = VmiFacts(namespace=NS, name="db", uid="")
    assert {name: getattr(facts, name) for name in expected} == expected


async def test_a_vmi_without_conditions_says_nothing_yet(cluster):
    guests = Guests(cluster)
    await cluster.start()
    (facts,) = await guests.told(VmiFacts)
    assert facts.live_migratable is None
    assert not facts.agent_known
    assert (facts.paused, facts.not_ready_why) == ("", "")


async def test_an_agent_whose_condition_is_taken_away_is_known_and_lost(guests):
    guests.vmi(("AgentConnected", "True"))
    await asyncio.sleep(1)
    guests.vmi()
    *_, lost = await guests.told(VmiFacts)
    assert (lost.agent_known, lost.agent_connected) == (True, False)


async def test_an_agent_that_a_follower_saw_is_known_to_it_as_leader(cluster):
    guests = Guests(cluster)
    guests.vmi(("AgentConnected", "True"))
    await cluster.start(lead=False)
    guests.vmi()
    await asyncio.sleep(1)
    cluster.watchers.lead()
    (lost,) = await guests.told(VmiFacts)
    assert (lost.agent_known, lost.agent_connected) == (True, False)


async def test_a_new_run_of_a_vm_begins_without_an_agent(guests):
    guests.vmi(("AgentConnected", "True"))
    await asyncio.sleep(1)
    guests.store.delete(VIRTUAL_MACHINE_INSTANCES, NS, "db")
    meta = {"name": "db", "namespace": NS}
    status = {"phase": "Scheduling"}
    guests.store.create(
        VIRTUAL_MACHINE_INSTANCES,
        {"metadata": meta, "spec": {"domain": {"devices": {}}}, "status": status},
    )
    *_, new = await guests.told(VmiFacts)
    assert (new.phase, new.agent_known) == ("Scheduling", False)


@pytest.mark.parametrize(
    ("value", "muted"), [("true", True), ("1", True), ("false", False), ("yes", False), ("", False)]
)
async def test_muted_probes_are_read_as_virt_launcher_reads_them(cluster, value, muted):
    guests = Guests(cluster)
    guests.vmi(**{"kubevirt.io/pause-guest-agent-probes": value})
    await cluster.start()
    (facts,) = await guests.told(VmiFacts)
    assert facts.probes_muted is muted


async def test_conditions_that_decide_nothing_are_not_told(guests):
    guests.vmi(("StorageLiveMigratable", "False", "X"), ("EvictionRequested", "False"))
    assert await guests.told(VmiFacts) == []


# --- launcher pods -------------------------------------------------------------------------------


def container(name="compute", restarts=0, waiting=""):
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    return {"name": name, "restartCount": restarts, "state": state}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"containerStatuses": [container(restarts=3)]}, {"restarts": 3}),
        ({"containerStatuses": [container("istio-proxy", restarts=3)]}, {"restarts": 0}),
        (
            {"containerStatuses": [container(waiting="CrashLoopBackOff")]},
            {"waiting": "CrashLoopBackOff"},
        ),
        (
            {"containerStatuses": [container(waiting="ErrImagePull")]},
            {"waiting": "ImagePullBackOff"},
        ),
        ({"containerStatuses": [container(waiting="ContainerCreating")]}, {"waiting": ""}),
        (
            {"initContainerStatuses": [container("container-disk", waiting="ImagePullBackOff")]},
            {"waiting": "ImagePullBackOff"},
        ),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available",
                    }
                ]
            },
            {"unschedulable": "0/3 nodes are available"},
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
                ]
            },
            {"unschedulable": ""},
        ),
    ],
)
async def test_a_pod_tells_what_keeps_it_from_running(guests, status, expected):
    guests.pod(**status)
    *_, facts = await guests.told(PodFacts)
    assert {name: getattr(facts, name) for name in expected} == expected


async def test_a_pod_tells_how_long_its_end_may_take(guests):
    guests.pod()
    guests.store.delete(PODS, NS, "virt-launcher-db-x", grace_s=210)
    *_, facts = await guests.told(PodFacts)
    assert (facts.deleting, facts.grace_s) == (True, 210.0)


async def test_why_no_node_will_do_is_told_once_however_often_the_words_change(guests):
    for count in range(10):
        message = f"0/{count + 3} nodes are available: {count} Insufficient memory. " * 20
        refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        guests.pod(phase="Pending", conditions=[{**refused, "message": message}])
        await asyncio.sleep(1)
    told = [facts for facts in await guests.told(PodFacts) if facts.unschedulable]
    assert len(told) == 1
    assert len(told[0].unschedulable) <= 300
    guests.pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "True"}])
    *_, placed = await guests.told(PodFacts)
    assert placed.unschedulable == ""


# --- migrations ----------------------------------------------------------------------------------


def migration(name="m1", phase=""):
    return {
        "metadata": {"name": name, "namespace": NS},
        "spec": {"vmiName": "db"},
        "status": {"phase": phase},
    }


def move(guests, phase, name="m1"):
    def change(obj):
        obj["status"] = {"phase": phase}

    res = VIRTUAL_MACHINE_INSTANCE_MIGRATIONS
    guests.store.mutate(res, NS, name, change, subresource="status")


async def test_a_migration_is_told_until_it_has_ended(guests):
    guests.store.create(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, migration())
    await asyncio.sleep(1)
    for phase in ("Scheduling", "Running", "Succeeded"):
        move(guests, phase)
        await asyncio.sleep(1)
    told = await guests.told(MigrationFacts)
    assert [facts.phase for facts in told] == ["", "Scheduling", "Running"]
    assert {facts.vmi for facts in told} == {"db"}
    (gone,) = guests.cluster.published.gone()
    assert (gone.kind, gone.name) == (FactKind.MIGRATION, "m1")
    guests.store.delete(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, NS, "m1")
    await asyncio.sleep(1)
    assert len(guests.cluster.published.gone()) == 1


async def test_migrations_that_ended_long_ago_are_neither_told_nor_kept(cluster):
    guests = Guests(cluster)
    for number in range(20):
        name = f"old-{number}"
        guests.store.create(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, migration(name))
        move(guests, "Failed", name)
    await cluster.start()
    assert await guests.told(MigrationFacts) == []
    assert cluster.watchers.health()["migrations"].objects == 0
    assert FactKind.MIGRATION in cluster.published.synced()


# --- nodes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "facts"), [("true", (True, True)), ("false", (True, False)), (None, (False, True))]
)
async def test_a_node_tells_whether_virt_handler_takes_new_vms(cluster, label, facts):
    def change(node):
        node["metadata"]["labels"].pop("kubevirt.io/schedulable")
        if label is not None:
            node["metadata"]["labels"]["kubevirt.io/schedulable"] = label

    cluster.change_node("n1", change)
    await cluster.start()
    found = next(each for each in cluster.published.facts(NodeFacts) if each.name == "n1")
    assert (found.kubevirt, found.schedulable) == facts
