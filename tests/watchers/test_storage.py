"""Longhorn, Portworx and csi-addons: whether the storage still hears a node."""

from __future__ import annotations

import sys

import msgspec
import pytest

from remediator.engine.model import AttachmentFacts, Plane
from remediator.kube.storage_objects import LonghornEngine, LonghornReplica
from remediator.sim.resources import VOLUME_ATTACHMENTS
from tests.kube import custom_examples as examples
from tests.watchers.custom_world import WAKE_S, CustomWorld

NODES = "nodes.longhorn.io"
REPLICAS = "replicas.longhorn.io"
ENGINES = "engines.longhorn.io"
PORTWORX = "storagenodes.core.libopenstorage.org"
SIDECARS = "csiaddonsnodes.csiaddons.openshift.io"


@pytest.fixture
def world(cluster):
    made = CustomWorld(cluster)
    made.install(NODES, REPLICAS, ENGINES, PORTWORX, SIDECARS)
    return made


def said(world, node="n1"):
    """Return (source, reading) of each signal of the storage plane."""
    return [(source, reading) for source, _, reading in world.said(Plane.STORAGE, node)]


# --- Longhorn: what engines have of their replicas ------------------------------------------------


def volume(world, number, engine_on="n2", replicas_on=("n1", "n2"), modes=None):
    """Make one volume: an engine and its replicas."""
    names = [f"v{number}-r-{index}" for index in range(len(replicas_on))]
    for name, node in zip(names, replicas_on, strict=True):
        world.make(REPLICAS, examples.longhorn_replica(name, node))
    modes = modes or ["RW"] * len(names)
    engine = examples.longhorn_engine(
        f"v{number}-e-0", engine_on, dict(zip(names, modes, strict=True))
    )
    world.make(ENGINES, engine)
    return engine


def with_modes(engine, *modes, **status):
    names = engine["status"]["replicaModeMap"]
    changed = dict(zip(names, modes, strict=True))
    return {**engine, "status": {**engine["status"], "replicaModeMap": changed, **status}}


async def test_replicas_that_answer_are_no_news(world):
    volume(world, 1)
    world.make(NODES, examples.longhorn_node())
    await world.start()
    await world.settle(300)
    assert said(world) == []


async def test_a_node_whose_replicas_no_engine_elsewhere_reaches_is_lost(world):
    first, second = volume(world, 1), volume(world, 2, engine_on="n3", replicas_on=("n1", "n3"))
    await world.start()
    world.put(ENGINES, with_modes(first, "ERR", "RW"))
    await world.settle()
    assert said(world) == []  # the other engine still has its replica there
    world.put(ENGINES, with_modes(second, "ERR", "RW"))
    await world.settle()
    assert said(world) == [("longhorn", "down")]
    (signal,) = world.published.signals(Plane.STORAGE, "n1")
    assert not signal.first
    assert "2 replicas in ERR" in signal.detail


async def test_what_an_engine_has_of_replicas_on_its_own_node_counts_for_nothing(world):
    engine = volume(world, 1, engine_on="n1", replicas_on=("n1", "n2"))
    await world.start()
    world.put(ENGINES, with_modes(engine, "ERR", "RW"))
    await world.settle()
    assert ("longhorn", "down") not in said(world)


async def test_an_engine_that_lost_several_nodes_at_once_is_in_trouble_itself(world):
    engine = volume(world, 1, engine_on="n3", replicas_on=("n1", "n2", "n3"))
    await world.start()
    world.put(ENGINES, with_modes(engine, "ERR", "ERR", "RW"))
    await world.settle()
    assert said(world) == said(world, "n2") == []
    world.put(ENGINES, with_modes(engine, "ERR", "RW", "RW"))
    await world.settle()
    assert said(world) == [("longhorn", "down")]
    assert said(world, "n2") == [("longhorn", "up")]


async def test_a_replica_that_answers_again_is_a_sign_of_life(world):
    engine = volume(world, 1)
    await world.start()
    world.put(ENGINES, with_modes(engine, "ERR", "RW"))
    await world.settle()
    world.put(ENGINES, with_modes(engine, "WO", "RW"))  # being rebuilt is not yet answering
    await world.settle()
    assert said(world) == [("longhorn", "down")]
    world.put(ENGINES, with_modes(engine, "RW", "RW"))
    await world.settle()
    assert said(world) == [("longhorn", "down"), ("longhorn", "up")]


