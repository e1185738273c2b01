"""What is done about a VM: its policy's steps, what each means, and when it has helped."""

from __future__ import annotations

import msgspec
import pytest
from vm_world import VmWorld

from remediator.engine import vm_view
from remediator.engine.chain import DecisionKind
from remediator.engine.events import ActionFinished, ObjectSeen, OwnHealthSeen, PoliciesLoaded
from remediator.engine.model import (
    IncidentState,
    KillPod,
    Outcome,
    OutcomeStatus,
    RestartVm,
    RunStrategy,
    Snapshot,
    SoftReboot,
    StartVm,
    Unpause,
    Verdict,
)
from remediator.engine.rules import Limits, OnFailure, Policy, StepOptions, SubjectKind
from remediator.engine.views import Surroundings

LADDER = ("soft-reboot", "restart", "force-stop")
SPARED, FAILED = OutcomeStatus.SPARED, OutcomeStatus.FAILED


def policy(*steps: str, verdicts=(Verdict.GUEST_SILENT,), name: str = "of-vms", **fields) -> Policy:
    return Policy(
        name=name,
        source="test",
        content_hash="1" * 64,
        verdicts=verdicts,
        steps=steps,
        subject=SubjectKind.VM,
        **fields,
    )


@pytest.fixture
def world_of(make_cluster):
    def build(*policies: Policy, **options) -> VmWorld:
        return VmWorld(make_cluster(policies=list(policies), **options))

    return build


@pytest.fixture
def world(world_of) -> VmWorld:
    return world_of(policy(*LADDER))


def fall_silent(world: VmWorld, **fields: object) -> None:
    """A VM whose guest agent is lost, until something is begun about it."""
    world.add(**fields)
    world.vmi(agent_connected=False)
    world.cluster.until(lambda: world.cluster.actions)


def await_action(world: VmWorld, kind: type, limit_s: float = 600):
    world.cluster.until(lambda: world.cluster.actions, limit_s=limit_s)
    (action,) = world.cluster.actions
    assert isinstance(action.work, kind), action.work
    return action


def restarted(world: VmWorld, node: str = "n2", *, agent: bool = True) -> None:
    """KubeVirt carries a restart out: the old instance goes, a new one comes."""
    world.vm(status="Stopping", requests=("Stop", "Start"))
    world.vmi(deleting=True, ready=False)
    world.pod(deleting=True, grace_s=60.0)
    world.cluster.run(20)
    world.drop_pod()
    world.drop_vmi()
    world.vm(status="Starting", requests=("Start",))
    world.launch(node=node, agent=agent)
    world.vm(status="Running", requests=())


def works(world: VmWorld) -> list[str]:
    return [
        str(type(each.action.work).__struct_config__.tag)
        for each in world.cluster.kinds(DecisionKind.STARTED)
    ]


# --- the ladder -----------------------------------------------------------------------------------


def test_a_soft_reboot_that_helps_ends_it_once_the_agent_has_answered_for_a_while(world):
    fall_silent(world)
    action = world.cluster.answer()
    assert action.work == SoftReboot(
        namespace="ns", vmi="db", vmi_uid=world.vmis["db"].uid, node="n1", agent_lost=True
    )
    assert world.incident().state is IncidentState.REMEDYING
    world.cluster.run(60)
    world.vmi(agent_connected=True)
    world.cluster.run(20)
    assert world.incident() is not None
    world.cluster.run(20)
    assert world.incident() is None
    assert works(world) == ["soft-reboot"]
    assert world.records()[-1].why.startswith("nothing has spoken against it for 3")


def test_each_step_is_begun_once_the_one_before_has_had_its_time(world):
    fall_silent(world)
    world.cluster.answer()
    begun_at = world.cluster.now
    action = await_action(world, RestartVm)
    assert world.cluster.now - begun_at == pytest.approx(180, abs=8)
    assert not action.work.forced
    world.cluster.answer()
    begun_at = world.cluster.now
    action = await_action(world, RestartVm)
    assert world.cluster.now - begun_at == pytest.approx(360, abs=8)
    assert action.work.forced
    assert [each.why for each in world.cluster.kinds(DecisionKind.MOVED_ON)] == [
        "soft-reboot did not help: it is not well 180 s later",
        "restart did not help: it is not well 360 s later",
    ]


