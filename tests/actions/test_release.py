"""Release and force-stop: nothing happens to a node that may be alive."""

from __future__ import annotations

import pytest

from remediator.engine.model import OutcomeStatus, ProofKind

SPARED, SUCCEEDED, FAILED = OutcomeStatus.SPARED, OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED
OURS = {"key": "remediator.io/fenced", "effect": "NoSchedule"}
OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}


def works(make, **proof):
    return {"release": make.release(**proof), "force-stop": make.force_stop(**proof)}


@pytest.fixture
def down(hands, make):
    """A cordoned node that is proven down, with one launcher pod on it."""
    hands.api.change(make.NODE, spec={"taints": [OURS], "unschedulable": True})
    hands.api.put(make.POD, make.pod_object())
    return hands


both = pytest.mark.parametrize("which", ["release", "force-stop"])


async def test_a_proven_node_gets_the_out_of_service_taint_without_a_time(down, make):
    outcome = await down.do(make.release())
    node = down.api.objects[make.NODE]
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert node["spec"]["taints"] == [OURS, OUT_OF_SERVICE]
    assert node["metadata"]["annotations"] == {
        "remediator.io/out-of-service": "boot-1",
        "remediator.io/lease-at-release": "t0",
    }


async def test_a_second_release_changes_nothing(down, make):
    await down.do(make.release())
    writes = len(down.api.writes)
    outcome = await down.do(make.release())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert len(down.api.writes) == writes


async def test_a_launcher_pod_is_deleted_by_uid_without_grace_and_seen_gone(down, make):
    outcome = await down.do(make.force_stop())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    method, path, options = down.api.writes[0]
    assert (method, path) == ("DELETE", make.POD)
    assert options["gracePeriodSeconds"] == 0
    assert options["preconditions"] == {"uid": "pod-uid"}
    assert len(down.api.writes) == 1


async def test_a_second_force_stop_changes_nothing(down, make):
    await down.do(make.force_stop())
    outcome = await down.do(make.force_stop())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert len(down.api.writes) == 1


@both
async def test_a_lease_renewed_since_the_proof_voids_it(down, make, which):
    down.beats["n1"] = ("t0", make.EPOCH - 5)
    outcome = await down.do(works(make, at=make.EPOCH - 10)[which])
    assert outcome.status is SPARED
    assert "alive" in outcome.detail
    assert down.api.writes == []


@both
async def test_a_renewal_that_was_on_its_way_does_not_void_the_proof(down, make, which):
    """The engine holds such a proof for good; sparing the node here would stop it for ever."""
    down.beats["n1"] = ("t0", make.EPOCH - 8)
    assert (await down.do(works(make, at=make.EPOCH - 10)[which])).status is SUCCEEDED


@both
@pytest.mark.parametrize("seen_s", [-9, -8, -11])
async def test_a_renewal_right_after_a_persons_word_voids_it(down, make, which, seen_s):
    """The node had been silent: no device was asked, and nothing was on its way."""
    word = make.proof(kind=ProofKind.OPERATOR_CONFIRMED, at=make.EPOCH - 10)
    down.runner.taken(word)
    down.beats["n1"] = ("t0", make.EPOCH + seen_s)
    outcome = await down.do(works(make, kind=word.kind, at=word.at)[which])
    assert outcome.status is SPARED
    assert down.api.writes == []


@both
async def test_a_renewal_the_watch_saw_before_the_proof_outweighs_the_anchor(down, make, which):
    await down.do(make.release())
    down.api.put(make.LEASE, make.lease_object("late"))
    down.beats["n1"] = ("late", make.EPOCH - 9)
    down.runner._own_proofs.add(("n1", "boot-1"))  # taken in this term: by this clock
    assert (await down.do(works(make, at=make.EPOCH - 10)[which])).status is SUCCEEDED


@both
async def test_a_lease_ahead_of_the_watch_counts_as_a_renewal_now(down, make, which):
    down.api.put(make.LEASE, make.lease_object("t1"))
    outcome = await down.do(works(make)[which])
    assert outcome.status is SPARED
    assert down.api.writes == []


@both
async def test_the_nodes_own_clock_is_not_compared_with_ours(down, make, which):
    far_ahead = "2099-01-01T00:00:00.000000Z"
    down.api.put(make.LEASE, make.lease_object(far_ahead))
    down.beats["n1"] = (far_ahead, make.EPOCH - 20)
    assert (await down.do(works(make)[which])).status is SUCCEEDED


@both
async def test_a_lease_found_at_start_is_no_sign_of_life(down, make, which):
    down.beats["n1"] = ("t0", 0.0)
    assert (await down.do(works(make)[which])).status is SUCCEEDED


@both
async def test_a_node_without_a_lease_shows_no_sign_of_life(down, make, which):
    del down.api.objects[make.LEASE]
    assert (await down.do(works(make)[which])).status is SUCCEEDED


@both
async def test_the_anchor_on_the_node_outlives_the_daemon(down, make, which):
    await down.do(make.release())
    # Another daemon takes over: its watch knows nothing of before; the node renewed in between.
    down.api.put(make.LEASE, make.lease_object("t1"))
    down.beats["n1"] = ("t1", 0.0)
    writes = len(down.api.writes)
    outcome = await down.do(works(make)[which])
    assert outcome.status is SPARED
    assert len(down.api.writes) == writes


