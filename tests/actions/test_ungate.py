"""Ungate: only our gate goes, only from the very pod, whoever else writes it meanwhile."""

from __future__ import annotations

import pytest

from remediator.engine.model import OutcomeStatus, Ungate, vm_subject
from remediator.kube.pacing_gates import PREFERRED

SPARED, SUCCEEDED, FAILED = OutcomeStatus.SPARED, OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED
OURS, THEIRS = {"name": "remediator.io/pacing"}, {"name": "quota.example.com/wait"}
WORK = Ungate(
    namespace="payments", vmi="db", pod="virt-launcher-db-x", pod_uid="pod-uid", prefer=""
)


def gated(make, *gates, **spec):
    pod = make.pod_object()
    pod["spec"] = {"schedulingGates": list(gates), **spec}
    return pod


@pytest.fixture
def lab(hands, make):
    hands.api.put(make.POD, gated(make, OURS))
    return hands


def test_an_action_on_a_gate_is_about_the_vm(make):
    assert make.action(WORK).subject == vm_subject("payments", "db")


async def test_our_gate_is_taken_off(lab, make):
    outcome = await lab.do(WORK)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert not lab.api.objects[make.POD]["spec"].get("schedulingGates")


async def test_other_gates_stay(lab, make):
    lab.api.put(make.POD, gated(make, THEIRS, OURS))
    assert (await lab.do(WORK)).status is SUCCEEDED
    assert lab.api.objects[make.POD]["spec"]["schedulingGates"] == [THEIRS]


async def test_the_write_names_the_pod_and_its_version(lab, make):
    version = lab.api.objects[make.POD]["metadata"]["resourceVersion"]
    await lab.do(WORK)
    (_, _, patch) = lab.api.writes[0]
    assert patch["metadata"] == {"uid": "pod-uid", "resourceVersion": version}


async def test_an_open_gate_is_left_alone(lab, make):
    lab.api.put(make.POD, gated(make))
    outcome = await lab.do(WORK)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert lab.api.writes == []


async def test_a_second_pod_of_the_name_is_left_alone(lab, make):
    lab.api.put(make.POD, {**gated(make, OURS), "metadata": make.pod_object("other")["metadata"]})
    outcome = await lab.do(WORK)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert lab.api.writes == []


async def test_a_pod_that_is_gone_needs_nothing(lab, make):
    del lab.api.objects[make.POD]
    assert (await lab.do(WORK)).status is SUCCEEDED


async def test_a_pod_that_goes_just_before_the_write_needs_nothing(lab, make):
    def vanish():
        del lab.api.objects[make.POD]
        return make.status(404, "NotFound")

    lab.api.faults["PATCH"] = [vanish]
    assert (await lab.do(WORK)).status is SUCCEEDED


async def test_a_pod_that_is_no_launcher_pod_is_spared(lab, make):
    pod = gated(make, OURS)
    pod["metadata"]["labels"] = {"app": "web"}
    lab.api.put(make.POD, pod)
    assert (await lab.do(WORK)).status is SPARED
    assert lab.api.writes == []


async def test_a_pod_that_is_written_meanwhile_is_read_again(lab, make):
    lab.api.faults["PATCH"] = [lambda: make.status(409, "Conflict")] * 2
    outcome = await lab.do(WORK)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)


async def test_a_pod_that_is_written_for_ever_is_a_failure(lab, make):
    lab.api.faults["PATCH"] = [lambda: make.status(409, "Conflict")] * 9
    assert (await lab.do(WORK)).status is FAILED
    assert len(lab.api.writes) == 5


async def test_a_gate_that_stays_is_a_failure(lab, make):
    body = make.http(200, gated(make, OURS)).body
    lab.api.faults["PATCH"] = [
        type(make.status(409, ""))(status=200, headers={}, body=body)  # a Response
    ]
    outcome = await lab.do(WORK)
    assert outcome.status is FAILED
    assert "still there" in outcome.detail


async def test_the_hint_joins_what_the_pod_prefers_already(lab, make):
    zone = {"weight": 5, "preference": {"matchExpressions": []}}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    affinity = {"nodeAffinity": {PREFERRED: [zone], **rule}, "podAntiAffinity": {"x": []}}
    lab.api.put(make.POD, gated(make, OURS, affinity=affinity))
    work = Ungate(
        namespace="payments", vmi="db", pod="virt-launcher-db-x", pod_uid="pod-uid", prefer="n7"
    )
    outcome = await lab.do(work)
    assert outcome.status is SUCCEEDED
    assert "n7" in outcome.detail
    after = lab.api.objects[make.POD]["spec"]["affinity"]
    assert after["podAntiAffinity"] == {"x": []}
    assert after["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    first, second = after["nodeAffinity"][PREFERRED]
    assert first == zone
    assert second["preference"]["matchExpressions"] == [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n7"]}
    ]


async def test_without_leadership_nothing_is_written(lab):
    lab.runner._leads = lambda: False
    assert (await lab.do(WORK)).status is SPARED
    assert lab.api.writes == []