async def test_a_lost_node_stays_lost_when_its_failed_replicas_are_taken_out(world):
    engine = volume(world, 1)
    await world.start()
    world.put(ENGINES, with_modes(engine, "ERR", "RW"))
    await world.settle()
    kept = {"v1-r-1": "RW"}
    world.change(ENGINES, engine, lambda e: e["status"].update(replicaModeMap=kept))
    world.delete(REPLICAS, examples.longhorn_replica("v1-r-0"))
    await world.settle()
    assert said(world) == [("longhorn", "down")]


async def test_an_engine_that_does_not_run_says_nothing(world):
    engine = volume(world, 1)
    await world.start()
    world.put(ENGINES, with_modes(engine, "ERR", "RW", currentState="unknown"))
    await world.settle()
    assert said(world) == []


async def test_what_is_lost_when_we_come_is_told_as_found(world):
    volume(world, 1, modes=["ERR", "RW"])
    await world.start()
    assert [(s.reading.value, s.first) for s in world.published.signals(Plane.STORAGE)] == [
        ("down", True)
    ]


@pytest.mark.parametrize("order", [(REPLICAS, ENGINES), (ENGINES, REPLICAS)], ids=str)
async def test_the_order_in_which_lists_come_does_not_matter(cluster, order):
    world = CustomWorld(cluster)
    world.install(order[0])
    await world.start()
    made = {
        REPLICAS: [examples.longhorn_replica("r1", "n1")],
        ENGINES: [examples.longhorn_engine("e1", "n2", {"r1": "ERR"})],
    }
    for kind in order:
        if kind == order[1]:
            world.install(kind)
        for obj in made[kind]:
            world.make(kind, obj)
        await world.settle(WAKE_S)
    assert said(world) == [("longhorn", "down")]


# --- Longhorn: who writes and who measures --------------------------------------------------------


async def test_a_moved_measurement_is_a_sign_of_life_and_one_found_is_none(world):
    node = examples.longhorn_node()
    world.make(NODES, node)
    await world.start()
    assert said(world) == []
    world.put(NODES, examples.longhorn_node(available=99))
    await world.settle()
    assert said(world) == [("longhorn", "up")]


async def test_signs_of_life_are_repeated_at_their_pace(world):
    world.make(NODES, examples.longhorn_node())
    await world.start()
    for number in range(60):
        world.put(NODES, examples.longhorn_node(available=number))
        await world.settle(1)
    assert 6 <= len(said(world)) <= 8
    subjects = [s for s in world.published.subjects if ".storage." in s]
    assert subjects[0].startswith("remediator.signal.storage.node.n1")
    assert all(s.startswith("remediator.heartbeat.storage.node.n1") for s in subjects[1:])


async def test_what_longhorn_takes_from_kubernetes_is_not_believed(world):
    """Its Ready is set by any manager from the Kubernetes Node: that is the lease once more."""
    world.make(NODES, examples.longhorn_node())
    engine = volume(world, 1)
    await world.start()
    world.put(NODES, examples.longhorn_node(ready="False"))
    # Another manager takes over what the silent one owned, and calls it unknown.
    world.put(ENGINES, with_modes(engine, "RW", "RW", ownerID="n3", currentState="unknown"))
    await world.settle(600)
    assert said(world) == said(world, "n2") == said(world, "n3") == []


async def test_a_status_written_under_one_owner_is_that_owners_sign_of_life(world):
    engine = volume(world, 1, engine_on="n1", replicas_on=("n1", "n2"))
    await world.start()
    world.put(ENGINES, with_modes(engine, "RW", "ERR"))  # n1 is alive to say that n2 is lost
    await world.settle()
    assert said(world) == [("longhorn", "up")]
    assert said(world, "n2") == [("longhorn", "down")]


async def test_a_change_that_is_no_status_is_nobodys_sign_of_life(world):
    engine = volume(world, 1, engine_on="n1", replicas_on=("n1", "n2"))
    await world.start()
    world.change(ENGINES, engine, lambda e: e["spec"].update(desireState="running"))
    world.change(ENGINES, engine, lambda e: e["metadata"].update(labels={"a": "b"}))
    await world.settle()
    assert said(world) == []


async def test_a_node_that_leaves_longhorn_is_no_longer_spoken_of(world):
    node = examples.longhorn_node()
    world.make(NODES, node)
    engine = volume(world, 1)
    await world.start()
    world.put(ENGINES, with_modes(engine, "ERR", "RW"))
    await world.settle()
    world.delete(NODES, node)
    await world.settle()
    assert said(world)[-1] == ("longhorn", "unknown")


# --- Portworx -------------------------------------------------------------------------------------