@both
async def test_the_anchor_of_an_earlier_boot_says_nothing(down, make, which):
    notes = {"remediator.io/out-of-service": "boot-0", "remediator.io/lease-at-release": "older"}
    down.api.change(make.NODE, metadata={"annotations": notes})
    down.beats["n1"] = ("t0", 0.0)
    assert (await down.do(works(make)[which])).status is SUCCEEDED


@both
@pytest.mark.parametrize("flaw", [{"node": "n2"}, {"boot_id": ""}])
async def test_a_proof_about_something_else_is_none(down, make, which, flaw):
    outcome = await down.do(works(make, **flaw)[which])
    assert outcome.status is SPARED
    assert down.api.writes == []


@both
@pytest.mark.parametrize("case", ["registered anew", "excluded"])
async def test_a_node_that_is_not_ours_to_touch_is_spared(down, make, which, case):
    if case == "excluded":
        label = {"remediation.medik8s.io/exclude-from-remediation": "true"}
        down.api.change(make.NODE, metadata={"labels": label})
    else:
        down.api.change(make.NODE, metadata={"uid": "another"})
    assert (await down.do(works(make)[which])).status is SPARED
    assert down.api.writes == []


async def test_a_rebooted_node_is_not_released(down, make):
    down.api.change(make.NODE, status={"nodeInfo": {"bootID": "boot-2"}})
    assert (await down.do(make.release())).status is SPARED
    assert down.api.writes == []


async def test_pods_of_a_host_that_is_back_in_another_boot_are_left_to_its_kubelet(down, make):
    down.api.change(make.NODE, status={"nodeInfo": {"bootID": "boot-2"}})
    down.api.put(make.LEASE, make.lease_object("t1"))  # its new boot renews
    outcome = await down.do(make.force_stop())
    assert outcome.status is SPARED
    assert "its kubelet ends the old pods" in outcome.detail


async def test_pods_of_a_deleted_node_may_be_stopped(down, make):
    del down.api.objects[make.NODE]
    assert (await down.do(make.force_stop())).status is SUCCEEDED
    assert (await down.do(make.release())).status is SPARED


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "ahead of the watch"])
async def test_pods_of_a_deleted_node_that_renews_its_lease_are_left(down, make, seen):
    """A kubelet whose Node object was deleted does not register again before it restarts."""
    down.api.objects.pop(make.NODE)
    down.api.put(make.LEASE, make.lease_object("t1"))
    if seen:
        down.beats["n1"] = ("t1", make.EPOCH - 2)
    outcome = await down.do(make.force_stop(at=make.EPOCH - 10))
    assert outcome.status is SPARED
    assert "alive" in outcome.detail
    assert down.api.writes == []


async def test_a_pod_is_not_stopped_while_its_successor_could_land_there_again(down, make):
    down.api.change(make.NODE, spec={"taints": []})
    outcome = await down.do(make.force_stop())
    assert outcome.status is FAILED
    assert down.api.writes == []


async def test_a_pod_of_the_same_name_with_another_uid_is_left_alone(down, make):
    down.api.put(make.POD, make.pod_object(uid="another"))
    outcome = await down.do(make.force_stop())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert down.api.writes == []


async def test_a_pod_replaced_during_the_delete_is_left_alone(down, make):
    def replaced():
        down.api.put(make.POD, make.pod_object(uid="another"))

    down.api.faults["DELETE"] = [replaced]
    assert (await down.do(make.force_stop())).status is SUCCEEDED
    assert down.api.objects[make.POD]["metadata"]["uid"] == "another"


async def test_a_pod_bound_elsewhere_is_left_alone(down, make):
    down.api.put(make.POD, make.pod_object(node="n2"))
    assert (await down.do(make.force_stop())).status is SPARED
    assert down.api.writes == []


async def test_a_pod_that_is_no_launcher_is_left_alone(down, make):
    down.api.put(make.POD, make.pod_object(labels={"app": "web"}))
    assert (await down.do(make.force_stop())).status is SPARED
    assert down.api.writes == []


async def test_a_delete_whose_answer_was_lost_is_repeated(down, make):
    def lost():
        del down.api.objects[make.POD]
        return "reset"

    down.api.faults["DELETE"] = [lost]
    assert (await down.do(make.force_stop())).status is SUCCEEDED


async def test_a_pod_that_a_finalizer_holds_is_a_failure(down, make):
    down.api.put(make.POD, make.pod_object(finalizers=["x"]))
    outcome = await down.do(make.force_stop())
    assert outcome.status is FAILED
    assert "finalizer" in outcome.detail


async def test_a_conflict_storm_on_release_ends(down, make):
    down.api.before = lambda method, _path: (
        down.api.change(make.NODE) if method == "PATCH" else None
    )
    assert (await down.do(make.release())).status is FAILED
    assert len(down.api.writes) == 5


async def test_a_node_that_comes_back_between_two_tries_is_spared(down, make):
    def conflict_and_renewal():
        down.api.change(make.NODE)
        down.api.put(make.LEASE, make.lease_object("t1"))

    down.api.faults["PATCH"] = [conflict_and_renewal]
    assert (await down.do(make.release())).status is SPARED
    assert OUT_OF_SERVICE not in down.api.objects[make.NODE]["spec"]["taints"]
