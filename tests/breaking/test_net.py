"""Lines whose removal no other test notices: each of these does (found by mutation)."""

from __future__ import annotations

import pytest
from attack import run

from remediator.engine.model import IncidentState, OutcomeStatus, ProofKind, Reading
from remediator.engine.settings import FenceLevel, FenceMethod


@pytest.fixture
def room(engine_room):
    return engine_room


def led(room, **options):
    cluster = room.Cluster(**options)
    cluster.lead()
    return cluster


def test_a_proof_that_the_policy_does_not_take_releases_nothing(room):
    """execution._checked: ``proofs.accepted``."""
    policy = room.msgspec.structs.replace(room.POLICY, required_proof=(ProofKind.INSTANCE_GONE,))
    # Its configuration promises more than its device then gives.
    level = FenceLevel(proof=ProofKind.INSTANCE_GONE)
    method = FenceMethod(name="bmc", nodes=("*",), levels=(level,))
    cluster = led(room, policies=[policy], fence_methods=[method])
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()  # cordoned
    cluster.answer()  # fenced, proven off by its BMC: not what this policy asks for
    cluster.run(60)
    assert cluster.incident("n1").proof is None
    assert {action.id.split("/")[1] for action in cluster.actions} <= {"fence"}
    assert "does not take this proof" in cluster.kinds(room.DecisionKind.FINISHED)[-1].why


def test_while_a_proof_is_in_doubt_no_further_vm_is_restarted(room):
    """proofs.standing: ``IN_DOUBT`` is not ``HOLDS``."""
    pacing = room.msgspec.structs.replace(
        room.EngineSettings().pacing, starts_at_once_cluster=1, starts_at_once_node=1
    )
    settings = room.msgspec.structs.replace(room.EngineSettings(), pacing=pacing)
    cluster = led(room, settings=settings)
    cluster.add_vm("db", "n1")
    cluster.add_vm("web", "n1")
    cluster.fence_through("n1")
    cluster.run(1)
    (first,) = cluster.actions
    cluster.run(5)
    cluster.beat("n1")  # something renews there: which boot it is will show within 15 s
    cluster.answer(first)
    cluster.drop_pods(first.work.vmi, "n1")
    cluster.place(first.work.vmi, "n2")
    cluster.vmi(first.work.vmi, node="n2", phase="Running", agent=True)
    cluster.run(5)
    assert cluster.incident("n1").vms[f"vm/ns/{first.work.vmi}"].stage == "up"
    assert cluster.actions == []


def test_a_third_fence_waits_for_one_of_two(room):
    """node_guards._fences."""
    cluster = led(room, nodes=12, zones=6)
    for node in ("n1", "n2", "n3"):
        cluster.add_vm(f"vm-{node}", node)
        cluster.kill(node)
    cluster.until(lambda: {"n1", "n2", "n3"} <= set(cluster.asked_power))
    for node in ("n1", "n2", "n3"):
        cluster.power(node, Reading.DOWN)
    cluster.run(60)
    fencing = [
        incident.subject.name
        for incident in cluster.engine.state.incidents.values()
        if incident.state is IncidentState.FENCING
    ]
    assert len(fencing) == 2
    assert len(cluster.actions) == 2


def test_a_third_of_the_cluster_holds_though_no_zone_is_past_its_share(room):
    """shares.cluster_share: five of twelve nodes, each in a zone of its own."""
    cluster = led(room, nodes=12, zones=6)
    lost = ("n1", "n2", "n3", "n4", "n5")
    for node in lost:
        cluster.add_vm(f"vm-{node}", node)
        cluster.kill(node)
    cluster.until(lambda: set(lost) <= set(cluster.asked_power))
    for node in lost:
        cluster.power(node, Reading.DOWN)
    cluster.run(60)
    assert cluster.actions == []
    refused = cluster.kinds(room.DecisionKind.REFUSED)
    assert refused
    assert all("cluster-share" in each.why and "zone-share" not in each.why for each in refused)


def test_fenced_nodes_that_are_not_back_count_as_down(room):
    """shares.unhealthy: ``state.residues``, after the incident is over."""
    cluster = led(room, nodes=6, zones=6)
    for node in ("n1", "n2"):
        cluster.add_vm(f"vm-{node}", node)
        cluster.fence_through(node)
        cluster.run(1)
        (stop,) = cluster.actions
        cluster.answer(stop)
        cluster.drop_pods(stop.work.vmi, node)
        cluster.place(stop.work.vmi, "n6")
        cluster.vmi(stop.work.vmi, node="n6", phase="Running", agent=True)
        cluster.run(2)
        assert cluster.incident(node) is None
        # Its lease is gone with it: only what we owe the node still says that it is down.
        cluster.engine.context.evidence.leases.forget(node)
    cluster.add_vm("third", "n3")
    cluster.lose("n3")
    cluster.run(30)
    assert cluster.actions == []
    assert "3 of 6 nodes down" in cluster.kinds(room.DecisionKind.REFUSED)[-1].why


def test_nothing_is_planned_from_half_a_picture(room):
    """node_guards._inventory: the list of pods is not complete."""
    cluster = room.Cluster()
    cluster.lead(sync=False)
    for kind in room.FactKind:
        if kind is not room.FactKind.POD:
            cluster.handle(room.InventorySynced(kind=kind))
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.run(30)
    assert cluster.actions == []
    cluster.handle(room.InventorySynced(kind=room.FactKind.POD))
    cluster.run(2)
    assert [action.id.split("/")[1] for action in cluster.actions] == ["cordon"]


def test_a_renewal_voids_a_proof_that_a_fast_clock_dated_into_the_future(actions_room, tmp_path):
    """runner._void_after: a proof of an earlier leader is not judged by its own time."""

    async def story() -> None:
        room = actions_room
        password = tmp_path / "password"
        password.write_text("x")
        api, make = room.FakeApi(), room.Make
        api.put(room.NODE, room.node_object())
        api.change(
            room.NODE, spec={"taints": [{"key": "remediator.io/fenced", "effect": "NoSchedule"}]}
        )
        api.put(room.LEASE, room.lease_object("t5"))
        api.put(room.POD, room.pod_object())
        device = room.RedfishDevice(
            name="lab",
            nodes=("n*",),
            endpoint="https://bmc.example",
            username="admin",
            password_file=str(password),
        )
        hands = room.Hands(api, room.FakeBmc(), device)
        hands.beats["n1"] = ("t5", room.EPOCH - 2.0)
        outcome = await hands.do(make.force_stop(at=room.EPOCH + 3600.0))
        await hands.runner.stop()
        assert outcome.status is OutcomeStatus.SPARED
        assert room.POD in api.objects

    run(story())
