"""All watches together: silent while following, everything once more when leading."""

from __future__ import annotations

import asyncio
import random

import pytest

from remediator.engine.model import (
    AttachmentFacts,
    ClaimFacts,
    FactKind,
    NodeFacts,
    NodeLeaseFacts,
    Plane,
    PodFacts,
    RunStrategy,
    VmFacts,
    VmiFacts,
    VolumeFacts,
)
from remediator.kube.custom_resources import CUSTOM_RESOURCES
from remediator.kube.objects import (
    Lease,
    LeaseSpec,
    Node,
    ObjectMeta,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    VirtualMachine,
    VirtualMachineInstance,
    VolumeAttachment,
)
from remediator.sim.apiserver import ApiServer
from remediator.sim.resources import (
    BUILT_IN,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VOLUME_ATTACHMENTS,
    Registry,
)
from remediator.watchers.facts import NodeClaimSink
from remediator.watchers.leases import LeaseSink
from remediator.watchers.narrow import (
    attachment_facts,
    claim_facts,
    pod_facts,
    vm_facts,
    vmi_facts,
    volume_facts,
)
from remediator.watchers.nodes import NodeSink
from remediator.watchers.outlet import Outlet

NS = "payments"

# Replica sets only add a guard, sums of other pods only room: nothing waits until all is known.
# KubeVirt's own limits are read where its object is; without it, its defaults hold.
MARKED = set(FactKind) - {FactKind.REPLICA_SET, FactKind.NODE_USE, FactKind.MIGRATION_LIMITS}


def vm(name="db", strategy="RerunOnFailure"):
    return {
        "metadata": {
            "name": name,
            "namespace": NS,
            "labels": {"remediator.io/tier": "1", "a": "b"},
        },
        "spec": {"runStrategy": strategy, "template": {"spec": {"domain": {"devices": {}}}}},
    }


def vmi(node="n1", phase="Running"):
    owner = {"kind": "VirtualMachine", "name": "db", "uid": "u", "controller": True}
    return {
        "metadata": {
            "name": "db",
            "namespace": NS,
            "ownerReferences": [{**owner, "apiVersion": "kubevirt.io/v1"}],
        },
        "spec": {
            "domain": {"devices": {}},
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "db-disk"}}],
        },
        "status": {"phase": phase, "nodeName": node},
    }


def pod(vmi_uid, labels=None):
    labels = labels or {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": vmi_uid}
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "db"}
    return {
        "metadata": {
            "name": "virt-launcher-db-x",
            "namespace": NS,
            "labels": labels,
            "ownerReferences": [{**owner, "uid": vmi_uid, "controller": True}],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "compute", "image": "x"}]},
        "status": {"phase": "Running"},
    }