def test_a_restart_has_helped_when_the_guest_agent_of_the_new_run_answers(world_of):
    world = world_of(policy("restart"))
    fall_silent(world)
    world.cluster.answer()
    restarted(world)
    world.cluster.run(8)
    assert world.incident() is None
    assert world.records()[-1].why == "up again on n2: its guest agent answers"


def test_our_own_stop_is_not_taken_for_the_owners(world_of):
    world = world_of(policy("restart"))
    fall_silent(world, strategy=RunStrategy.RERUN_ON_FAILURE)
    world.cluster.answer()
    world.vm(status="Stopping", requests=("Stop", "Start"))
    world.vmi(deleting=True, ready=False)
    world.pod(deleting=True, grace_s=60.0)
    world.cluster.run(40)
    world.drop_pod()
    world.drop_vmi()
    world.vm(status="Stopped", requests=("Start",))
    world.cluster.run(60)
    assert world.incident().state is IncidentState.REMEDYING


def test_a_stop_of_the_owner_in_the_middle_ends_it(world_of):
    world = world_of(policy("restart"))
    fall_silent(world, strategy=RunStrategy.RERUN_ON_FAILURE)
    world.cluster.answer()
    world.vm(status="Stopping", requests=("Stop",))
    world.vmi(deleting=True, ready=False)
    world.cluster.run(20)
    assert world.incident() is None
    assert world.records()[-1].why == "its owner has stopped or deleted it meanwhile"
    world.cluster.run(1000)
    assert works(world) == ["restart"]


def test_a_new_run_without_its_agent_is_taken_for_well_only_when_its_time_is_over(world_of):
    world = world_of(policy("restart", "force-stop"))
    fall_silent(world)
    world.cluster.answer()
    restarted(world, agent=False)
    world.cluster.run(200)
    assert world.incident() is not None
    world.cluster.run(200)
    assert world.incident() is None
    assert "its guest agent was not heard since" in world.records()[-1].why
    assert works(world) == ["restart"]


def test_a_vm_that_never_had_an_agent_is_well_when_it_has_run_for_a_while(world_of):
    world = world_of(policy("restart", verdicts=(Verdict.PAUSED,)))
    world.add(agent=False)
    world.vmi(paused="PausedIOError")
    await_action(world, RestartVm)
    world.cluster.answer()
    restarted(world, agent=False)
    world.cluster.run(20)
    assert world.incident() is not None
    world.cluster.run(20)
    assert world.records()[-1].why.startswith("up again on n2: running for 3")


def test_a_stopped_instance_that_does_not_go_is_ended_by_the_kubelet_with_grace(world_of):
    world = world_of(policy("restart", "force-stop"))
    fall_silent(world)
    world.cluster.answer()
    world.vm(status="Stopping")
    world.vmi(deleting=True, ready=False)
    world.pod(deleting=True, grace_s=3600.0)
    action = await_action(world, KillPod)
    assert action.work.pod_uid == world.pods["db"].uid
    assert action.work.node == "n1"
    assert action.work.grace_s == 1


def test_a_pod_that_nobody_deletes_yet_gets_its_own_grace(world_of):
    world = world_of(policy("force-stop"))
    fall_silent(world)
    world.cluster.answer()
    world.vmi(deleting=True, ready=False)
    action = await_action(world, KillPod)
    assert action.work.grace_s is None


# --- what comes after a failure -------------------------------------------------------------------


def test_when_nothing_helps_a_human_is_told_and_the_plan_begins_anew_later(world_of):
    world = world_of(policy("soft-reboot"))
    fall_silent(world)
    world.cluster.answer()
    world.cluster.until(lambda: world.incident().state is IncidentState.ESCALATED)
    assert "no step is left; tried again in 900 s" in world.cluster.notices[-1]
    told_at = world.cluster.now
    action = await_action(world, SoftReboot, limit_s=1000)
    assert world.cluster.now - told_at == pytest.approx(900, abs=8)
    assert action.id.endswith("/soft-reboot/2")


def test_hold_after_a_failure_does_nothing_more_until_the_evidence_changes(world_of):
    held = {"soft-reboot": StepOptions(on_failure=OnFailure.HOLD)}
    world = world_of(policy("soft-reboot", "restart", step_options=held))
    fall_silent(world)
    world.cluster.answer()
    world.cluster.run(3000)
    assert works(world) == ["soft-reboot"]
    assert world.incident().state is IncidentState.ESCALATED


