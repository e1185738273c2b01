"""A person's word under attack: no VM is restarted while the boot it is about still renews."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine import proofs
from remediator.engine.chain import DecisionKind
from remediator.engine.events import CommandGiven, ObjectGone, ObjectSeen, SignalSeen, Verb
from remediator.engine.model import (
    FactKind,
    Fence,
    ForceStop,
    HandsOffFacts,
    IncidentState,
    OutcomeStatus,
    Plane,
    ProofKind,
    Reading,
    Release,
    Signal,
    node_subject,
    vantage_subject,
)
from remediator.engine.rules import DiskKind


def order(cluster, verb: Verb = Verb.CONFIRM_OFF, node: str = "n1", *, as_: str = "c1"):
    cluster.handle(CommandGiven(id=as_, verb=verb, target=node, by="ana", reason="seen"))
    return cluster.answers[-1]


def silent(make_cluster, **options):
    """n1 with a VM is silent, and its BMC does not say that it is off."""
    cluster = make_cluster(**options)
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.until(lambda: cluster.incident("n1") is not None)
    cluster.run(5)
    return cluster


def claimed(cluster, *, away: bool = False) -> None:
    """Somebody else is at work on n1, so that nothing is done there, or no more."""
    facts = HandsOffFacts(name="NodeMaintenance:m", uid="m", node="n1", why="maintenance")
    if away:
        cluster.handle(ObjectGone(kind=FactKind.HANDS_OFF, name=facts.name, uid="m"))
    else:
        cluster.handle(ObjectSeen(facts=facts))


def probed(cluster, says: Reading) -> None:
    """The only vantage point says this of n1."""
    for subject, reading in (
        (vantage_subject("v"), Reading.UP),
        (node_subject("n1"), says),
    ):
        signal = Signal(
            plane=Plane.NETWORK, source="v", subject=subject, reading=reading, at=cluster.now
        )
        cluster.handle(SignalSeen(signal=signal))


def touched(cluster) -> list:
    return [each for each in cluster.actions if isinstance(each.work, (Release, ForceStop))]


def test_a_word_is_not_taken_before_the_lease_was_watched_long_enough(make_cluster):
    """A leader that has just begun does not know yet whether the node renews its lease."""
    before = silent(make_cluster, fence_methods=[])
    cluster = before.reborn()
    cluster.watching = False
    cluster.lead()
    assert cluster.engine.context.evidence.silence_s("n1") < 10
    answer = order(cluster)
    assert not answer.accepted
    assert "not silent" in answer.text


def test_a_word_is_not_taken_of_a_host_that_answers(make_cluster):
    """A hung kubelet is silent, too: somebody has looked at another machine."""
    cluster = silent(make_cluster, fence_methods=[])
    probed(cluster, Reading.UP)
    answer = order(cluster)
    assert not answer.accepted
    assert "answers probes" in answer.text


def test_a_host_that_lives_after_all_is_not_kept_off_by_the_word(make_cluster):
    cluster = silent(make_cluster, fence_methods=[])
    claimed(cluster)
    assert order(cluster).accepted
    cluster.silent.discard("n1")
    cluster.run(20)
    assert cluster.incident("n1") is None
    assert not cluster.engine.state.kept_off


def test_a_word_dies_with_an_answer_to_a_probe(make_cluster):
    cluster = silent(make_cluster, fence_methods=[])
    claimed(cluster)
    assert order(cluster).accepted
    cluster.run(1)
    probed(cluster, Reading.UP)
    claimed(cluster, away=True)
    cluster.run(60)
    assert not cluster.actions


def test_a_word_dies_with_the_next_renewal(make_cluster):
    """Given while another works on the node; the host lives after all, and is lost again later."""
    cluster = silent(make_cluster, fence_methods=[])
    claimed(cluster)
    assert order(cluster).accepted
    cluster.run(5)
    cluster.silent.discard("n1")
    cluster.handler_silent.discard("n1")
    cluster.run(40)
    claimed(cluster, away=True)
    cluster.run(5)
    assert cluster.incident("n1") is None, "a living node has no incident, whatever was said"
    cluster.kill("n1")
    cluster.run(120)
    assert not touched(cluster)


def test_an_old_word_and_a_late_renewal_restart_nothing(make_cluster):
    """The word must not stand for the BMC in the row that convicts while the lease is quiet."""
    cluster = silent(make_cluster, fence_methods=[])
    claimed(cluster)
    assert order(cluster).accepted
    cluster.silent.discard("n1")
    cluster.beat("n1")
    claimed(cluster, away=True)
    cluster.silent.add("n1")
    for _ in range(11):
        probed(cluster, Reading.DOWN)
        cluster.run(1)
    assert not cluster.actions


@pytest.mark.parametrize("after_s", [0, 1, 2])
def test_a_renewal_right_after_the_word_stops_everything(make_cluster, after_s):
    """Nothing was asked of a device meanwhile, so no renewal can have been on its way."""
    cluster = silent(make_cluster, fence_methods=[])
    assert order(cluster).accepted
    cluster.until(lambda: cluster.actions)
    cluster.answer()  # the cordon
    cluster.until(lambda: cluster.actions)
    cluster.answer()  # the release
    cluster.actions.clear()
    cluster.run(after_s)
    cluster.beat("n1")
    incident = cluster.incident("n1")
    context = cluster.engine.context
    node = context.inventory.nodes["n1"]
    assert proofs.standing(context, node, incident.proof) is not proofs.Standing.HOLDS


def test_a_word_given_to_a_leader_whose_clock_was_ahead_dies_all_the_same(make_cluster):
    before = make_cluster(fence_methods=[], lead=False)
    before.now += 600.0  # its clock is ahead by ten minutes
    before.lead()
    before.add_vm("db", "n1")
    before.kill("n1")
    before.run(60)
    claimed(before)
    assert order(before).accepted
    cluster = before.reborn()
    cluster.now -= 600.0
    cluster.handler_silent = set()
    claimed(cluster)
    cluster.lead()
    cluster.add_vm("db", "n1")
    cluster.run(5)
    assert cluster.incident("n1").confirmed is not None
    cluster.silent.discard("n1")
    cluster.run(15)
    cluster.silent.add("n1")
    claimed(cluster, away=True)
    cluster.run(120)
    assert not cluster.actions


def test_a_policy_that_takes_no_word_for_these_disks_gets_none(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(
        base, required_proof_by_disk={DiskKind.READ_WRITE_ONCE: (ProofKind.POWER_OFF_VERIFIED,)}
    )
    cluster = silent(make_cluster, policies=[policy])
    answer = order(cluster)
    assert not answer.accepted
    assert "operator-confirmed" in answer.text
    cluster.run(30)
    assert not touched(cluster)


def test_a_disk_that_comes_after_the_word_is_not_covered_by_it(make_cluster):
    """Accepted while the policy took it; by the time of acting it does not any more."""
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(
        base, required_proof_by_disk={DiskKind.READ_WRITE_ONCE: (ProofKind.POWER_OFF_VERIFIED,)}
    )
    cluster = make_cluster(policies=[policy])
    cluster.add_vm("diskless", "n1", claims=())
    cluster.kill("n1")
    cluster.until(lambda: cluster.incident("n1") is not None)
    claimed(cluster)
    cluster.run(5)
    assert order(cluster).accepted
    cluster.add_vm("db", "n1")
    claimed(cluster, away=True)
    cluster.run(60)
    for _ in range(3):
        if cluster.actions:
            cluster.answer(status=OutcomeStatus.SUCCEEDED)
        cluster.run(5)
    skipped = [d for d in cluster.kinds(DecisionKind.SKIPPED) if d.proof is not None]
    assert not skipped
    assert not any(
        getattr(each.work, "proof", None) is not None
        and each.work.proof.kind is ProofKind.OPERATOR_CONFIRMED
        for each in cluster.actions
    )


def test_a_vm_that_is_bound_late_is_not_recovered_on_a_proof_too_weak_for_its_disks(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(
        base, required_proof_by_disk={DiskKind.READ_WRITE_ONCE: (ProofKind.POWER_OFF_VERIFIED,)}
    )
    cluster = make_cluster(policies=[policy])
    cluster.add_vm("diskless", "n1", claims=())
    cluster.kill("n1")
    cluster.until(lambda: cluster.incident("n1") is not None)
    cluster.run(5)
    assert order(cluster).accepted
    cluster.until(lambda: cluster.actions)
    cluster.answer()  # the cordon
    cluster.until(lambda: cluster.actions)
    cluster.add_vm("db", "n1")
    cluster.answer()  # the release
    cluster.run(30)
    stopped = [each.work.vmi for each in touched(cluster) if isinstance(each.work, ForceStop)]
    assert stopped == ["diskless"]
    (left,) = [d for d in cluster.kinds(DecisionKind.PROGRESS) if d.subject.name == "db"]
    assert "does not take this proof" in left.why


def test_the_same_order_again_is_the_same_order(make_cluster):
    """A message that NATS or an impatient person repeats must not power a healed host off."""
    cluster = make_cluster()
    first = order(cluster, Verb.FENCE_OFF, as_="same")
    cluster.answer()
    cluster.run(60)
    again = order(cluster, Verb.FENCE_OFF, as_="same")
    assert (again.accepted, again.seq) == (first.accepted, first.seq)
    assert not any(isinstance(each.work, Fence) for each in cluster.actions)


def test_the_same_order_again_is_known_to_the_next_leader(make_cluster):
    before = make_cluster()
    first = order(before, Verb.FENCE_OFF, as_="same")
    before.answer()
    cluster = before.reborn()
    cluster.lead()
    again = order(cluster, Verb.FENCE_OFF, as_="same")
    assert (again.accepted, again.seq) == (first.accepted, first.seq)
    assert not cluster.actions
    assert cluster.incident("n1") is None or cluster.incident("n1").state is IncidentState.SUSPECTED
