"""Cordon and uncordon: only our own marks, in one guarded patch, safe to repeat."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.model import OutcomeStatus

OURS = {"key": "remediator.io/fenced", "effect": "NoSchedule"}
OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}


async def test_a_node_gets_our_taint_and_our_cordon(hands, make):
    outcome = await hands.do(make.cordon)
    node = hands.api.objects[make.NODE]
    assert (outcome.status, outcome.changed) == (OutcomeStatus.SUCCEEDED, True)
    assert node["spec"] == {"taints": [OURS], "unschedulable": True}
    assert node["metadata"]["annotations"] == {"remediator.io/cordoned": "true"}


async def test_a_second_cordon_changes_nothing(hands, make):
    await hands.do(make.cordon)
    writes = len(hands.api.writes)
    outcome = await hands.do(make.cordon)
    assert (outcome.status, outcome.changed) == (OutcomeStatus.SUCCEEDED, False)
    assert len(hands.api.writes) == writes


async def test_other_peoples_taints_stay_word_for_word(hands, make):
    theirs = {
        "key": "node.kubernetes.io/unreachable",
        "effect": "NoExecute",
        "timeAdded": "2026-11-20T08:00:00Z",
    }
    hands.api.change(make.NODE, spec={"taints": [theirs]})
    await hands.do(make.cordon)
    assert hands.api.objects[make.NODE]["spec"]["taints"] == [theirs, OURS]


async def test_an_operators_cordon_is_not_claimed(hands, make):
    hands.api.change(make.NODE, spec={"unschedulable": True})
    await hands.do(make.cordon)
    assert "remediator.io/cordoned" not in hands.api.objects[make.NODE]["metadata"].get(
        "annotations", {}
    )
    await hands.do(msgspec.structs.replace(make.uncordon, fenced_boot_id=""))
    assert hands.api.objects[make.NODE]["spec"] == {"taints": [], "unschedulable": True}


@pytest.mark.parametrize("case", ["gone", "registered anew", "excluded"])
async def test_a_node_that_is_not_ours_to_touch_is_spared(hands, make, case):
    if case == "gone":
        del hands.api.objects[make.NODE]
    elif case == "registered anew":
        hands.api.change(make.NODE, metadata={"uid": "another"})
    else:
        label = {"remediation.medik8s.io/exclude-from-remediation": "true"}
        hands.api.change(make.NODE, metadata={"labels": label})
    outcome = await hands.do(make.cordon)
    assert (outcome.status, outcome.changed) == (OutcomeStatus.SPARED, False)
    assert hands.api.writes == []


async def test_a_write_in_between_is_kept_and_the_cordon_tried_again(hands, make):
    def somebody_writes():
        hands.api.change(make.NODE, metadata={"annotations": {"other": "yes"}})

    hands.api.faults["PATCH"] = [somebody_writes]
    outcome = await hands.do(make.cordon)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert hands.api.objects[make.NODE]["metadata"]["annotations"]["other"] == "yes"


async def test_a_storm_of_conflicts_ends(hands, make):
    hands.api.before = lambda method, _path: (
        hands.api.change(make.NODE) if method == "PATCH" else None
    )
    outcome = await hands.do(make.cordon)
    assert outcome.status is OutcomeStatus.FAILED
    assert "changed under each of 5 tries" in outcome.detail
    assert len(hands.api.writes) == 5


async def test_a_busy_api_server_is_asked_again_after_the_time_it_names(hands, make):
    hands.api.faults["PATCH"] = [make.status(429, "TooManyRequests", 1)]
    began_at = hands.clock.now()
    outcome = await hands.do(make.cordon)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert hands.clock.now() - began_at >= 1.0


async def test_an_api_server_that_stays_busy_is_given_up(hands, make):
    hands.api.faults["GET"] = [make.status(429, "TooManyRequests", 1)] * 50
    outcome = await hands.do(make.cordon)
    assert outcome.status is OutcomeStatus.FAILED
    assert "429" in outcome.detail
    assert len(hands.api.calls) == 4


async def test_a_404_from_a_proxy_is_not_a_deleted_node(hands, make):
    page = msgspec.structs.replace(make.status(404, ""), body=b"<html>not found</html>")
    hands.api.faults["GET"] = [page]
    outcome = await hands.do(make.cordon)
    assert outcome.status is OutcomeStatus.FAILED


# --- uncordon -------------------------------------------------------------------------------------


@pytest.fixture
def fenced(hands, make):
    """The node as cordon and release left it, back with a new boot."""
    hands.api.change(
        make.NODE,
        metadata={
            "annotations": {
                "remediator.io/cordoned": "true",
                "remediator.io/out-of-service": "boot-1",
                "remediator.io/lease-at-release": "t0",
            }
        },
        spec={"taints": [OURS, OUT_OF_SERVICE], "unschedulable": True},
        status={"nodeInfo": {"bootID": "boot-2"}},
    )
    return hands


def marks(hands, make):
    node = hands.api.objects[make.NODE]
    return node["spec"], node["metadata"].get("annotations", {})


async def test_a_whole_node_loses_all_our_marks_at_once(fenced, make):
    outcome = await fenced.do(make.uncordon)
    assert (outcome.status, outcome.changed) == (OutcomeStatus.SUCCEEDED, True)
    assert marks(fenced, make) == ({"taints": [], "unschedulable": False}, {})
    again = await fenced.do(make.uncordon)
    assert (again.status, again.changed) == (OutcomeStatus.SUCCEEDED, False)


async def test_somebody_elses_out_of_service_taint_stays(fenced, make):
    fenced.api.change(make.NODE, metadata={"annotations": {"remediator.io/out-of-service": None}})
    await fenced.do(make.uncordon)
    assert marks(fenced, make)[0]["taints"] == [OUT_OF_SERVICE]


@pytest.mark.parametrize("boot", ["boot-1", ""])
async def test_a_node_that_still_shows_the_fenced_boot_keeps_its_marks(fenced, make, boot):
    fenced.api.change(make.NODE, status={"nodeInfo": {"bootID": boot}})
    outcome = await fenced.do(make.uncordon)
    assert outcome.status is OutcomeStatus.SPARED
    assert fenced.api.writes == []


async def test_a_node_that_is_not_ready_keeps_its_marks(fenced, make):
    fenced.api.change(make.NODE, status={"conditions": [{"type": "Ready", "status": "Unknown"}]})
    outcome = await fenced.do(make.uncordon)
    assert outcome.status is OutcomeStatus.SPARED
    assert fenced.api.writes == []


@pytest.mark.parametrize("leaving", ["dying pod", "pod of a VM elsewhere", "attachment"])
async def test_the_marks_stay_until_the_old_boots_leavings_are_gone(fenced, make, leaving):
    attachment = "/apis/storage.k8s.io/v1/volumeattachments/va1"
    if leaving == "dying pod":
        path = make.POD
        fenced.api.put(path, make.pod_object(deletionTimestamp="2026-11-20T08:00:00Z"))
    elif leaving == "pod of a VM elsewhere":
        path = make.POD
        fenced.api.put(path, make.pod_object())
    else:
        path = attachment
        deleting = {"name": "va1", "uid": "v", "deletionTimestamp": "2026-11-20T08:00:00Z"}
        fenced.api.put(path, {"metadata": deleting, "spec": {"nodeName": "n1", "attacher": "c"}})
    outcome = await fenced.do(make.uncordon)
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.detail.startswith("not yet: ")
    assert fenced.api.writes == []
    del fenced.api.objects[path]
    assert (await fenced.do(make.uncordon)).status is OutcomeStatus.SUCCEEDED


async def test_uncordon_waits_for_a_pod_that_goes_in_time(fenced, make):
    fenced.api.put(make.POD, make.pod_object(deletionTimestamp="2026-11-20T08:00:00Z"))
    reads = []

    def pod_goes(_method, path):
        reads.append(path)
        if reads.count("/api/v1/pods") == 3:
            fenced.api.objects.pop(make.POD, None)

    fenced.api.before = pod_goes
    outcome = await fenced.do(make.uncordon)
    assert outcome.status is OutcomeStatus.SUCCEEDED


async def test_a_pod_whose_vm_runs_here_does_not_hold_the_node(fenced, make):
    fenced.api.put(make.POD, make.pod_object())
    labels = {"kubevirt.io/nodeName": "n1"}
    fenced.api.put(make.VMI, {"metadata": {"name": "db", "uid": "vmi-uid", "labels": labels}})
    assert (await fenced.do(make.uncordon)).status is OutcomeStatus.SUCCEEDED


async def test_a_node_that_was_registered_anew_carries_nothing_of_ours(fenced, make):
    fenced.api.change(make.NODE, metadata={"uid": "another"})
    outcome = await fenced.do(make.uncordon)
    assert (outcome.status, outcome.changed) == (OutcomeStatus.SUCCEEDED, False)
    assert fenced.api.writes == []