def test_escalate_after_a_failure_tries_the_same_step_again_slowly(world_of):
    slow = {"soft-reboot": StepOptions(on_failure=OnFailure.ESCALATE, timeout_s=30.0)}
    world = world_of(policy("soft-reboot", "restart", step_options=slow))
    fall_silent(world)
    world.cluster.answer()
    world.cluster.run(960)
    assert works(world) == ["soft-reboot", "soft-reboot"]


def test_a_step_is_tried_as_often_as_its_policy_says(world_of):
    thrice = {"soft-reboot": StepOptions(attempts=3, timeout_s=20.0, on_failure=OnFailure.NEXT)}
    world = world_of(policy("soft-reboot", "hold", step_options=thrice))
    fall_silent(world)
    for _ in range(3):
        await_action(world, SoftReboot)
        world.cluster.answer()
    world.cluster.run(100)
    assert works(world) == ["soft-reboot"] * 3


def test_a_request_that_fails_is_repeated_before_the_next_step_is_taken(world):
    fall_silent(world)
    for _ in range(3):
        await_action(world, SoftReboot)
        world.cluster.answer(status=FAILED, detail="500: no answer")
    await_action(world, RestartVm)
    (moved,) = world.cluster.kinds(DecisionKind.MOVED_ON)
    assert moved.why == "soft-reboot did not help: 500: no answer"


@pytest.mark.parametrize("named", ["of-vms", "another"])
def test_a_hold_ends_with_the_policy_that_asked_for_it(world_of, named):
    world = world_of(policy("hold"))
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(2000)
    assert world.cluster.actions == []
    other = msgspec.structs.replace(policy("soft-reboot", name=named), content_hash="2" * 64)
    world.cluster.handle(PoliciesLoaded(policies=(other,)))
    await_action(world, SoftReboot)


def test_hold_as_a_step_tells_a_human_once(world_of):
    world = world_of(policy("notify", "hold"))
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(2000)
    assert world.cluster.actions == []
    assert [each for each in world.cluster.notices if "hold: policy" in each] == [
        "hold: policy of-vms does nothing more about it"
    ]
    assert [each for each in world.cluster.notices if each.startswith("notify")] == [
        "notify: vm/ns/db is GuestSilent (agent-lost)"
    ]


def test_another_verdict_is_another_question(world_of):
    world = world_of(
        policy("hold"),
        policy("unpause", verdicts=(Verdict.PAUSED,), name="paused"),
    )
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.until(lambda: world.incident() and world.incident().plan)
    world.vmi(paused="PausedIOError")
    action = await_action(world, Unpause)
    assert action.work.reason == "PausedIOError"
    assert world.incident().plan.policy == "paused"


# --- what a step means ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        (RunStrategy.ONCE, "Once: it is to have one run, and KubeVirt refuses to restart it"),
        (RunStrategy.NONE, "no VirtualMachine owns it: nobody would make it anew"),
    ],
)
def test_what_kubevirt_would_not_make_anew_is_never_stopped(world_of, strategy, why):
    world = world_of(policy("restart", "force-stop"))
    if strategy is RunStrategy.NONE:
        world.launch(agent=True)
        world.cluster.run(301)
    else:
        world.add(strategy=strategy)
    world.vmi(agent_connected=False)
    world.cluster.until(lambda: world.cluster.kinds(DecisionKind.ESCALATED))
    assert [each.why for each in world.cluster.kinds(DecisionKind.MOVED_ON)] == [
        f"restart does not apply: {why}",
        f"force-stop does not apply: {why}",
    ]
    assert world.cluster.actions == []


def test_a_manual_vm_that_runs_is_restarted_and_one_that_has_failed_is_not(world_of):
    world = world_of(policy("restart", verdicts=(Verdict.GUEST_SILENT, Verdict.CRASHED)))
    fall_silent(world, strategy=RunStrategy.MANUAL)
    assert isinstance(world.cluster.answer().work, RestartVm)
    world.vm("mail", run_strategy=RunStrategy.MANUAL)
    world.launch("mail")
    world.cluster.run(10)
    world.fail("mail")
    world.cluster.until(lambda: [e for e in world.records("mail") if e.kind == "escalated"])
    (moved,) = [e for e in world.records("mail") if e.kind is DecisionKind.MOVED_ON]
    assert moved.why.endswith("Manual: it has ended, and only a person starts it")


