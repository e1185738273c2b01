"""What a person orders: obeyed or refused with a reason, and recorded with who asked."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.chain import DecisionKind
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import (
    Cordon,
    Fence,
    IncidentState,
    OutcomeStatus,
    PowerOn,
    ProofKind,
    Release,
)


def order(cluster, verb: Verb, node: str = "n1", *, by: str = "ana@laptop", reason: str = "seen"):
    number = len(cluster.answers) + 1
    command = CommandGiven(id=f"c{number}", verb=verb, target=node, by=by, reason=reason)
    cluster.handle(command)
    return cluster.answers[-1]


def confirming(make_cluster, **options):
    """A cluster with a VM on n1; the policy takes a person's word, as it does by default."""
    cluster = make_cluster(**options)
    cluster.add_vm("db", "n1")
    return cluster


def strict(make_cluster):
    """The same under a policy that believes machines only."""
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(base, required_proof=(ProofKind.POWER_OFF_VERIFIED,))
    return confirming(make_cluster, policies=[policy])


def silent(cluster) -> None:
    """n1 falls silent; nobody says that it is off."""
    cluster.kill("n1")
    cluster.until(lambda: cluster.incident("n1") is not None)
    cluster.run(5)


def test_a_persons_word_recovers_the_vms_of_a_host_without_fence_device(make_cluster):
    cluster = confirming(make_cluster, fence_methods=[])
    silent(cluster)
    answer = order(cluster, Verb.CONFIRM_OFF)
    assert answer.accepted
    cluster.run(2)
    assert isinstance(cluster.actions[0].work, Cordon)
    cluster.answer()
    cluster.run(2)
    assert isinstance(cluster.actions[0].work, Release)
    proof = cluster.actions[0].work.proof
    assert (proof.kind, proof.source) == (ProofKind.OPERATOR_CONFIRMED, "ana@laptop")
    skipped = cluster.kinds(DecisionKind.SKIPPED)[-1]
    assert "ana@laptop confirmed that it is off (seen)" in skipped.why


def test_it_ends_an_escalated_fence_too(make_cluster):
    cluster = confirming(make_cluster)
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()
    for _ in range(3):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=OutcomeStatus.FAILED)
    cluster.run(1)
    assert cluster.incident("n1").state is IncidentState.ESCALATED
    assert order(cluster, Verb.CONFIRM_OFF).accepted
    cluster.until(lambda: cluster.actions)
    assert not any(isinstance(action.work, Fence) for action in cluster.actions)


def test_a_command_stands_in_the_journal_with_who_gave_it_and_why(make_cluster):
    cluster = confirming(make_cluster)
    silent(cluster)
    answer = order(cluster, Verb.CONFIRM_OFF)
    (record,) = cluster.kinds(DecisionKind.COMMAND)
    assert record.seq == answer.seq
    assert record.why == "confirm-off by ana@laptop: seen"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("living", "n1 renews its lease: it is not off"),
        ("no reason", "who asks, and why"),
        ("nobody", "who asks, and why"),
        ("unknown", "there is no node n99"),
        ("strict policy", "no policy takes operator-confirmed"),
        ("observe", "observe mode"),
        ("twice", "under way"),
    ],
)
def test_what_cannot_be_confirmed_is_refused_with_its_reason_and_recorded(
    make_cluster, change, why
):
    options = {"enforce": False} if change == "observe" else {}
    cluster = confirming(make_cluster, **options)
    if change == "strict policy":
        cluster = strict(make_cluster)
    if change != "living":
        silent(cluster)
    if change == "twice":
        order(cluster, Verb.CONFIRM_OFF)
        cluster.run(1)
    answer = order(
        cluster,
        Verb.CONFIRM_OFF,
        "n99" if change == "unknown" else "n1",
        by="" if change == "nobody" else "ana@laptop",
        reason="" if change == "no reason" else "seen",
    )
    assert not answer.accepted
    assert why in answer.text
    assert cluster.kinds(DecisionKind.COMMAND)[-1].seq == answer.seq


def test_a_confirmed_host_that_renews_its_lease_before_anything_was_released_is_not_recovered(
    make_cluster,
):
    cluster = confirming(make_cluster, fence_methods=[])
    silent(cluster)
    order(cluster, Verb.CONFIRM_OFF)
    cluster.run(1)
    cluster.silent.discard("n1")
    cluster.beat("n1")
    cluster.answer()  # the cordon
    cluster.run(60)
    assert not any(isinstance(action.work, Release) for action in cluster.actions)


def test_the_word_is_about_one_boot(make_cluster):
    cluster = confirming(make_cluster, fence_methods=[])
    silent(cluster)
    order(cluster, Verb.CONFIRM_OFF)
    cluster.node_changes("n1", boot_id="boot-n1-2")
    cluster.run(60)
    assert not any(
        isinstance(action.work, Release) and action.work.proof.boot_id != "boot-n1-1"
        for action in cluster.actions
    )


@pytest.mark.parametrize(("verb", "work"), [(Verb.FENCE_OFF, Fence), (Verb.FENCE_ON, PowerOn)])
def test_a_host_is_powered_by_hand_through_its_configuration(make_cluster, verb, work):
    cluster = make_cluster()
    answer = order(cluster, verb)
    assert answer.accepted
    (action,) = cluster.actions
    assert isinstance(action.work, work)
    assert getattr(action.work, "forced", True)
    cluster.answer()
    assert cluster.kinds(DecisionKind.FINISHED)[-1].outcome.status is OutcomeStatus.SUCCEEDED


def test_powering_off_by_hand_does_not_count_as_a_fence_before(make_cluster):
    cluster = make_cluster()
    cluster.add_vm("db", "n1")
    order(cluster, Verb.FENCE_OFF)
    cluster.answer()
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()
    cluster.until(lambda: cluster.actions)
    assert isinstance(cluster.actions[0].work, Fence)


def test_a_new_leader_remembers_the_word(make_cluster):
    cluster = confirming(make_cluster, fence_methods=[])
    silent(cluster)
    order(cluster, Verb.CONFIRM_OFF)
    other = cluster.reborn()
    assert other.incident("n1").confirmed is not None
    assert other.incident("n1") == cluster.incident("n1")
