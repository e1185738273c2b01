"""Fence levels: whose turn it is, which proof counts for which disks, what the log says of it."""

from __future__ import annotations

import pytest

from remediator.engine import fencing
from remediator.engine.chain import DecisionKind, Plan, PlanLevel, VmPlan
from remediator.engine.events import LeadershipGained, ObjectSeen
from remediator.engine.inventory import Inventory
from remediator.engine.model import (
    ClaimFacts,
    Fence,
    IncidentState,
    OutcomeStatus,
    ProofKind,
    Reading,
    ReplicaSetFacts,
    vm_subject,
)
from remediator.engine.rules import DiskKind, Policy
from remediator.engine.settings import FenceLevel, FenceMethod

OFF, DONE = ProofKind.POWER_OFF_VERIFIED, ProofKind.REMEDIATOR_SUCCEEDED


def plan(*attempts: int) -> Plan:
    levels = tuple(
        PlanLevel(index=at, name=f"d{at}", proof=OFF.value, attempts=count, deadline_s=30.0)
        for at, count in enumerate(attempts)
    )
    return Plan(
        policy="p", policy_hash="", verdicts=(), steps=("cordon", "fence"),
        required_proof=(OFF.value,), fence_method="m", vms=(), levels=levels,
    )  # fmt: skip


def test_levels_take_turns_each_as_often_as_it_says():
    two = plan(2, 3)
    assert fencing.attempts(two) == 5
    turns = [fencing.level_of(two, attempt).index for attempt in range(1, 7)]
    assert turns == [0, 0, 1, 1, 1, 1]
    firsts = [attempt for attempt in range(1, 6) if fencing.first_of_level(two, attempt)]
    assert firsts == [3]


def vm(*claims: str) -> VmPlan:
    return VmPlan(
        vm=vm_subject("shop", "db"), vmi_uid="", run_strategy="Always", treatment="restart",
        why="", claims=claims,
    )  # fmt: skip


@pytest.fixture
def inventory() -> Inventory:
    inventory = Inventory()
    for name, modes in (("rwo", ("ReadWriteOnce",)), ("rwx", ("ReadWriteMany",))):
        claim = ClaimFacts(namespace="shop", name=name, uid=name, access_modes=modes)
        inventory.put(claim)
    return inventory


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        ((), DiskKind.NONE),
        (("rwx",), DiskKind.READ_WRITE_MANY),
        (("rwx", "rwo"), DiskKind.READ_WRITE_ONCE),
        (("rwx", "nobody-knows-it"), DiskKind.READ_WRITE_ONCE),
    ],
)
def test_a_vm_is_as_delicate_as_its_most_delicate_disk(inventory, claims, kind):
    assert fencing.disk_kind(inventory, vm(*claims)) is kind


def policy(**by_disk: tuple[ProofKind, ...]) -> Policy:
    return Policy(
        name="p", source="", content_hash="", verdicts=(), required_proof=(OFF, DONE),
        required_proof_by_disk={DiskKind(kind): proofs for kind, proofs in by_disk.items()},
    )  # fmt: skip


def test_a_node_needs_what_every_one_of_its_vms_needs(inventory):
    strict = policy(readWriteOnce=(OFF,), none=(OFF, DONE))
    assert fencing.required_proof(inventory, strict, [vm()]) == (OFF, DONE)
    assert fencing.required_proof(inventory, strict, [vm(), vm("rwo")]) == (OFF,)
    assert fencing.required_proof(inventory, strict, [vm("rwx")]) == (OFF, DONE)
    assert fencing.required_proof(inventory, strict, []) == (OFF,)


def method(*levels: FenceLevel, **changes) -> FenceMethod:
    return FenceMethod(name="rack", nodes=("*",), levels=levels, **changes)


def test_a_level_whose_proof_does_not_count_is_left_out():
    weak = FenceLevel(name="snr", proof=DONE)
    strong = FenceLevel(name="bmc", proof=OFF)
    levels = fencing.usable_levels(method(weak, strong), (OFF,))
    assert [(level.index, level.name) for level in levels] == [(1, "bmc")]