def test_start_manual_starts_a_manual_vm_that_has_failed(world_of):
    world = world_of(policy("restart", verdicts=(Verdict.CRASHED,), start_manual=True))
    world.add(strategy=RunStrategy.MANUAL)
    world.fail()
    action = await_action(world, StartVm)
    assert action.work == StartVm(namespace="ns", vm="db", vm_uid="vm-db")
    world.cluster.answer()
    world.drop_vmi()
    world.launch(agent=True)
    world.cluster.run(8)
    assert world.incident() is None


def test_a_guest_that_a_person_paused_is_let_be(world_of):
    world = world_of(policy("unpause", verdicts=(Verdict.PAUSED,)))
    world.add()
    world.vmi(paused="PausedByUser")
    world.cluster.run(600)
    assert world.cluster.actions == []


def test_a_snapshot_comes_first_and_what_follows_waits_for_it(world_of):
    world = world_of(policy("snapshot", "restart"))
    world.add()
    world.vmi(claims=("disk",))
    world.vmi(agent_connected=False)
    action = await_action(world, Snapshot)
    assert action.deadline_s == 300
    assert action.work.name.startswith("remediator-vm-db-inc-")
    world.cluster.run(100)
    assert world.cluster.actions == [action]
    world.cluster.answer()
    await_action(world, RestartVm, limit_s=10)


def test_a_storage_that_makes_no_snapshots_does_not_hold_up_the_rest(world_of):
    strict = {"snapshot": StepOptions(on_failure=OnFailure.HOLD)}
    world = world_of(policy("snapshot", "restart", step_options=strict))
    world.add()
    world.vmi(claims=("disk",), agent_connected=False)
    await_action(world, Snapshot)
    world.cluster.answer(status=SPARED, detail="its storage makes no snapshots of disk")
    await_action(world, RestartVm, limit_s=10)


def test_a_snapshot_that_fails_holds_the_rest_where_the_policy_says_so(world_of):
    strict = {"snapshot": StepOptions(on_failure=OnFailure.HOLD)}
    world = world_of(policy("snapshot", "restart", step_options=strict))
    world.add()
    world.vmi(claims=("disk",), agent_connected=False)
    await_action(world, Snapshot)
    world.cluster.answer(status=FAILED, detail="snapshot failed: the storage is full")
    world.cluster.run(1000)
    assert works(world) == ["snapshot"]
    assert "the storage is full" in world.cluster.notices[-1]


# --- guards, host, ourselves ----------------------------------------------------------------------


def test_observe_mode_says_what_would_be_done_and_does_nothing(world_of):
    world = world_of(policy(*LADDER), enforce=False)
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(1000)
    assert world.cluster.actions == []
    (planned,) = world.cluster.kinds(DecisionKind.PLANNED)
    assert planned.plan.steps == LADDER
    (refused,) = world.cluster.kinds(DecisionKind.REFUSED)
    assert "would soft-reboot, restart, force-stop vm/ns/db" in refused.why
    assert world.incident().state is IncidentState.HELD


def test_without_a_policy_nothing_is_said_beyond_the_verdict(world_of):
    world = world_of(policy("restart", namespaces=("other",)))
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(1000)
    assert world.story() == ["opened suspected agent-lost", "verdict confirmed agent-lost"]


def test_nothing_is_begun_while_the_host_is_in_doubt_and_its_time_does_not_count(world):
    fall_silent(world)
    world.cluster.answer()
    world.cluster.run(100)
    world.cluster.silent.add("n1")
    world.cluster.run(300)
    assert works(world) == ["soft-reboot"]
    assert world.incident() is not None, "what was begun is not forgotten"
    world.cluster.silent.discard("n1")
    back_at = world.cluster.now
    await_action(world, RestartVm)
    assert world.cluster.now - back_at >= 180


def test_a_host_that_is_lost_in_the_middle_takes_the_vm_over(make_cluster, node_policy):
    world = VmWorld(make_cluster(policies=[node_policy, policy(*LADDER)]))
    fall_silent(world)
    world.cluster.answer()
    world.cluster.fence_through("n1")
    world.cluster.run(8)
    assert world.incident() is None
    closing = world.records()[-1]
    assert closing.why.endswith("goes on with it")
    assert works(world)[-1] == "force-stop"