@pytest.fixture
async def full(cluster):
    """A cluster with one object of every kind."""
    store = cluster.store
    for namespace in (NS, "medik8s-leases"):
        store.create(NAMESPACES, {"metadata": {"name": namespace}})
    store.create(VIRTUAL_MACHINES, vm())
    uid = store.create(VIRTUAL_MACHINE_INSTANCES, vmi())["metadata"]["uid"]
    store.create(PODS, pod(uid))
    store.create(
        PERSISTENT_VOLUME_CLAIMS,
        {
            "metadata": {"name": "db-disk", "namespace": NS},
            "spec": {
                "volumeName": "pv1",
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "fast",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )
    store.create(
        PERSISTENT_VOLUMES,
        {
            "metadata": {"name": "pv1"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "capacity": {"storage": "1Gi"},
                "csi": {"driver": "csi.sim", "volumeHandle": "h1"},
            },
        },
    )
    store.create(
        VOLUME_ATTACHMENTS,
        {
            "metadata": {"name": "va1"},
            "spec": {
                "attacher": "csi.sim",
                "nodeName": "n1",
                "source": {"persistentVolumeName": "pv1"},
            },
        },
    )
    store.mutate(
        VOLUME_ATTACHMENTS,
        "",
        "va1",
        lambda attachment: attachment.update(status={"attached": True}),
        subresource="status",
    )
    store.create(
        LEASES,
        {
            "metadata": {"name": "node-n1", "namespace": "medik8s-leases"},
            "spec": {
                "holderIdentity": "NodeHealthCheck-x",
                "leaseDurationSeconds": 660,
                "renewTime": "2026-11-20T08:00:00.000000Z",
            },
        },
    )
    store.create(
        VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
        {"metadata": {"name": "move", "namespace": NS}, "spec": {"vmiName": "db"}},
    )
    marks = {"harvesterhci.io/maintain-status": "running"}
    cluster.change_node(
        "n2.example.com", lambda node: node["metadata"]["annotations"].update(marks)
    )
    return cluster


async def test_every_kind_is_published_with_its_facts(full):
    await full.start()
    published = full.published
    (machine,) = published.facts(VmFacts)
    assert machine.run_strategy is RunStrategy.RERUN_ON_FAILURE
    assert machine.labels == {"remediator.io/tier": "1"}
    (instance,) = published.facts(VmiFacts)
    assert (instance.node, instance.phase, instance.owned) == ("n1", "Running", True)
    assert (instance.claims, instance.ephemeral) == (("db-disk",), False)
    (launcher,) = published.facts(PodFacts)
    assert (launcher.node, launcher.vmi, launcher.vmi_uid) == ("n1", "db", instance.uid)
    (claim,) = published.facts(ClaimFacts)
    assert (claim.volume, claim.access_modes, claim.storage_class) == (
        "pv1",
        ("ReadWriteMany",),
        "fast",
    )
    assert [v.driver for v in published.facts(VolumeFacts)] == ["csi.sim"]
    (attachment,) = published.facts(AttachmentFacts)
    assert (attachment.node, attachment.volume, attachment.attached) == ("n1", "pv1", True)
    (claimed,) = published.facts(NodeLeaseFacts)
    assert (claimed.node, claimed.holder, claimed.duration_s) == ("n1", "NodeHealthCheck-x", 660.0)
    assert claimed.seen_at == pytest.approx(full.clock.now(), abs=5)
    for subject in (
        "remediator.inventory.VirtualMachine.payments.db",
        "remediator.inventory.Pod.payments.virt-launcher-db-x",
        "remediator.inventory.PersistentVolume._.pv1",
        "remediator.inventory.NodeMaintenanceLease._.node-n1",
    ):
        assert subject in published.subjects


async def test_each_kind_is_marked_synced_after_its_objects(full):
    await full.start()
    subjects = full.published.subjects
    assert set(full.published.synced()) == MARKED
    for kind in MARKED:
        synced = subjects.index(f"remediator.inventory.synced.{kind.value}")
        firsts = [n for n, s in enumerate(subjects) if f".inventory.{kind.value}." in s]
        assert firsts
        assert max(firsts) < synced


async def test_an_empty_kind_is_synced_too(cluster):
    await cluster.start()
    assert set(cluster.published.synced()) == MARKED


async def test_a_follower_is_warm_and_silent_and_speaks_when_it_leads(full):
    await full.start(lead=False)
    assert full.published.offers == []
    assert all(watch.synced or watch.absent for watch in full.watchers.health().values())
    full.watchers.lead()
    await asyncio.sleep(0.5)
    assert set(full.published.synced()) == MARKED
    assert len(full.published.facts(NodeFacts)) == 2
    assert {s.first for s in full.published.signals(Plane.LEASE)} == {True}
    assert len(full.published.signals(Plane.LEASE)) == 2


async def test_republish_offers_everything_again_under_new_ids(full):
    await full.start()
    full.watchers.republish()
    await asyncio.sleep(0.5)
    before = {i for s, _, i in full.published.offers if ".inventory." in s}
    full.published.clear()
    full.watchers.republish()
    await asyncio.sleep(0.5)
    after = {i for s, _, i in full.published.offers if ".inventory." in s}
    assert len(after) == len([s for s in full.published.subjects if ".inventory." in s])
    assert len(full.published.facts(VmiFacts)) == 1
    assert set(full.published.synced()) == MARKED
    assert not before & after


async def test_two_daemons_offering_the_same_object_again_use_different_ids(full):
    await full.start()
    first = set(full.published.ids)
    full.published.clear()
    await full.start(full.daemon("pod-b"), lead=False)
    other = full.daemon("pod-c")
    await full.start(other, lead=False)
    full.published.clear()
    other.lead()
    await asyncio.sleep(0.2)
    assert not first & set(full.published.ids)


async def test_a_new_leader_whose_first_list_comes_later_uses_ids_of_its_own(full):
    """Else the bus takes them for repeats of what the leader before it published."""
    await full.start()
    before = set(full.published.ids)
    full.watchers.follow()
    full.published.clear()
    await full.start(full.daemon("pod-b"))  # leads before its lists are complete
    assert set(full.published.synced()) == MARKED
    assert not before & set(full.published.ids)


async def test_each_observation_of_one_term_has_an_id_of_its_own(full):
    await full.start()
    for _ in range(5):
        full.renew("n1")
        await asyncio.sleep(1)
    offers = [offer for offer in full.published.offers if not offer[0].endswith("progress")]
    assert len({offer[2] for offer in offers}) == len(offers)


async def test_a_demoted_leader_falls_silent_and_goes_on_watching(full):
    await full.start()
    full.watchers.follow()
    full.published.clear()
    full.renew("n1")
    full.store.delete(NODES, "", "n2.example.com")
    await asyncio.sleep(5)
    assert full.published.offers == []
    assert list(full.watchers.node_names()) == ["n1"]
    assert full.watchers.last_beat("n1")[1] > 0.0
    full.watchers.lead()
    await asyncio.sleep(0.5)
    assert [facts.name for facts in full.published.facts(NodeFacts)] == ["n1"]


async def test_nothing_is_republished_by_a_follower(full):
    await full.start(lead=False)
    full.watchers.republish()
    await asyncio.sleep(1)
    assert full.published.offers == []


async def test_a_large_store_is_offered_in_slices_and_an_object_deleted_meanwhile_is_not(full):
    for i in range(1000):
        full.store.create(VIRTUAL_MACHINES, vm(f"vm{i:04d}"))
    await full.start(lead=False, settle_s=5)
    turns = []

    async def others_get_their_turn():
        while True:
            turns.append(len(full.published.facts(VmFacts)))
            await asyncio.sleep(0)

    task = asyncio.create_task(others_get_their_turn())
    full.watchers.lead()
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    assert len(full.published.facts(VmFacts)) == 1001
    assert len(set(turns)) > 4


async def test_asked_again_in_the_middle_of_it_the_offer_begins_anew(full):
    for i in range(1000):
        full.store.create(VIRTUAL_MACHINES, vm(f"vm{i:04d}"))
    await full.start(lead=False, settle_s=5)
    full.watchers.lead()
    await full.until(lambda: len(full.published.facts(VmFacts)) >= 300)
    full.published.clear()
    full.watchers.republish()
    await asyncio.sleep(1)
    assert {facts.name for facts in full.published.facts(VmFacts)} >= {"vm0000", "vm0999", "db"}
    assert len(full.published.synced()) == len(MARKED)  # each once, after all of its objects


async def test_a_leader_demoted_in_the_middle_of_it_stops_and_offers_all_of_it_on_return(full):
    for i in range(1000):
        full.store.create(VIRTUAL_MACHINES, vm(f"vm{i:04d}"))
    await full.start(lead=False, settle_s=5)
    full.watchers.lead()
    await full.until(lambda: len(full.published.facts(VmFacts)) >= 300)
    full.watchers.follow()
    full.published.clear()
    full.watchers.lead()
    await asyncio.sleep(1)
    assert len(full.published.facts(VmFacts)) == 1001
    assert len(full.published.synced()) == len(MARKED)


async def test_a_change_of_a_pod_that_decides_nothing_is_not_published(full):
    await full.start()
    full.published.clear()

    def relabel(obj):
        obj["metadata"]["annotations"] = {"x": "y"}

    full.store.mutate(PODS, NS, "virt-launcher-db-x", relabel)
    full.store.mutate(
        PODS,
        NS,
        "virt-launcher-db-x",
        lambda o: o["metadata"].update(labels={**o["metadata"]["labels"], "other": "x"}),
    )
    await asyncio.sleep(1)
    assert full.published.facts(PodFacts) == []


async def test_a_pod_on_its_way_out_and_then_gone_is_told(full):
    await full.start()
    full.published.clear()
    full.store.delete(PODS, NS, "virt-launcher-db-x", grace_s=30)
    await asyncio.sleep(1)
    assert [facts.deleting for facts in full.published.facts(PodFacts)] == [True]
    full.store.delete(PODS, NS, "virt-launcher-db-x", grace_s=0)
    await asyncio.sleep(1)
    (gone,) = full.published.gone()
    assert (gone.kind, gone.namespace, gone.name) == (FactKind.POD, NS, "virt-launcher-db-x")


async def test_other_pods_are_not_watched(full):
    await full.start()
    full.published.clear()
    web = pod("u", labels={"app": "web"})
    web["metadata"]["name"] = "web"
    full.store.create(PODS, web)
    await asyncio.sleep(1)
    assert full.published.facts(PodFacts) == []


async def test_a_run_strategy_from_the_future_is_left_alone(full):
    full.store.create(VIRTUAL_MACHINES, vm("new", "Perpetual"))
    await full.start()
    facts = next(f for f in full.published.facts(VmFacts) if f.name == "new")
    assert facts.run_strategy is RunStrategy.HALTED


async def test_a_renewed_claim_on_a_node_is_told_with_our_time(full):
    await full.start()
    full.published.clear()
    await asyncio.sleep(10)

    def renew(lease):
        lease["spec"]["renewTime"] = "2020-01-01T00:00:00.000000Z"  # the holder's clock is wrong

    full.store.mutate(LEASES, "medik8s-leases", "node-n1", renew)
    await asyncio.sleep(1)
    (claimed,) = full.published.facts(NodeLeaseFacts)
    assert claimed.renewed_at == pytest.approx(1577836800.0)
    assert claimed.seen_at == pytest.approx(full.clock.now(), abs=2)


async def test_objects_that_are_garbage_hide_no_others(full):
    broken = vmi()
    broken["metadata"]["name"] = "broken"
    broken["status"] = {"phase": 7, "nodeName": ["n1"]}
    full.store.create(VIRTUAL_MACHINE_INSTANCES, broken)
    bare = {"metadata": {"name": "bare", "namespace": NS}}
    full.store.create(VIRTUAL_MACHINE_INSTANCES, bare)
    await full.start()
    assert {facts.name for facts in full.published.facts(VmiFacts)} >= {"db", "bare"}
    assert full.watchers.health()["vmis"].synced


async def test_health_tells_what_is_synced_absent_and_when_it_was_heard(full):
    health = full.watchers.health()
    assert not any(watch.synced for watch in health.values())
    await full.start()
    health = full.watchers.health()
    customs = {name for name, watch in health.items() if watch.absent}
    assert set(health) - customs >= {
        "nodes",
        "leases",
        "node-claims",
        "vms",
        "vmis",
        "pods",
        "migrations",
        "claims",
        "volumes",
        "attachments",
    }
    assert len(customs) == len(CUSTOM_RESOURCES)
    assert all(watch.synced != watch.absent for watch in health.values())
    assert health["nodes"].objects == 2
    assert full.clock.now() - health["leases"].last_progress_at < 3


async def test_a_cluster_without_kubevirt_has_absent_watches_and_the_others_go_on(cluster):
    cluster.server = ApiServer(
        cluster.store, Registry([res for res in BUILT_IN if res.group != "kubevirt.io"])
    )
    watchers = cluster.daemon("pod-a")
    await cluster.start(watchers)
    health = watchers.health()
    assert health["vms"].absent
    assert health["vmis"].absent
    assert not health["vms"].synced
    assert health["nodes"].synced
    assert FactKind.VM not in cluster.published.synced()
    assert FactKind.NODE in cluster.published.synced()


@pytest.mark.parametrize("name", ["", "a b", "a>", "*", "x" * 300])
async def test_an_object_whose_name_is_none_is_passed_over(cluster, name):
    outlet = Outlet(cluster.published, random.Random(1))
    outlet.is_open = True
    nodes = NodeSink(outlet, cluster.clock)
    leases = LeaseSink(outlet, cluster.clock, None)
    meta = ObjectMeta(name=name, annotations={"kubevirt.io/heartbeat": "2026-11-20T08:00:00Z"})
    nodes.seen(Node(metadata=meta), None, initial=True)
    nodes.again(Node(metadata=meta))
    nodes.gone(Node(metadata=meta))
    leases.seen(Lease(metadata=meta, spec=LeaseSpec(renew_time="t")), None, initial=True)
    assert cluster.published.offers == []


async def test_bare_objects_are_narrowed_without_a_fault(cluster):
    outlet = Outlet(cluster.published, random.Random(1))
    outlet.is_open = True
    meta = ObjectMeta(name="a", namespace="b")
    NodeSink(outlet, cluster.clock).seen(Node(metadata=meta), None, initial=True)
    leases = LeaseSink(outlet, cluster.clock, None)
    leases.seen(Lease(metadata=meta), None, initial=True)
    leases.seen(Lease(metadata=meta), Lease(metadata=meta), initial=False)
    claims = NodeClaimSink(outlet, cluster.clock)
    claims.seen(Lease(metadata=meta), None, initial=True)  # not called node-…: no claim
    claims.seen(Lease(metadata=ObjectMeta(name="node-n1")), None, initial=True)
    (claimed,) = cluster.published.facts(NodeLeaseFacts)
    assert (claimed.node, claimed.holder, claimed.renewed_at) == ("n1", "", 0.0)
    for narrow, obj in (
        (vm_facts, VirtualMachine(metadata=meta)),
        (vmi_facts, VirtualMachineInstance(metadata=meta)),
        (pod_facts, Pod(metadata=meta)),
        (claim_facts, PersistentVolumeClaim(metadata=meta)),
        (volume_facts, PersistentVolume(metadata=meta)),
        (attachment_facts, VolumeAttachment(metadata=meta)),
    ):
        assert narrow(obj).name == "a"


async def test_the_offer_waits_while_the_way_to_nats_is_full(full):
    for i in range(1000):
        full.store.create(VIRTUAL_MACHINES, vm(f"vm{i:04d}"))
    await full.start(lead=False, settle_s=5)
    full.published.pending = 1_000_000
    full.watchers.lead()
    await asyncio.sleep(5)
    assert full.published.facts(VmFacts) == []
    full.published.pending = 0
    await asyncio.sleep(1)
    assert len(full.published.facts(VmFacts)) == 1001


async def test_listed_means_that_all_a_leader_needs_was_listed(full):
    waiting = asyncio.create_task(full.watchers.listed())
    await asyncio.sleep(1)
    assert not waiting.done()
    await full.start(lead=False, settle_s=5)
    assert waiting.done()