async def test_portworx_says_offline_and_online(world):
    world.make(PORTWORX, examples.storage_node())
    await world.start()
    assert said(world) == []  # Online of unknown age
    world.put(PORTWORX, examples.storage_node("Offline", "2026-11-20T08:01:00Z"))
    await world.settle()
    world.put(PORTWORX, examples.storage_node("Online", "2026-11-20T08:02:00Z"))
    await world.settle()
    assert said(world) == [("portworx", "down"), ("portworx", "up")]


@pytest.mark.parametrize("state", ["Maintenance", "NotInQuorum", "Initializing", "Decommissioned"])
async def test_what_portworx_says_in_between_is_neither(world, state):
    world.make(PORTWORX, examples.storage_node("Offline"))
    await world.start()
    world.put(PORTWORX, examples.storage_node(state, "2026-11-20T08:01:00Z"))
    await world.settle()
    assert said(world) == [("portworx", "down"), ("portworx", "unknown")]


async def test_a_node_that_portworx_does_not_list_any_more_is_unknown(world):
    """The phase says so; the condition that stands there is an old one."""
    world.make(PORTWORX, examples.storage_node("Offline"))
    await world.start()
    world.put(PORTWORX, examples.storage_node("Offline", phase="Unknown"))
    await world.settle()
    assert said(world) == [("portworx", "down"), ("portworx", "unknown")]


async def test_what_its_pools_hold_moves_only_while_it_lives(world):
    world.make(PORTWORX, examples.storage_node(used="10Gi"))
    await world.start()
    world.put(PORTWORX, examples.storage_node(used="11Gi"))
    await world.settle()
    assert said(world) == [("portworx", "up")]
    world.change(
        PORTWORX, examples.storage_node(), lambda n: n["metadata"].update(labels={"a": "b"})
    )
    await world.settle(60)
    assert said(world) == [("portworx", "up")]


# --- csi-addons -----------------------------------------------------------------------------------


async def test_a_node_is_lost_when_none_of_its_sidecars_can_be_reached(world):
    rbd = examples.csi_addons_node()
    cephfs = examples.csi_addons_node("n1-cephfs", driver="cephfs.csi.ceph.com")
    world.make(SIDECARS, rbd)
    world.make(SIDECARS, cephfs)
    await world.start()
    assert said(world) == []  # once connected is of unknown age
    world.put(SIDECARS, examples.csi_addons_node(state="Failed"))
    await world.settle()
    assert said(world) == []
    world.put(SIDECARS, examples.csi_addons_node("n1-cephfs", state="Failed", driver="cephfs.x"))
    await world.settle()
    assert said(world) == [("csi-addons", "down")]
    world.put(SIDECARS, examples.csi_addons_node(state="Connected"))
    await world.settle()
    assert said(world)[-1] == ("csi-addons", "up")
    for each in (rbd, cephfs):
        world.delete(SIDECARS, each)
    await world.settle()
    assert said(world)[-1] == ("csi-addons", "unknown")


async def test_a_sidecar_that_is_new_and_not_yet_connected_makes_a_lost_node_unknown(world):
    world.make(SIDECARS, examples.csi_addons_node(state="Failed"))
    await world.start()
    world.make(SIDECARS, examples.csi_addons_node("n1-new", state=""))
    await world.settle()
    assert said(world) == [("csi-addons", "down"), ("csi-addons", "unknown")]


# --- all of them ----------------------------------------------------------------------------------


async def test_several_systems_speak_of_one_node_each_for_itself(world):
    world.make(PORTWORX, examples.storage_node("Offline"))
    world.make(SIDECARS, examples.csi_addons_node(state="Failed"))
    volume(world, 1, modes=["ERR", "RW"])
    await world.start()
    assert sorted(said(world)) == [
        ("csi-addons", "down"),
        ("longhorn", "down"),
        ("portworx", "down"),
    ]
    subjects = {subject for subject in world.published.subjects if ".storage." in subject}
    assert len(subjects) == 3  # the newest per subject is the newest of each


async def test_with_its_crd_goes_what_a_storage_said(world):
    world.make(PORTWORX, examples.storage_node("Offline"))
    await world.start()
    world.remove(PORTWORX)
    await world.settle(WAKE_S)
    assert said(world) == [("portworx", "down"), ("portworx", "unknown")]