def test_an_outcome_that_comes_after_the_incident_is_taken_in(world):
    fall_silent(world)
    world.drop_pod()
    world.drop_vmi()
    world.drop_vm()
    world.cluster.answer()
    world.cluster.run(60)
    assert world.incident() is None
    assert world.cluster.engine.state.busy == {}
    assert world.cluster.engine.state.pending == {}


def test_while_we_are_unwell_ourselves_no_step_is_found_wanting(world):
    fall_silent(world)
    world.cluster.answer()
    world.cluster.run(170)
    for _ in range(300):
        world.cluster.handle(OwnHealthSeen(loop_lag_s=10.0))
        world.cluster.run(1)
    assert works(world) == ["soft-reboot"]


# --- the memory -----------------------------------------------------------------------------------


def test_a_replay_gives_the_same_memory_after_every_record(world):
    fall_silent(world)
    world.cluster.answer()
    await_action(world, RestartVm)
    world.cluster.answer(status=FAILED)
    await_action(world, RestartVm)
    world.cluster.answer()
    again = world.cluster.reborn()
    assert again.engine.state == world.cluster.engine.state


def test_a_new_leader_repeats_what_has_no_outcome_and_waits_for_the_rest(world):
    fall_silent(world)
    action = world.cluster.actions[0]
    heir = world.cluster.reborn()
    heir.lead(sync=False)
    for table in (world.vms, world.vmis, world.pods):
        for facts in table.values():
            heir.handle(ObjectSeen(facts=facts))
    heir.sync()
    heir.run(5)
    assert heir.actions == [action]
    assert heir.kinds(DecisionKind.RESUMED)[0].action == action
    heir.answer()
    world.cluster = heir
    assert world.incident().awaiting
    await_action(world, RestartVm, limit_s=1000)


def test_nothing_more_is_begun_about_a_vm_that_is_well_for_the_moment(world):
    fall_silent(world)
    world.vmi(agent_connected=True)
    world.cluster.answer(status=SPARED, detail="its guest agent answers again")
    world.cluster.run(25)
    assert world.cluster.actions == []
    world.cluster.run(10)
    assert world.incident() is None


def test_a_new_leader_restarts_no_guest_that_came_back_while_nobody_led(world_of):
    world = world_of(policy("restart"))
    fall_silent(world)
    assert isinstance(world.cluster.actions[0].work, RestartVm)
    heir = world.cluster.reborn()
    heir.lead(sync=False)
    world.cluster = heir
    world.vm()
    world.pod()
    world.vmi(agent_connected=True)
    heir.sync()
    heir.run(300)
    assert heir.actions == []
    assert heir.engine.state.busy == {}


def test_the_steps_of_one_remedy_are_no_crash_loop_but_its_repetition_is(world):
    fall_silent(world)
    for kind in (SoftReboot, RestartVm, RestartVm):
        await_action(world, kind)
        world.cluster.answer()
    world.vm(status="Stopping", requests=("Stop", "Start"))
    world.vmi(deleting=True, ready=False)
    world.pod(deleting=True, grace_s=3600.0)
    await_action(world, KillPod)
    world.cluster.answer()
    world.drop_pod()
    world.drop_vmi()
    world.launch(agent=True)
    world.vm(status="Running", requests=())
    world.cluster.until(lambda: world.incident() is None)
    world.cluster.run(301)
    world.vmi(agent_connected=False)
    for kind in (SoftReboot, RestartVm):
        await_action(world, kind)
        world.cluster.answer()
    world.cluster.run(400)
    assert works(world) == [
        *("soft-reboot", "restart", "restart", "kill-pod"),
        *("soft-reboot", "restart"),
    ]
    assert "crash-loop: restarted 3 times" in world.cluster.notices[-1]


def test_a_restart_that_kubevirt_refused_does_not_count_as_one(world_of):
    world = world_of(policy("restart"))
    fall_silent(world)
    refused = Outcome(
        action_id="",
        status=FAILED,
        detail="the restart was refused",
        started_at=0.0,
        finished_at=0.0,
        changed=False,
    )
    for _ in range(3):
        action = await_action(world, RestartVm)
        world.cluster.actions.remove(action)
        outcome = msgspec.structs.replace(refused, action_id=action.id)
        world.cluster.handle(ActionFinished(outcome=outcome))
    assert world.cluster.engine.state.disruptions == []


