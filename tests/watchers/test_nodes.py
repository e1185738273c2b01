"""The node watch: only what changes a decision is published."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from remediator.engine.model import NodeFacts, Plane, Reading
from remediator.sim.resources import NODES


@pytest.fixture
async def quiet(cluster):
    """Watchers that lead, with everything found at start already published and forgotten."""
    await cluster.start()
    cluster.published.clear()
    return cluster


def beat(value):
    return lambda node: node["metadata"]["annotations"].update({"kubevirt.io/heartbeat": value})


async def test_a_node_is_narrowed_to_what_decisions_read(cluster):
    def mark(node):
        node["spec"]["unschedulable"] = True
        node["spec"]["taints"] = [
            {"key": "b", "effect": "NoExecute"},
            {"key": "a", "value": "v", "effect": "NoSchedule"},
        ]
        node["metadata"]["labels"]["node-role.kubernetes.io/master"] = ""
        node["metadata"]["labels"]["remediation.medik8s.io/exclude-from-remediation"] = "true"
        node["metadata"]["annotations"]["machine.openshift.io/machine"] = "ns/m1"
        node["metadata"]["annotations"]["remediator.io/cordoned"] = "true"

    cluster.change_node("n1", mark)
    uid = cluster.store.get(NODES, "", "n1")["metadata"]["uid"]
    await cluster.start()
    facts = next(f for f in cluster.published.facts(NodeFacts) if f.name == "n1")
    assert facts == NodeFacts(
        name="n1",
        uid=uid,
        boot_id="boot-n1",
        system_uuid="uuid-n1",
        zone="z1",
        ready=True,
        unschedulable=True,
        control_plane=True,
        taints=("a=v:NoSchedule", "b:NoExecute"),
        labels={
            "kubevirt.io/schedulable": "true",
            "remediation.medik8s.io/exclude-from-remediation": "true",
            "topology.kubernetes.io/zone": "z1",
        },
        annotations={"machine.openshift.io/machine": "ns/m1", "remediator.io/cordoned": "true"},
        kubevirt=True,
        machine="ns/m1",
    )
    assert "remediator.inventory.Node._.n1" in cluster.published.subjects
    assert "remediator.inventory.Node._.n2_example_com" in cluster.published.subjects


async def test_a_node_tells_where_its_kubelet_listens(cluster):
    def report(node):
        node["status"]["addresses"] = [
            {"type": "Hostname", "address": "n1"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "10.0.0.1"},
        ]
        node["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": 10255}}

    cluster.change_node("n1", report, status=True)
    await cluster.start()
    found = {f.name: (f.address, f.kubelet_port) for f in cluster.published.facts(NodeFacts)}
    assert found == {"n1": ("fd00::1", 10255), "n2.example.com": ("", 10250)}


@pytest.mark.parametrize(
    ("annotations", "machine"),
    [
        ({"machine.openshift.io/machine": "openshift-machine-api/m1"}, "openshift-machine-api/m1"),
        (
            {"cluster.x-k8s.io/machine": "m1", "cluster.x-k8s.io/cluster-namespace": "capi"},
            "capi/m1",
        ),
        ({"cluster.x-k8s.io/machine": "m1"}, ""),  # nobody says in which namespace
        ({}, ""),
    ],
)
async def test_a_node_names_the_machine_that_it_was_made_from(cluster, annotations, machine):
    cluster.change_node("n1", lambda node: node["metadata"]["annotations"].update(annotations))
    await cluster.start()
    facts = next(f for f in cluster.published.facts(NodeFacts) if f.name == "n1")
    assert facts.machine == machine


async def test_a_status_heartbeat_that_changes_nothing_is_not_published(quiet):
    def heartbeat(node):
        node["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-20T08:05:00Z"

    quiet.change_node("n1", heartbeat, status=True)
    quiet.change_node("n1", lambda n: n["metadata"]["labels"].update({"some.label": "x"}))
    await asyncio.sleep(1)
    assert quiet.published.facts(NodeFacts) == []
    assert quiet.published.signals(Plane.KUBELET) == []
    assert quiet.published.signals(Plane.HANDLER) == []


async def test_a_new_order_of_taints_is_no_change(quiet):
    taints = [{"key": "a", "effect": "NoExecute"}, {"key": "b", "effect": "NoExecute"}]
    quiet.change_node("n1", lambda node: node["spec"].update(taints=taints))
    await asyncio.sleep(1)
    quiet.published.clear()
    quiet.change_node("n1", lambda node: node["spec"].update(taints=taints[::-1]))
    await asyncio.sleep(1)
    assert quiet.published.facts(NodeFacts) == []


@pytest.mark.parametrize(
    ("status", "reading"), [("False", Reading.DOWN), ("Unknown", Reading.UNKNOWN)]
)
async def test_a_change_of_ready_is_a_signal_of_the_kubelet_plane(quiet, status, reading):
    def change(node):
        node["status"]["conditions"][0].update(status=status, reason="NodeStatusUnknown")

    quiet.change_node("n1", change, status=True)
    await asyncio.sleep(1)
    signals = quiet.published.signals(Plane.KUBELET)
    assert [(s.subject.name, s.reading, s.first) for s in signals] == [("n1", reading, False)]
    assert signals[0].detail == f"Ready={status} NodeStatusUnknown"
    assert "remediator.signal.kubelet.node.n1" in quiet.published.subjects
    assert [facts.ready for facts in quiet.published.facts(NodeFacts)] == [
        {"False": False, "Unknown": None}[status]
    ]


async def test_a_node_without_a_ready_condition_is_unknown(quiet):
    quiet.change_node("n1", lambda node: node["status"].update(conditions=[]), status=True)
    await asyncio.sleep(1)
    assert [s.reading for s in quiet.published.signals(Plane.KUBELET)] == [Reading.UNKNOWN]


async def test_each_change_of_the_heartbeat_is_a_beat_at_our_time(quiet):
    # The node's clock is an hour behind, and then jumps back by a day.
    for value in ("2026-11-20T07:00:00Z", "2026-11-19T07:00:00Z"):
        quiet.change_node("n1", beat(value))
        await asyncio.sleep(1)
    signals = quiet.published.signals(Plane.HANDLER)
    assert [(s.reading, s.first) for s in signals] == [(Reading.UP, False)] * 2
    assert quiet.clock.now() - signals[1].at < 1.5
    assert quiet.published.subjects.count("remediator.heartbeat.handler.node.n1") == 2


@pytest.mark.parametrize("garbage", ["yesterday", "", "2026-11-20T08:00:00", "x" * 5000])
async def test_a_heartbeat_that_is_no_time_is_unknown_and_says_so(quiet, garbage):
    quiet.change_node("n1", beat(garbage))
    await asyncio.sleep(1)
    (signal,) = quiet.published.signals(Plane.HANDLER)
    assert signal.reading is Reading.UNKNOWN
    assert "no time" in signal.detail
    assert len(signal.detail) < 150


async def test_a_heartbeat_that_is_taken_away_is_no_beat(quiet):
    quiet.change_node("n1", lambda n: n["metadata"]["annotations"].pop("kubevirt.io/heartbeat"))
    await asyncio.sleep(1)
    assert quiet.published.signals(Plane.HANDLER) == []


async def test_what_is_found_at_start_is_marked_as_first(cluster):
    await cluster.start()
    assert {s.first for s in cluster.published.signals()} == {True}
    assert {s.subject.name for s in cluster.published.signals(Plane.HANDLER)} == {
        "n1",
        "n2.example.com",
    }


async def test_a_deleted_node_is_gone_with_its_uid(quiet):
    uid = quiet.store.get(NODES, "", "n1")["metadata"]["uid"]
    quiet.store.delete(NODES, "", "n1")
    await asyncio.sleep(1)
    assert [(e.kind, e.name, e.uid) for e in quiet.published.gone()] == [("Node", "n1", uid)]
    assert "remediator.inventory.Node._.n1" in quiet.published.subjects


async def test_the_node_watch_reports_progress_at_most_once_a_second(quiet):
    for i in range(100):
        quiet.change_node("n1", beat(f"2026-11-20T08:00:{i % 60:02d}Z"))
        await asyncio.sleep(0.1)
    marks = quiet.published.progress("nodes")
    assert 9 <= len(marks) <= 11
    assert marks == sorted(marks)


async def test_bookmarks_alone_keep_the_node_watch_within_a_heartbeats_tolerance(quiet):
    # Somebody else's writes move the cluster's version; no node is written at all.
    for _ in range(300):
        quiet.renew("n1")
        await asyncio.sleep(2)
    marks = quiet.published.progress("nodes")
    gaps = [later - earlier for earlier, later in itertools.pairwise(marks)]
    assert len(gaps) >= 3
    assert max(gaps) < 150


async def test_no_progress_is_reported_while_the_api_server_is_silent(quiet):
    quiet.server.faults.hang()
    silent_from = quiet.clock.now()
    await asyncio.sleep(600)
    assert all(at <= silent_from for at in quiet.published.progress("nodes"))
    assert all(at <= silent_from for at in quiet.published.progress("leases"))
