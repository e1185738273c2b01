"""Remedies of VMs: what each rechecks, what it sends, and what it makes of KubeVirt's answers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from remediator.engine.model import (
    Action,
    KillPod,
    OutcomeStatus,
    RestartVm,
    Snapshot,
    SoftReboot,
    Unpause,
    vm_subject,
)
from remediator.kube.transport import Response

SPARED, SUCCEEDED, FAILED = OutcomeStatus.SPARED, OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED
SUB = "/apis/subresources.kubevirt.io/v1/namespaces/payments"
SOFT_REBOOT = f"{SUB}/virtualmachineinstances/db/softreboot"
UNPAUSE = f"{SUB}/virtualmachineinstances/db/unpause"
RESTART = f"{SUB}/virtualmachines/db/restart"
SNAPSHOTS = "/apis/snapshot.kubevirt.io/v1beta1/namespaces/payments/virtualmachinesnapshots"
SNAPSHOT = f"{SNAPSHOTS}/remediator-1"
ACCEPTED = Response(status=202, headers={}, body=b"")

OF_VMI = {"namespace": "payments", "vmi": "db", "vmi_uid": "vmi-uid", "node": "n1"}
OF_VM = {"namespace": "payments", "vm": "db", "vm_uid": "vm-uid"}
soft_reboot = SoftReboot(**OF_VMI, agent_lost=True)
unpause = Unpause(**OF_VMI, reason="PausedIOError")
restart = RestartVm(**OF_VM, vmi_uid="vmi-uid", node="n1")
kill_pod = KillPod(
    namespace="payments", vmi="db", pod="virt-launcher-db-x", pod_uid="pod-uid", node="n1"
)
snapshot = Snapshot(**OF_VM, name="remediator-1", node="n1")


def condition(kind: str, status: str = "True", reason: str = "") -> dict:
    return {"type": kind, "status": status, "reason": reason}


def vmi(*conditions: dict, uid: str = "vmi-uid", phase: str = "Running", **metadata) -> dict:
    return {
        "metadata": {"name": "db", "namespace": "payments", "uid": uid, **metadata},
        "status": {"phase": phase, "nodeName": "n1", "conditions": list(conditions)},
    }


def vm(strategy: str = "Always", *requests: str, uid: str = "vm-uid", **metadata) -> dict:
    return {
        "metadata": {"name": "db", "namespace": "payments", "uid": uid, **metadata},
        "spec": {"runStrategy": strategy},
        "status": {"stateChangeRequests": [{"action": each} for each in requests]},
    }


class Doing:
    """Runs one remedy; ``puts`` answers each PUT, after it has changed the objects."""

    def __init__(self, hands, make) -> None:
        self.hands, self.api, self.make = hands, hands.api, make

    async def do(self, work, *, deadline_s: float = 10.0):
        action = Action(
            id="inc-1/x/1",
            incident="inc-1",
            subject=vm_subject("payments", "db"),
            attempt=1,
            deadline_s=deadline_s,
            work=work,
        )
        self.hands.runner.start(action)
        before = len(self.hands.outcomes)
        loop_end = self.hands.clock.now() + deadline_s + 5
        while len(self.hands.outcomes) == before:
            assert self.hands.clock.now() < loop_end, "the action reported no outcome"
            await asyncio.sleep(0.05)
        return self.hands.outcomes[-1]

    def put_answers(self, *answers) -> None:
        self.api.faults["PUT"] = list(answers)

    def refuses(self, text: str = "VMI is not running") -> Response:
        body = {"kind": "Status", "code": 409, "reason": "Conflict", "message": text}
        return Response(status=409, headers={}, body=msgspec.json.encode(body))

    @property
    def sent(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path, _ in self.api.writes]


@pytest.fixture
def doing(hands, make) -> Doing:
    hands.api.put(make.VM, vm())
    hands.api.put(make.VMI, vmi())
    hands.api.put(make.POD, make.pod_object())
    hands.beats["n1"] = ("t0", hands.clock.now() - 5)
    return Doing(hands, make)


# --- soft reboot ----------------------------------------------------------------------------------


async def test_a_soft_reboot_is_asked_for_once(doing):
    doing.put_answers(ACCEPTED)
    outcome = await doing.do(soft_reboot)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert doing.sent == [("PUT", SOFT_REBOOT)]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (vmi(uid="other"), "created anew"),
        (vmi(phase="Failed"), "not Running"),
        (vmi(deletionTimestamp="2026-11-20T08:00:00Z"), "being stopped"),
        (vmi(condition("Paused", reason="PausedByUser")), "paused"),
        (vmi(condition("AgentConnected")), "answers again"),
        (vmi(annotations={"remediator.io/exclude": "yes"}), "hands off"),
    ],
)
async def test_a_guest_that_is_not_as_it_was_is_not_rebooted(doing, state, why):
    doing.api.put(doing.make.VMI, state)
    outcome = await doing.do(soft_reboot)
    assert outcome.status is SPARED
    assert why in outcome.detail
    assert doing.sent == []


async def test_a_soft_reboot_that_kubevirt_refuses_has_failed_with_its_words(doing):
    doing.put_answers(doing.refuses("VMI neither have the agent connected nor the ACPI feature"))
    outcome = await doing.do(soft_reboot)
    assert (outcome.status, outcome.changed) == (FAILED, False)
    assert "nor the ACPI feature" in outcome.detail


async def test_an_instance_that_went_meanwhile_is_spared(doing, make):
    doing.put_answers(make.status(404, "NotFound"))
    assert (await doing.do(soft_reboot)).status is SPARED


async def test_a_virt_handler_that_does_not_answer_is_a_failure(doing, make):
    doing.put_answers(*[make.status(500, "InternalError")] * 4)
    outcome = await doing.do(soft_reboot)
    assert outcome.status is FAILED
    assert "500" in outcome.detail


# --- unpause --------------------------------------------------------------------------------------


async def test_unpause_sees_the_guest_go_on(doing, make):
    doing.api.put(make.VMI, vmi(condition("Paused", reason="PausedIOError")))

    def go_on():
        doing.api.put(make.VMI, vmi())
        return ACCEPTED

    doing.put_answers(go_on)
    outcome = await doing.do(unpause)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert doing.sent == [("PUT", UNPAUSE)]


async def test_a_guest_that_goes_on_already_is_a_success_that_changes_nothing(doing):
    outcome = await doing.do(unpause)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert doing.sent == []


async def test_what_a_person_paused_is_never_let_go_on(doing, make):
    doing.api.put(make.VMI, vmi(condition("Paused", reason="PausedByUser")))
    outcome = await doing.do(unpause)
    assert outcome.status is SPARED
    assert doing.sent == []


async def test_a_guest_that_stays_paused_is_a_failure(doing, make):
    doing.api.put(make.VMI, vmi(condition("Paused", reason="PausedIOError")))
    doing.put_answers(ACCEPTED)
    outcome = await doing.do(unpause)
    assert outcome.status is FAILED
    assert "paused still: PausedIOError" in outcome.detail


# --- restart --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("forced", "body"), [(False, {}), (True, {"gracePeriodSeconds": 0})])
async def test_a_restart_is_seen_to_be_taken_up(doing, make, forced, body):
    def take_up():
        doing.api.put(make.VM, vm("Manual", "Stop", "Start"))
        return ACCEPTED

    doing.api.put(make.VM, vm("Manual"))
    doing.put_answers(take_up)
    outcome = await doing.do(msgspec.structs.replace(restart, forced=forced))
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert [(path, sent) for _, path, sent in doing.api.writes] == [(RESTART, body)]


@pytest.mark.parametrize("strategy", ["Halted", "Once", "WaitAsReceiver"])
async def test_what_its_owner_wants_down_is_not_restarted(doing, make, strategy):
    doing.api.put(make.VM, vm(strategy))
    assert (await doing.do(restart)).status is SPARED
    assert doing.sent == []


@pytest.mark.parametrize("case", ["new instance", "requested", "stopping"])
async def test_a_restart_that_is_under_way_is_not_asked_for_again(doing, make, case):
    if case == "new instance":
        doing.api.put(make.VMI, vmi(uid="another", phase="Scheduling"))
    elif case == "requested":
        doing.api.put(make.VM, vm("RerunOnFailure", "Stop", "Start"))
    else:
        doing.api.put(make.VMI, vmi(deletionTimestamp="2026-11-20T08:00:00Z"))
    outcome = await doing.do(restart)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert doing.sent == []


async def test_a_stop_of_the_owner_is_not_made_a_restart(doing, make):
    doing.api.put(make.VM, vm("RerunOnFailure", "Stop"))
    doing.api.put(make.VMI, vmi(deletionTimestamp="2026-11-20T08:00:00Z"))
    outcome = await doing.do(restart)
    assert outcome.status is SPARED
    assert "asks for no start" in outcome.detail


async def test_a_refused_restart_has_failed_and_changed_nothing(doing):
    doing.put_answers(doing.refuses("Halted does not support manual restart requests"))
    outcome = await doing.do(restart)
    assert (outcome.status, outcome.changed) == (FAILED, False)


async def test_one_request_that_is_under_way_already_is_told_as_it_is(doing, make):
    doing.api.put(make.VM, vm("Manual", "Start"))
    doing.put_answers(*[make.status(500, "InternalError")] * 4)
    outcome = await doing.do(restart)
    assert outcome.status is FAILED


# --- kill pod -------------------------------------------------------------------------------------


def being_deleted(doing) -> None:
    def delete(method: str, path: str) -> None:
        if method == "DELETE":
            doing.api.change(path, metadata={"deletionTimestamp": "2026-11-20T08:00:00Z"})

    doing.api.objects[doing.make.POD]["metadata"]["finalizers"] = ["kubelet's work"]
    doing.api.before = delete


@pytest.mark.parametrize(("grace_s", "words"), [(None, "its own grace"), (1, "1 s of grace")])
async def test_the_kubelet_is_asked_by_uid_and_with_grace(doing, make, grace_s, words):
    being_deleted(doing)
    outcome = await doing.do(msgspec.structs.replace(kill_pod, grace_s=grace_s))
    assert outcome.status is SUCCEEDED
    assert words in outcome.detail
    ((method, path, body),) = doing.api.writes
    assert (method, path) == ("DELETE", make.POD)
    assert body["preconditions"] == {"uid": "pod-uid"}
    assert body.get("gracePeriodSeconds") == grace_s


async def test_never_without_grace(doing):
    outcome = await doing.do(msgspec.structs.replace(kill_pod, grace_s=0))
    assert outcome.status is SPARED
    assert doing.sent == []


async def test_a_pod_that_is_gone_or_another_is_a_success_that_changes_nothing(doing, make):
    doing.api.put(make.POD, make.pod_object(uid="another"))
    outcome = await doing.do(kill_pod)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert doing.sent == []


@pytest.mark.parametrize("case", ["silent", "no lease", "fenced", "no node", "excluded"])
async def test_a_pod_on_a_host_that_does_not_answer_is_left_alone(doing, make, case):
    if case == "silent":
        doing.hands.beats["n1"] = ("t0", doing.hands.clock.now() - 21)
    elif case == "no lease":
        del doing.api.objects[make.LEASE]
    elif case == "fenced":
        taint = {"key": "remediator.io/fenced", "effect": "NoSchedule"}
        doing.api.change(make.NODE, spec={"taints": [taint]})
    elif case == "excluded":
        doing.api.change(make.NODE, metadata={"annotations": {"remediator.io/exclude": ""}})
    else:
        del doing.api.objects[make.NODE]
    assert (await doing.do(kill_pod)).status is SPARED
    assert doing.sent == []


async def test_a_host_that_renews_its_lease_just_now_answers(doing, make):
    doing.hands.beats["n1"] = ("t0", doing.hands.clock.now() - 60)
    doing.api.put(make.LEASE, make.lease_object("t1"))
    being_deleted(doing)
    assert (await doing.do(kill_pod)).status is SUCCEEDED


# --- snapshot -------------------------------------------------------------------------------------


def snapshot_object(phase: str, *, ready: bool = False, error: str = "", of: str = "db") -> dict:
    return {
        "metadata": {"name": "remediator-1", "namespace": "payments", "uid": "s"},
        "spec": {"source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": of}},
        "status": {"phase": phase, "readyToUse": ready, "error": {"message": error}},
    }


def storing(doing, *states: dict) -> None:
    """The snapshot goes through these states, one with each look at it after it was made."""
    left = list(states)

    def created():
        doing.api.put(SNAPSHOT, left.pop(0))
        return Response(status=201, headers={}, body=b"{}")

    def look(method: str, path: str) -> None:
        if (method, path) == ("GET", SNAPSHOT) and path in doing.api.objects and left:
            doing.api.put(SNAPSHOT, left.pop(0))

    doing.api.faults["POST"] = [created]
    doing.api.before = look


async def test_a_snapshot_is_followed_until_it_is_ready(doing):
    progress = snapshot_object("InProgress")
    storing(doing, progress, progress, snapshot_object("Succeeded", ready=True))
    outcome = await doing.do(snapshot, deadline_s=60.0)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    ((method, path, body),) = doing.api.writes
    assert (method, path) == ("POST", SNAPSHOTS)
    assert body["metadata"]["name"] == "remediator-1"
    assert body["spec"]["source"]["name"] == "db"
    assert body["spec"]["failureDeadline"] in ("59s", "60s")


async def test_a_repeat_follows_the_snapshot_that_is_there(doing):
    doing.api.put(SNAPSHOT, snapshot_object("Succeeded", ready=True))
    outcome = await doing.do(snapshot)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert doing.sent == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (snapshot_object("Failed", error="the storage is full"), "the storage is full"),
        (snapshot_object("InProgress", error="no driver"), "not ready in time"),
        (snapshot_object("Succeeded", ready=True, of="other"), "not of this VM"),
    ],
)
async def test_a_snapshot_that_comes_to_nothing_is_a_failure(doing, state, words):
    storing(doing, state)
    outcome = await doing.do(snapshot, deadline_s=10.0)
    assert outcome.status is FAILED
    assert words in outcome.detail


def with_volumes(doing, *, disk: bool) -> None:
    """A VM with a disk and what nearly every VM has besides: a cloud-init volume."""
    statuses = [
        {"name": "disk", "enabled": disk, "reason": "" if disk else "no VolumeSnapshotClass"},
        {"name": "init", "enabled": False, "reason": "not supported for this volumeSource type"},
    ]
    volumes = [
        {"name": "disk", "persistentVolumeClaim": {"claimName": "db-disk"}},
        {"name": "init", "cloudInitNoCloud": {"userData": ""}},
    ]
    doing.api.change(
        doing.make.VM,
        spec={"template": {"spec": {"volumes": volumes}}},
        status={"volumeSnapshotStatuses": statuses},
    )


async def test_what_keeps_nothing_needs_no_snapshot(doing):
    with_volumes(doing, disk=True)
    storing(doing, snapshot_object("Succeeded", ready=True))
    assert (await doing.do(snapshot)).status is SUCCEEDED


async def test_a_storage_that_makes_none_is_spared_and_named(doing):
    with_volumes(doing, disk=False)
    outcome = await doing.do(snapshot)
    assert outcome.status is SPARED
    assert "disk (no VolumeSnapshotClass)" in outcome.detail
    assert doing.sent == []


async def test_a_host_that_falls_silent_ends_the_wait(doing):
    storing(doing, snapshot_object("InProgress"))
    began_at = doing.hands.clock.now()
    outcome = await doing.do(snapshot, deadline_s=300.0)
    assert outcome.status is SPARED
    assert "does not answer any more" in outcome.detail
    assert doing.hands.clock.now() - began_at < 25


async def test_nobody_writes_who_does_not_lead_any_more(doing, make):
    doing.hands.runner._leads = lambda: False
    doing.api.put(make.VM, vm("Manual"))
    for work in (soft_reboot, restart, kill_pod, snapshot):
        assert (await doing.do(work)).status is SPARED
    assert doing.sent == []