def dying(make_cluster, **options):
    """A cluster one of whose nodes has died with a VM on it; its cordon is done."""
    cluster = make_cluster(**options)
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()
    return cluster


def next_fence(cluster, limit_s: float = 600) -> Fence:
    cluster.until(lambda: cluster.actions, limit_s)
    work = cluster.actions[0].work
    assert isinstance(work, Fence)
    return work


def fail(cluster) -> None:
    cluster.answer(status=OutcomeStatus.FAILED, detail="away")


def test_the_second_level_is_tried_at_once_when_the_first_has_failed(make_cluster):
    levels = (FenceLevel(name="bmc", attempts=2), FenceLevel(name="pdu", attempts=1))
    cluster = dying(make_cluster, fence_methods=[method(*levels)])
    assert next_fence(cluster).level == 0
    fail(cluster)
    failed_at = cluster.now
    assert next_fence(cluster).level == 0
    assert cluster.now - failed_at >= 4.0  # the same level again: after a pause
    fail(cluster)
    failed_at = cluster.now
    assert next_fence(cluster).level == 1
    assert cluster.now - failed_at <= 1.0
    (started,) = [each for each in cluster.kinds(DecisionKind.STARTED) if "level 2" in each.why]
    assert started.why.endswith("level 2: pdu")


def test_after_the_last_level_a_human_is_told_and_the_first_is_tried_again_later(make_cluster):
    levels = (FenceLevel(name="bmc", attempts=1), FenceLevel(name="pdu", attempts=1))
    cluster = dying(make_cluster, fence_methods=[method(*levels)])
    for _ in levels:
        next_fence(cluster)
        fail(cluster)
    cluster.run(1)
    assert cluster.incident("n1").state is IncidentState.ESCALATED
    assert any("fence failed 2 times" in text for text in cluster.notices)
    assert next_fence(cluster).level == 0


def test_each_level_has_its_own_deadline(make_cluster):
    levels = (FenceLevel(name="snr", attempts=1, deadline_s=300.0),)
    cluster = dying(make_cluster, fence_methods=[method(*levels)])
    next_fence(cluster)
    assert cluster.actions[0].deadline_s == 300.0


def test_a_configuration_without_a_proof_that_counts_is_refused_by_name(make_cluster):
    cluster = make_cluster(fence_methods=[method(FenceLevel(name="snr", proof=DONE))])
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.run(30)
    assert cluster.actions == []
    refused = cluster.kinds(DecisionKind.ESCALATED)[-1]
    assert "no level of rack gives a proof that the policy takes here" in refused.why


def test_labels_select_the_configuration(make_cluster):
    cluster = make_cluster(
        fence_methods=[
            method(FenceLevel(), labels={"rack": "b"}),
            FenceMethod(name="any", nodes=("*",)),
        ]
    )
    assert fencing.method_for(cluster.engine.context, "n1").name == "any"
    cluster.node_changes("n1", labels={"rack": "b"})
    assert fencing.method_for(cluster.engine.context, "n1").name == "rack"


# --- who must not be fenced now -------------------------------------------------------------------


def test_the_node_of_the_leader_is_not_fenced_before_another_leads(make_cluster):
    cluster = make_cluster(home="n1")
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.run(30)
    assert cluster.actions == []
    (refused,) = cluster.kinds(DecisionKind.REFUSED)
    assert "it runs this leader" in refused.why
    assert len(cluster.given_up) == 1
    other = cluster.reborn()
    other.engine_options["home"] = "n2"
    other.engine.context.home = "n2"
    other.lead()
    other.add_vm("db", "n1")
    other.power("n1", Reading.DOWN)
    other.until(lambda: other.actions)


def test_where_nobody_else_leads_the_own_node_is_held_and_nobody_steps_down_twice(make_cluster):
    cluster = make_cluster(home="n1")
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.run(30)
    again = cluster.reborn()
    again.lead()
    again.add_vm("db", "n1")
    again.power("n1", Reading.DOWN)
    again.run(60)
    assert again.actions == []
    assert again.given_up == []


