"""Migrate: an eviction only where it means a migration, a migration of our own elsewhere."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.model import CancelMigration, Migrate, OutcomeStatus
from remediator.kube.transport import Response

SPARED, SUCCEEDED, FAILED = OutcomeStatus.SPARED, OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED
MIGRATIONS = "/apis/kubevirt.io/v1/namespaces/payments/virtualmachineinstancemigrations"
MINE = f"{MIGRATIONS}/remediator-inc-1-1-db"
CANCEL = (
    "/apis/subresources.kubevirt.io/v1/namespaces/payments/virtualmachineinstances/db/"
    "evacuate/cancel"
)
WEBHOOK = 'admission webhook "x" denied the request: '
ACCEPTED = WEBHOOK + 'Eviction triggered evacuation of VMI "payments/db"'
GOING_ON = WEBHOOK + "Evacuation in progress: it was asked for before"
NOT_MIGRATABLE = (
    WEBHOOK + "VMI db is configured with an eviction strategy but is not live-migratable"
)
BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."


def says(code: int, message: str, reason: str = "") -> Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return Response(status=code, headers={}, body=msgspec.json.encode(body))


def vmi(node="n1", phase="Running", migratable="True", uid="vmi-uid", **status):
    return {
        "metadata": {"name": "db", "namespace": "payments", "uid": uid},
        "status": {
            "phase": phase,
            "nodeName": node,
            "conditions": [
                {"type": "LiveMigratable", "status": migratable, "reason": "DisksNotLiveMigratable"}
            ],
            **status,
        },
    }


def migration(phase="Scheduling", vmi_name="db", uid="m-uid", **metadata):
    meta = {"name": "remediator-inc-1-1-db", "namespace": "payments", "uid": uid, **metadata}
    return {"metadata": meta, "spec": {"vmiName": vmi_name}, "status": {"phase": phase}}


def work(**fields):
    given = {
        "node": "n1",
        "node_uid": "node-uid",
        "namespace": "payments",
        "vmi": "db",
        "vmi_uid": "vmi-uid",
        "pod": "virt-launcher-db-x",
        "pod_uid": "pod-uid",
        "migration": "remediator-inc-1-1-db",
        **fields,
    }
    return Migrate(**given)


def cancel(**fields):
    given = {
        "node": "n1",
        "namespace": "payments",
        "vmi": "db",
        "vmi_uid": "vmi-uid",
        "migration": "remediator-inc-1-1-db",
        "migration_uid": "m-uid",
        **fields,
    }
    return CancelMigration(**given)


@pytest.fixture
def running(hands, make):
    hands.api.put(make.VMI, vmi())
    hands.api.put(make.POD, make.pod_object())
    return hands


def posts(hands):
    return [(path, body) for method, path, body in hands.api.calls if method == "POST"]


def is_dry(body):
    return body["deleteOptions"].get("dryRun") == ["All"]


async def test_an_eviction_is_rehearsed_then_asked_for(running, make):
    def accept():
        running.api.change(make.VMI, status={"evacuationNodeName": "n1"})
        return says(429, ACCEPTED)

    running.api.faults["POST"] = [says(429, ACCEPTED), accept]
    outcome = await running.do(work())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert [is_dry(body) for _, body in posts(running)] == [True, False]
    assert all(
        body["deleteOptions"]["preconditions"] == {"uid": "pod-uid"} for _, body in posts(running)
    )


async def test_an_eviction_that_would_be_granted_is_never_asked_for(running, make):
    def make_it():
        running.api.put(MINE, migration())
        return says(201, "")

    running.api.faults["POST"] = [says(201, ""), make_it]
    outcome = await running.do(work())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    (dry_path, dry), (made_path, made) = posts(running)
    assert is_dry(dry)
    assert dry_path.endswith("/eviction")
    assert made_path == MIGRATIONS
    assert made["spec"] == {"vmiName": "db"}
    assert make.POD in running.api.objects


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (BUDGET, "a PodDisruptionBudget forbids its eviction"),
        (NOT_MIGRATABLE, "its eviction was refused"),
        ("too many requests", "its eviction was refused"),
    ],
)
async def test_any_other_429_is_a_refusal_and_is_not_repeated(running, said, why):
    running.api.faults["POST"] = [says(429, said)]
    outcome = await running.do(work())
    assert (outcome.status, outcome.changed) == (FAILED, False)
    assert outcome.detail.startswith(why)
    assert len(posts(running)) == 1


async def test_the_name_of_a_pod_does_not_make_a_refusal_an_acceptance(running, make):
    name = "virt-launcher-evacuation-in-progress"
    path = make.POD.rsplit("/", 1)[0] + f"/{name}"
    running.api.put(path, make.pod_object(name=name))
    running.api.faults["POST"] = [says(429, BUDGET)]
    outcome = await running.do(work(pod=name))
    assert outcome.status is FAILED


async def test_an_eviction_in_progress_counts_as_accepted(running, make):
    def accept():
        running.api.change(make.VMI, status={"evacuationNodeName": "n1"})
        return says(429, GOING_ON)

    running.api.faults["POST"] = [says(429, GOING_ON), accept]
    assert (await running.do(work())).status is SUCCEEDED


async def test_an_acceptance_that_leaves_no_trace_is_a_failure(running):
    running.api.faults["POST"] = [says(429, ACCEPTED), says(429, ACCEPTED)]
    outcome = await running.do(work())
    assert (outcome.status, outcome.changed) == (FAILED, True)


async def test_a_better_node_is_asked_for_by_a_migration_of_our_own(running):
    def make_it():
        running.api.put(MINE, migration())
        return says(201, "")

    running.api.faults["POST"] = [make_it]
    outcome = await running.do(work(target="n4"))
    assert outcome.status is SUCCEEDED
    ((path, body),) = posts(running)
    assert path == MIGRATIONS
    assert body["spec"] == {
        "vmiName": "db",
        "addedNodeSelector": {"kubernetes.io/hostname": "n4"},
    }
    assert body["metadata"]["labels"] == {"remediator.io/incident": "inc-1"}


async def test_a_migration_that_kubevirt_refuses_says_why(running):
    running.api.faults["POST"] = [says(400, "Cannot migrate VMI, Reason: x", "BadRequest")]
    outcome = await running.do(work(target="n4"))
    assert (outcome.status, outcome.changed) == (FAILED, False)
    assert "KubeVirt refuses to migrate it: Cannot migrate VMI" in outcome.detail


async def test_a_repeat_finds_the_migration_that_was_made(running):
    running.api.put(MINE, migration())
    running.api.faults["POST"] = [says(409, "there is one", "AlreadyExists")]
    outcome = await running.do(work(target="n4"))
    assert outcome.status is SUCCEEDED


@pytest.mark.parametrize(
    ("obj", "why"),
    [(migration("Failed"), "has ended"), (migration(vmi_name="other"), "of another VM")],
)
async def test_a_migration_that_is_not_it_is_no_success(running, obj, why):
    running.api.put(MINE, obj)
    running.api.faults["POST"] = [says(409, "there is one", "AlreadyExists")]
    outcome = await running.do(work(target="n4"))
    assert outcome.status is FAILED
    assert why in outcome.detail


@pytest.mark.parametrize(
    "seen",
    [
        vmi(node="n2"),
        vmi(evacuationNodeName="n1"),
        vmi(migrationState={"migrationUid": "m", "sourceNode": "n1"}),
    ],
    ids=["moved", "told", "under-way"],
)
async def test_what_is_so_already_needs_nothing(running, make, seen):
    running.api.put(make.VMI, seen)
    outcome = await running.do(work())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert posts(running) == []


@pytest.mark.parametrize(
    "seen",
    [vmi(uid="another"), vmi(phase="Scheduling"), vmi(migratable="False")],
    ids=["anew", "not-running", "not-migratable"],
)
async def test_what_must_not_be_moved_is_spared(running, make, seen):
    running.api.put(make.VMI, seen)
    assert (await running.do(work())).status is SPARED
    assert posts(running) == []


async def test_a_migration_of_before_that_has_ended_is_no_obstacle(running, make):
    def make_it():
        running.api.put(MINE, migration())
        return says(201, "")

    state = {"migrationUid": "old", "completed": True, "failed": True}
    running.api.put(make.VMI, vmi(migrationState=state))
    running.api.faults["POST"] = [make_it]
    assert (await running.do(work(target="n4"))).status is SUCCEEDED


@pytest.mark.parametrize("case", ["excluded", "another", "gone", "pod-gone"])
async def test_the_ground_is_rechecked(running, make, case):
    if case == "excluded":
        running.api.change(make.NODE, metadata={"annotations": {"remediator.io/exclude": ""}})
    elif case == "another":
        running.api.change(make.NODE, metadata={"uid": "another"})
    elif case == "gone":
        del running.api.objects[make.NODE]
    else:
        del running.api.objects[make.POD]
    assert (await running.do(work())).status is SPARED
    assert posts(running) == []


async def test_a_request_without_an_answer_is_not_repeated_blindly(running):
    running.api.faults["POST"] = ["reset"]
    outcome = await running.do(work())
    assert outcome.status is FAILED
    assert len(posts(running)) == 1


# --- taking it back -------------------------------------------------------------------------------


async def test_the_evacuation_is_taken_back_before_the_migration_goes(running, make):
    running.api.put(make.VMI, vmi(evacuationNodeName="n1"))
    running.api.put(MINE, migration())
    running.api.put(CANCEL, {"metadata": {"name": "db"}})
    outcome = await running.do(cancel())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert [(method, path) for method, path, _ in running.api.writes] == [
        ("PUT", CANCEL),
        ("DELETE", MINE),
    ]
    assert running.api.writes[0][2] == {"evacuationNodeName": "n1"}


async def test_a_kubevirt_that_cannot_take_it_back_is_told_of(running, make):
    running.api.put(make.VMI, vmi(evacuationNodeName="n1"))
    running.api.put(MINE, migration())
    outcome = await running.do(cancel())
    assert outcome.status is SUCCEEDED
    assert "will try again" in outcome.detail


async def test_an_evacuation_off_another_node_is_not_ours(running, make):
    running.api.put(make.VMI, vmi(node="n2", evacuationNodeName="n2"))
    outcome = await running.do(cancel())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert running.api.writes == []


async def test_a_migration_of_another_uid_is_not_deleted(running):
    running.api.put(MINE, migration(uid="another"))
    outcome = await running.do(cancel())
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert running.api.writes == []


async def test_one_that_does_not_end_is_a_failure(running):
    running.api.put(MINE, migration("Running", finalizers=["kubevirt.io/x"]))
    outcome = await running.do(cancel())
    assert (outcome.status, outcome.changed) == (FAILED, True)
    assert "does not end" in outcome.detail