async def test_a_new_leader_is_told_who_is_lost_and_of_nobody_that_lives(world):
    world.make(NODES, examples.longhorn_node("n1"))
    world.make(NODES, examples.longhorn_node("n2"))
    engine = volume(world, 1)
    await world.start(lead=False)
    world.put(ENGINES, with_modes(engine, "ERR", "RW"))
    world.put(NODES, examples.longhorn_node("n2", available=5))
    await world.settle()
    assert world.published.offers == []
    world.cluster.watchers.lead()
    await world.settle()
    assert said(world) == [("longhorn", "down")]
    assert said(world, "n2") == []  # that it lived a while ago is no life
    world.put(NODES, examples.longhorn_node("n2", available=6))
    await world.settle()
    assert said(world, "n2") == [("longhorn", "up")]


async def test_an_attachment_says_nothing_about_life(world):
    world.store.create(
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
    await world.start()
    assert [facts.node for facts in world.published.facts(AttachmentFacts)] == ["n1"]
    assert world.published.signals(Plane.STORAGE) == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (NODES, {"status": {"diskStatus": []}}),
        (REPLICAS, {"spec": {"nodeID": 5}}),
        (ENGINES, {"status": {"replicaModeMap": {"r": 1}}}),
        (PORTWORX, {"status": {"conditions": [1]}}),
        (SIDECARS, {"spec": {"driver": "x"}}),
        (ENGINES, {}),
        (REPLICAS, {}),
        (SIDECARS, {}),
    ],
    ids=str,
)
async def test_garbage_hides_no_other(world, kind, body):
    world.make(kind, {**examples.named("odd", "longhorn-system"), **body})
    world.make(PORTWORX, examples.storage_node("Offline"))
    world.make(SIDECARS, examples.csi_addons_node(state="Failed"))
    volume(world, 1, modes=["ERR", "RW"])
    await world.start()
    assert len(said(world)) == 3


async def test_five_thousand_replicas_publish_nothing_but_changes(world):
    """3 replicas to a volume, on 50 nodes; half of the engines write something that is no news."""
    nodes, engines = 50, []
    for number in range(5000 // 3):
        at = [f"w{(number + step) % nodes}" for step in (0, 17, 31)]
        engines.append(volume(world, number, engine_on=at[0], replicas_on=at))
    for number in range(nodes):
        world.make(NODES, examples.longhorn_node(f"w{number}"))
    await world.start()
    await world.settle(5)
    health = world.cluster.watchers.health()
    assert health["longhorn-replicas"].objects == 4998
    world.published.clear()
    for engine in engines[::2]:  # a snapshot was taken
        world.change(ENGINES, engine, lambda e: e["status"].update(snapshots={"s": {"size": "1"}}))
    world.cluster.watchers.republish()
    await world.settle(300)
    assert world.published.signals(Plane.STORAGE) == []
    # One host dies: every engine elsewhere loses its replicas there, one by one.
    lost = 0
    for number, engine in enumerate(engines):
        at = [(number + step) % nodes for step in (0, 17, 31)]
        if 7 in at[1:]:
            modes = ["ERR" if where == 7 else "RW" for where in at]
            world.put(ENGINES, with_modes(engine, *modes))
            lost += 1
    await world.settle(5)
    assert lost == 66
    signals = world.published.signals(Plane.STORAGE)
    assert [s.reading.value for s in signals if s.subject.name == "w7"] == ["down"]
    # Besides that only the managers that wrote it down have shown that they live: once each.
    others = [s.subject.name for s in signals if s.subject.name != "w7"]
    assert len(others) == len(set(others)) <= nodes


def test_a_replica_and_an_engine_are_small_in_memory():
    """5,000 replicas and their 1,700 engines: some ten megabytes, not a hundred."""
    wire = examples.longhorn_replica()
    wire["metadata"]["managedFields"] = [{"manager": "m", "fieldsV1": {"x" * 50: {}}}] * 20
    replica = msgspec.json.decode(msgspec.json.encode(wire), type=LonghornReplica)
    wire = examples.longhorn_engine(modes={"r1": "RW"})
    wire["status"]["snapshots"] = {f"s{n}": {"name": "x" * 50} for n in range(250)}
    engine = msgspec.json.decode(msgspec.json.encode(wire), type=LonghornEngine)

    def size(value, seen):
        if id(value) in seen or value is None:
            return 0
        seen.add(id(value))
        total = sys.getsizeof(value)
        if isinstance(value, dict):
            total += sum(size(k, seen) + size(v, seen) for k, v in value.items())
        elif isinstance(value, tuple | list):
            total += sum(size(each, seen) for each in value)
        elif isinstance(value, msgspec.Struct):
            total += sum(size(getattr(value, f), seen) for f in value.__struct_fields__)
        return total

    assert size(replica, set()) < 2000
    assert size(engine, set()) < 2000