# --- what people see ------------------------------------------------------------------------------


def due_of(world: VmWorld) -> tuple[str, list[str]]:
    engine = world.cluster.engine
    around = Surroundings(at=world.cluster.now)
    found = vm_view.view(engine.context, engine.vms, around, "ns", "db")
    return found.incident.plan, [each.what for each in found.due]


def test_the_view_shows_the_plan_the_step_and_what_comes_next(world):
    fall_silent(world)
    assert due_of(world) == (
        "of-vms: [soft-reboot], restart, force-stop",
        [f"soft-reboot is under way: {world.cluster.actions[0].id}"],
    )
    world.cluster.answer()
    world.cluster.run(60)
    found = vm_view.view(
        world.cluster.engine.context,
        world.cluster.engine.vms,
        Surroundings(at=world.cluster.now),
        "ns",
        "db",
    )
    (awaited,) = found.due
    assert awaited.what == "soft-reboot has not helped, unless it is well"
    assert awaited.in_s == pytest.approx(120, abs=8)
    await_action(world, RestartVm)
    assert due_of(world)[0] == "of-vms: soft-reboot, [restart], force-stop"


def test_the_view_says_why_nothing_is_done(world_of):
    world = world_of(policy("restart", namespaces=("other",)))
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(400)
    assert due_of(world) == (
        "",
        ["a human was told: none of its policies matches now (of-vms)"],
    )
    world = world_of(policy("restart"), enforce=False)
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(400)
    assert due_of(world)[1] == ["restart waits for the guards: mode"]


def test_the_view_says_when_a_plan_that_is_through_begins_anew(world_of):
    world = world_of(policy("soft-reboot"))
    fall_silent(world)
    world.cluster.answer()
    world.cluster.until(lambda: world.incident().state is IncidentState.ESCALATED)
    plan, (what,) = due_of(world)
    assert (plan, what) == ("of-vms: [soft-reboot]", "soft-reboot is tried")


def test_an_agent_that_only_the_leader_before_has_heard_is_missed_by_the_next(world):
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(200)
    assert world.incident().state is IncidentState.SUSPECTED
    heir = world.cluster.reborn()
    heir.lead(sync=False)
    # A replica that starts now sees a VMI without the condition, as of one that has no agent.
    world.vmis["db"] = msgspec.structs.replace(world.vmis["db"], agent_known=False)
    for table in (world.vms, world.vmis, world.pods):
        for facts in table.values():
            heir.handle(ObjectSeen(facts=facts))
    heir.sync()
    world.cluster = heir
    await_action(world, SoftReboot, limit_s=1000)


def test_what_cannot_be_done_is_said_once_and_done_when_it_can_be(world_of):
    world = world_of(policy("notify", "restart", verdicts=(Verdict.CRASHED,)))
    world.add(strategy=RunStrategy.MANUAL)
    world.fail()
    world.cluster.run(5000)
    assert len(world.cluster.kinds(DecisionKind.ESCALATED)) == 1
    assert len([each for each in world.cluster.notices if each.startswith("notify")]) == 1
    world.vm(run_strategy=RunStrategy.ALWAYS)
    await_action(world, RestartVm, limit_s=20)


def test_a_vm_that_is_half_stopped_is_not_left_so_by_a_limit(world_of):
    world = world_of(
        policy("restart", "force-stop", limits=Limits(per_subject_per_hour=1)),
    )
    fall_silent(world)
    world.cluster.answer()
    world.vm(status="Stopping", requests=("Stop", "Start"))
    world.vmi(deleting=True, ready=False)
    world.pod(deleting=True, grace_s=3600.0)
    await_action(world, KillPod)


def test_a_limit_holds_for_another_run(world_of):
    world = world_of(
        policy("restart", "force-stop", limits=Limits(per_subject_per_hour=1)),
    )
    fall_silent(world)
    world.cluster.answer()
    world.cluster.run(1000)
    assert works(world) == ["restart"]
    assert world.incident().state is IncidentState.HELD


def test_a_vm_that_its_owner_has_ignored_is_let_be_in_the_middle(world):
    fall_silent(world)
    world.cluster.answer()
    world.vm(annotations={"remediator.io/pause": "ignore"})
    world.cluster.run(300)
    assert world.incident() is None
    assert "none of our business" in world.records()[-1].why
    assert works(world) == ["soft-reboot"]
