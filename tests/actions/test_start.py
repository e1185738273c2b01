"""Start: asked once, seen to be taken up, and never against the wish of whoever stopped the VM."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.model import OutcomeStatus
from remediator.kube.transport import Response

SPARED, SUCCEEDED, FAILED = OutcomeStatus.SPARED, OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED


def vm(strategy="Manual", **metadata):
    return {
        "metadata": {"name": "db", "namespace": "payments", "uid": "vm-uid", **metadata},
        "spec": {"runStrategy": strategy},
    }


def vmi(phase, uid="vmi-1", **metadata):
    return {
        "metadata": {"name": "db", "namespace": "payments", "uid": uid, **metadata},
        "status": {"phase": phase},
    }


@pytest.fixture
def stopped(hands, make):
    hands.api.put(make.VM, vm())
    return hands


async def test_a_stopped_vm_is_started(stopped, make):
    outcome = await stopped.do(make.start)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert [call[0] for call in stopped.api.writes] == ["PUT"]


async def test_a_failed_instance_does_not_count_as_started(stopped, make):
    stopped.api.put(make.VMI, vmi("Failed"))
    outcome = await stopped.do(make.start)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert len(stopped.api.writes) == 1


@pytest.mark.parametrize("phase", ["Running", "Scheduling", ""])
async def test_a_vm_that_is_on_its_way_up_is_left_alone(stopped, make, phase):
    stopped.api.put(make.VMI, vmi(phase))
    outcome = await stopped.do(make.start)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert stopped.api.writes == []


async def test_a_second_start_changes_nothing(stopped, make):
    await stopped.do(make.start)
    outcome = await stopped.do(make.start)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert len(stopped.api.writes) == 1


@pytest.mark.parametrize("case", ["gone", "made anew", "deleting", "halted"])
async def test_a_vm_that_should_not_run_is_spared(stopped, make, case):
    if case == "gone":
        del stopped.api.objects[make.VM]
    elif case == "made anew":
        stopped.api.put(make.VM, vm(uid="another"))
    elif case == "deleting":
        stopped.api.put(make.VM, vm(deletionTimestamp="2026-11-20T08:00:00Z"))
    else:
        stopped.api.put(make.VM, vm("Halted"))
    assert (await stopped.do(make.start)).status is SPARED
    assert stopped.api.writes == []


async def test_a_conflict_is_a_success_where_the_vm_comes_up_anyway(stopped, make):
    def restarted_meanwhile():
        stopped.api.put(make.VMI, vmi("Scheduling"))
        return make.status(409, "Conflict")

    stopped.api.faults["PUT"] = [restarted_meanwhile]
    outcome = await stopped.do(make.start)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)


async def test_a_conflict_is_a_failure_where_nothing_comes_of_it(stopped, make):
    stopped.api.faults["PUT"] = [make.status(409, "Conflict")]
    outcome = await stopped.do(make.start)
    assert outcome.status is FAILED
    assert "refused" in outcome.detail


async def test_an_accepted_start_that_nobody_takes_up_is_a_failure(stopped, make):
    stopped.api.faults["PUT"] = [Response(status=202, headers={}, body=b"")]
    outcome = await stopped.do(make.start)
    assert outcome.status is FAILED
    assert "nothing came of it" in outcome.detail


async def test_an_instance_on_its_way_out_does_not_count_as_started(stopped, make):
    stopped.api.put(make.VMI, vmi("Running", deletionTimestamp="2026-11-20T08:00:00Z"))
    assert (await stopped.do(make.start)).changed


def on_the_dead_host(phase: str = "Running") -> dict:
    """The instance that ran on n1: KubeVirt has not noticed yet that its pod is gone."""
    found = vmi(phase)
    found["status"]["nodeName"] = "n1"
    return found


async def test_the_instance_on_the_dead_host_does_not_count_as_started(stopped, make):
    work = msgspec.structs.replace(make.start, node="n1")
    stopped.api.put(make.VMI, on_the_dead_host())
    looks = 0

    def fails_soon(method: str, path: str) -> None:
        nonlocal looks
        looks += (method, path) == ("GET", make.VMI)
        if looks == 4:
            stopped.api.put(make.VMI, on_the_dead_host("Failed"))

    stopped.api.before = fails_soon
    outcome = await stopped.do(work)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert [call[0] for call in stopped.api.writes] == ["PUT"]


async def test_an_instance_on_the_dead_host_that_does_not_end_is_a_failure(stopped, make):
    stopped.api.put(make.VMI, on_the_dead_host())
    outcome = await stopped.do(msgspec.structs.replace(make.start, node="n1"))
    assert outcome.status is FAILED
    assert "has not noticed" in outcome.detail
    assert stopped.api.writes == []
