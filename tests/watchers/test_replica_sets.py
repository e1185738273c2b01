"""Longhorn's replicas as sets of nodes: published by volume, and only when the nodes change."""

from __future__ import annotations

import pytest

from remediator.engine.model import FactKind
from remediator.kube.metadata import ObjectMeta
from remediator.kube.storage_objects import LonghornInstanceSpec, LonghornReplica
from remediator.watchers.replica_sets import LonghornReplicaSetSink


class Said:
    def __init__(self) -> None:
        self.facts_: list[tuple[str, tuple[str, ...]]] = []
        self.gone_: list[str] = []

    def facts(self, facts, _version) -> None:
        self.facts_.append((facts.name, facts.nodes))

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
    return LonghornReplicaSetSink(said)


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
