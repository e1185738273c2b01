"""Longhorn's replicas as sets of nodes: published by volume, and only when the nodes change."""

from __future__ import annotations

import pytest

from remediator.engine.model import FactKind
from remediator.kube.metadata import ObjectMeta
from remediator.kube.storage_objects import (
    LinstorResource,
    LinstorResourceSpec,
    LonghornInstanceSpec,
    LonghornReplica,
)
from remediator.watchers.replica_sets import LinstorReplicaSetSink, LonghornReplicaSetSink


class StoppedClock:
    def now(self) -> float:
        return 1_000.0


class Said:
    def __init__(self) -> None:
        self.facts_: list[tuple[str, tuple[str, ...]]] = []
        self.bad: list[tuple[str, ...]] = []
        self.as_of: list[float] = []
        self.gone_: list[str] = []

    def facts(self, facts, _version) -> None:
        self.facts_.append((facts.name, facts.nodes))
        self.bad.append(facts.bad)
        self.as_of.append(facts.as_of)

    def gone(self, kind, facts, _suffix="") -> None:
        assert kind is FactKind.REPLICA_SET
        self.gone_.append(facts.name)


def replica(name: str, node: str, volume: str = "pvc-1") -> LonghornReplica:
    spec = LonghornInstanceSpec(node_id=node, volume_name=volume)
    return LonghornReplica(metadata=ObjectMeta(name=name), spec=spec)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def sink(said) -> LonghornReplicaSetSink:
    return LonghornReplicaSetSink(said, StoppedClock())


def test_a_volumes_nodes_grow_with_its_replicas(sink, said):
    for name, node in (("r1", "n2"), ("r2", "n1")):
        sink.seen(replica(name, node), None, initial=True)
    assert said.facts_ == [("longhorn:pvc-1", ("n2",)), ("longhorn:pvc-1", ("n1", "n2"))]


def test_what_changes_no_node_is_not_said_again(sink, said):
    sink.seen(replica("r1", "n1"), None, initial=True)
    sink.seen(replica("r1", "n1"), replica("r1", "n1"), initial=False)
    sink.seen(replica("r2", "n1"), None, initial=False)
    assert len(said.facts_) == 1


def test_a_replica_that_is_not_placed_yet_says_nothing(sink, said):
    sink.seen(replica("r1", ""), None, initial=True)
    assert said.facts_ == []


def test_a_volume_is_gone_with_its_last_replica(sink, said):
    for name, node in (("r1", "n1"), ("r2", "n2")):
        sink.seen(replica(name, node), None, initial=True)
    sink.leave(replica("r1", "n1"))
    assert said.facts_[-1] == ("longhorn:pvc-1", ("n2",))
    sink.leave(replica("r2", "n2"))
    assert said.gone_ == ["longhorn:pvc-1"]


def test_a_new_leader_hears_of_each_volume_once(sink, said):
    replicas = [replica("r1", "n1"), replica("r2", "n2"), replica("r3", "n3", "pvc-2")]
    for each in replicas:
        sink.seen(each, None, initial=True)
    said.facts_.clear()
    for each in replicas:
        sink.again(each)
    assert sorted(name for name, _ in said.facts_) == ["longhorn:pvc-1", "longhorn:pvc-2"]


def test_a_replica_that_failed_is_bad_until_it_is_whole_again(sink, said):
    def at(failed, healthy):
        spec = LonghornInstanceSpec(
            node_id="n1", volume_name="pvc-1", failed_at=failed, healthy_at=healthy
        )
        return LonghornReplica(metadata=ObjectMeta(name="r1"), spec=spec)

    sink.seen(at("", ""), None, initial=True)  # being filled for the first time
    sink.seen(at("", "2026-11-20T08:00:00Z"), None, initial=False)
    sink.seen(at("2026-11-20T09:00:00Z", "2026-11-20T08:00:00Z"), None, initial=False)
    assert said.bad == [("n1",), (), ("n1",)]
    assert all(at > 0 for at in said.as_of)


def resource(name, node, *, flags=0, volume="PVC-1", snapshot=""):
    spec = LinstorResourceSpec(
        node_name=node, resource_name=volume, snapshot_name=snapshot, resource_flags=flags
    )
    return LinstorResource(metadata=ObjectMeta(name=name), spec=spec)


def test_linstors_names_are_those_of_the_nodes_and_of_the_handle(said):
    sink = LinstorReplicaSetSink(said, StoppedClock())
    sink.seen(resource("a1", "NODE-1.EXAMPLE.COM"), None, initial=True)
    assert said.facts_ == [("linstor:pvc-1", ("node-1.example.com",))]


@pytest.mark.parametrize(("flags", "what"), [(4, "diskless"), (4 | 256 | 128, "tie"), (2, "gone")])
def test_linstors_resources_without_data_do_not_count(said, flags, what):
    del what
    sink = LinstorReplicaSetSink(said, StoppedClock())
    sink.seen(resource("a1", "N1"), None, initial=True)
    sink.seen(resource("a2", "N2", flags=flags), None, initial=True)
    assert said.facts_ == [("linstor:pvc-1", ("n1",))]


def test_a_resource_that_loses_its_disk_leaves_the_set(said):
    sink = LinstorReplicaSetSink(said, StoppedClock())
    sink.seen(resource("a1", "N1"), None, initial=True)
    sink.seen(resource("a2", "N2"), None, initial=True)
    sink.seen(resource("a2", "N2", flags=4), resource("a2", "N2"), initial=False)
    assert said.facts_[-1] == ("linstor:pvc-1", ("n1",))


def test_snapshots_are_no_replicas(said):
    sink = LinstorReplicaSetSink(said, StoppedClock())
    sink.seen(resource("a1", "N1", snapshot="SNAP"), None, initial=True)
    assert said.facts_ == []