def handed_over(cluster, home: str):
    """The next leader, which runs on ``home``, sees the same cluster."""
    other = cluster.reborn()
    other.engine_options["home"] = other.engine.context.home = home
    other.handle(LeadershipGained(identity="other", epoch=2))
    for facts in other.nodes.values():
        other.handle(ObjectSeen(facts=facts))
        other.beat(facts.name, first=True)
    other.add_vm("db", "n1")
    other.sync()
    return other


@pytest.mark.parametrize("pending", [False, True], ids=["between tries", "in flight"])
def test_a_fence_that_another_leader_began_is_not_gone_on_with_on_the_own_node(
    make_cluster, pending
):
    cluster = make_cluster(home="n2")
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()  # the cordon
    assert isinstance(cluster.actions[0].work, Fence)
    if not pending:
        cluster.answer(status=OutcomeStatus.FAILED)
    other = handed_over(cluster, "n1")
    other.run(20)
    other.power("n1", Reading.DOWN)
    other.run(60)
    assert not other.actions
    assert other.incident("n1").state is IncidentState.HELD
    assert other.given_up


def test_leadership_is_given_up_also_where_another_guard_withheld_first(make_cluster):
    cluster = make_cluster(home="n1")
    cluster.lose("n1")
    cluster.run(60)  # no VM is on it yet: nothing would be won
    assert not cluster.given_up
    cluster.add_vm("db", "n1")
    cluster.run(5)
    assert cluster.given_up


def test_leadership_is_given_up_again_for_a_replica_that_was_started_since(make_cluster):
    cluster = make_cluster(home="n1")
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.until(lambda: cluster.given_up)
    again = cluster.reborn()
    again.engine.context.home = "n1"
    again.lead()
    again.add_vm("db", "n1")
    again.power("n1", Reading.DOWN)
    again.run(300)
    assert not again.given_up
    again.run(400)
    assert len(again.given_up) >= 1
    assert not again.actions


def test_partners_do_not_wait_for_one_whose_recovery_is_stuck(make_cluster):
    """Its VM may be stuck for want of the very replica that the partner holds."""
    cluster = make_cluster(nodes=9)
    facts = ReplicaSetFacts(name="longhorn:pvc-1", uid="1", nodes=("n1", "n2"))
    cluster.handle(ObjectSeen(facts=facts))
    cluster.add_vm("db", "n1")
    cluster.add_vm("web", "n2")
    cluster.lose("n1")
    cluster.lose("n2")
    cluster.until(lambda: cluster.actions)
    for _ in range(4):  # cordon, fence, release, and the launcher pod
        cluster.until(lambda: cluster.actions)
        assert cluster.answer().id.split("/")[0] == cluster.incident("n1").id
    cluster.drop_pods("db", "n1")
    cluster.run(200)
    assert not cluster.actions, "its VM still starts"
    cluster.power("n2", Reading.DOWN)
    cluster.run(300)
    assert {action.subject.name for action in cluster.actions} == {"n2"}


@pytest.mark.parametrize("known_by", ["storage", "label"])
def test_partners_of_a_replica_are_recovered_one_after_the_other(make_cluster, known_by):
    cluster = make_cluster(nodes=9)
    if known_by == "storage":
        facts = ReplicaSetFacts(name="longhorn:pvc-1", uid="1", nodes=("n1", "n2"))
        cluster.handle(ObjectSeen(facts=facts))
    else:
        for name in ("n1", "n2"):
            cluster.node_changes(name, labels={"remediator.io/replica-set": "ceph"})
    cluster.add_vm("db", "n1")
    cluster.add_vm("web", "n2")
    cluster.lose("n1")
    cluster.lose("n2")
    cluster.run(60)
    assert {action.subject.name for action in cluster.actions} == {"n1"}
    refused = [each for each in cluster.kinds(DecisionKind.REFUSED) if each.subject.name == "n2"]
    assert "n1" in refused[-1].why
    assert "storage-replicas" in refused[-1].why


def test_nodes_without_common_replicas_do_not_wait_for_each_other(make_cluster):
    cluster = make_cluster(nodes=9)
    cluster.add_vm("db", "n1")
    cluster.add_vm("web", "n2")
    cluster.lose("n1")
    cluster.lose("n2")
    cluster.run(60)
    assert {action.subject.name for action in cluster.actions} == {"n1", "n2"}
