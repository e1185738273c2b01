"""The course of a VM's incident: what opens it, what confirms it, what ends it, who gets none."""

from __future__ import annotations

import pytest
from vm_world import VmWorld

from remediator.engine.chain import DecisionKind
from remediator.engine.events import OwnHealthSeen
from remediator.engine.model import (
    IncidentState,
    Plane,
    Reading,
    RunStrategy,
    Verdict,
    VmiFacts,
)


@pytest.fixture
def world(cluster) -> VmWorld:
    return VmWorld(cluster)


def lose_agent(world: VmWorld, name: str = "db") -> None:
    world.vmi(name, agent_connected=False)


def test_a_vm_that_is_well_costs_nothing_and_says_nothing(world):
    world.add()
    world.cluster.run(3600)
    assert world.cluster.story() == ["leading daemon/me"]
    assert world.cluster.engine.vms.suspects() == []


# --- the course -----------------------------------------------------------------------------------


def test_a_lost_agent_is_suspected_then_confirmed_with_one_notice_and_resolved_when_it_is_back(
    world,
):
    world.add()
    lost_at = world.cluster.now
    lose_agent(world)
    world.cluster.until(world.incident)
    assert world.cluster.now - lost_at == pytest.approx(120, abs=2)
    assert world.incident().state is IncidentState.SUSPECTED
    assert world.cluster.notices == []
    world.cluster.until(lambda: world.incident().state is IncidentState.CONFIRMED)
    assert world.cluster.now - lost_at == pytest.approx(300, abs=2)
    assert world.incident().verdict is Verdict.GUEST_SILENT
    world.cluster.run(1000)
    (notice,) = world.cluster.notices
    assert "its guest agent answered in this VMI and does not any more" in notice
    world.vmi(agent_connected=True)
    back_at = world.cluster.now
    world.cluster.until(lambda: world.incident() is None)
    assert world.cluster.now - back_at == pytest.approx(30, abs=2)
    assert world.story() == [
        "opened suspected agent-lost",
        "verdict confirmed agent-lost",
        "resolved resolved",
    ]
    assert world.cluster.engine.vms.suspects() == []


def test_the_records_say_what_was_seen(world):
    world.add()
    lose_agent(world)
    world.cluster.run(301)
    opened, verdict = world.records()
    seen = {row.plane: row for row in verdict.evidence}
    assert seen["agent"].value == "lost"
    assert seen["agent"].since_s == pytest.approx(300, abs=2)
    assert seen["phase"].detail == "VMI Running on n1; ready"
    assert seen["wanted"].detail == "run strategy Always"
    assert opened.uid == world.vmis["db"].uid
    assert opened.subject == world.subject()
    assert opened.mode == "enforce"


def test_nothing_is_done_about_a_vm(world):
    world.add()
    lose_agent(world)
    world.cluster.run(2000)
    assert world.cluster.actions == []
    assert world.cluster.kinds(DecisionKind.PLANNED, DecisionKind.STARTED) == []


def test_what_comes_and_goes_is_one_incident(world):
    world.add()
    lose_agent(world)
    world.cluster.run(301)
    for _ in range(20):
        world.vmi(agent_connected=True)
        world.cluster.run(20)
        lose_agent(world)
        world.cluster.run(40)
    assert world.story() == ["opened suspected agent-lost", "verdict confirmed agent-lost"]
    assert len(world.cluster.notices) == 1


def test_a_suspicion_that_clears_before_its_hold_is_told_to_nobody(world):
    world.add()
    lose_agent(world)
    world.cluster.run(200)
    world.vmi(agent_connected=True)
    world.cluster.run(40)
    assert world.story() == ["opened suspected agent-lost", "resolved resolved"]
    assert world.cluster.notices == []


def test_another_verdict_turns_the_incident_and_is_told_too(world):
    world.add()
    lose_agent(world)
    world.cluster.run(301)
    world.vmi(paused="PausedIOError")
    world.cluster.run(32)
    assert world.incident().verdict is Verdict.PAUSED
    assert world.story()[-1] == "verdict confirmed io-error"
    assert [text.split(":")[0] for text in world.cluster.notices] == ["GuestSilent", "Paused"]


def test_a_suspicion_turns_with_its_verdict_and_is_confirmed_with_its_own_hold(world):
    world.add()
    lose_agent(world)
    world.cluster.run(125)
    world.vmi(paused="PausedIOError")
    world.cluster.run(2)
    assert world.story()[-1] == "verdict suspected io-error"
    assert world.cluster.notices == []
    world.cluster.run(30)
    assert world.story()[-1] == "verdict confirmed io-error"


# --- the guest ------------------------------------------------------------------------------------


def test_a_vm_without_agent_is_never_silent_by_agent(world):
    world.add(agent=False)
    world.cluster.run(2000)
    assert world.opened() == []


def test_a_guest_that_reboots_is_back_before_anybody_is_told(world):
    world.add()
    lose_agent(world)
    world.cluster.run(100)
    world.vmi(agent_connected=True)
    world.cluster.run(100)
    assert world.opened() == []


def test_an_agent_that_is_lost_in_the_first_minutes_of_a_boot_means_nothing(world):
    world.vm()
    world.launch(agent=True)
    lose_agent(world)
    world.cluster.run(400)
    assert world.opened() == []  # 300 s of boot, and not yet 120 s more
    world.cluster.run(30)
    assert world.incident() is not None


@pytest.mark.parametrize(
    "excuse",
    [
        {"probes_muted": True},
        {"paused": "PausedByUser"},
        {"paused": "PausedByMigrationMonitor"},
        {"migrating_to": "n2"},
        {"ready": False, "not_ready_why": "PodTerminating"},
        {"deleting": True},
    ],
    ids=str,
)
def test_a_silence_that_has_a_plain_reason_is_not_sickness(world, excuse):
    world.add()
    world.vmi(agent_connected=False, **excuse)
    world.signal("readiness-probe")
    world.signal("liveness-probe")
    world.cluster.run(1000)
    assert not [each for each in world.opened() if each.verdict is Verdict.GUEST_SILENT]


def test_silence_begins_to_count_when_its_reason_ends(world):
    world.add()
    world.vmi(agent_connected=False, probes_muted=True)
    world.cluster.run(1000)
    world.vmi(probes_muted=False)
    world.cluster.run(115)
    assert world.opened() == []
    world.cluster.run(10)
    assert world.incident().row == "agent-lost"


def test_a_migration_that_an_object_tells_of_is_an_excuse_as_well(world):
    world.add()
    world.migration(phase="PreparingTarget")
    lose_agent(world)
    world.cluster.run(600)
    assert world.opened() == []
    world.migration(phase="Pending")  # one that only waits for its turn is none
    world.cluster.run(130)
    assert world.incident().verdict is Verdict.GUEST_SILENT


def test_probes_that_fail_while_the_agent_still_seems_connected_make_a_silent_guest(world):
    """A hung kernel keeps the agent's channel open: only the probes tell."""
    world.add()
    world.vmi(ready=False)
    world.keep_signalling("readiness-probe", 310)
    assert world.story() == ["opened suspected probes-failing", "verdict confirmed probes-failing"]


def test_a_readiness_probe_that_is_told_ever_more_rarely_stands_until_the_vmi_is_ready(world):
    world.add()
    world.vmi(ready=False)
    world.signal("readiness-probe")
    world.cluster.run(310)  # the kubelet holds its events back after the first 25
    assert world.incident().state is IncidentState.CONFIRMED
    world.vmi(ready=True)
    world.cluster.run(32)
    assert world.incident() is None


def test_a_probe_that_failed_once_says_nothing_of_a_vmi_that_is_not_ready_later(world):
    world.add()
    world.vmi(ready=False)
    world.signal("readiness-probe")
    world.vmi(ready=True)
    world.cluster.run(100)
    world.vmi(ready=False)
    world.cluster.run(1000)
    assert world.opened() == []


@pytest.mark.parametrize("aspect", ["liveness-probe", "readiness-probe"])
def test_one_failed_probe_of_a_vmi_that_stays_ready_fades(world, aspect):
    world.add()
    world.signal(aspect)
    world.cluster.run(400)
    assert world.opened() == []


def test_two_witnesses_are_believed_sooner_than_one(world):
    world.add()
    world.vmi(agent_connected=False, ready=False)
    world.keep_signalling("readiness-probe", 125)
    assert world.incident().state is IncidentState.CONFIRMED
    assert world.incident().row == "silent-to-both"


# --- paused ---------------------------------------------------------------------------------------


def test_a_vm_paused_by_an_io_error_is_told_after_half_a_minute(world):
    world.add()
    world.vmi(paused="PausedIOError")
    assert world.incident().state is IncidentState.SUSPECTED
    world.cluster.run(31)
    assert world.incident().state is IncidentState.CONFIRMED
    assert world.incident().verdict is Verdict.PAUSED


def test_a_vm_paused_by_a_person_is_nobody_else_s_business(world):
    world.add()
    world.vmi(paused="PausedByUser", agent_connected=False)
    world.cluster.run(2000)
    assert world.opened() == []


def test_a_pause_of_a_kind_that_is_new_counts_a_little_later(world):
    world.add()
    world.vmi(paused="PausedPostcopyFailed")
    world.cluster.run(25)
    assert world.opened() == []
    world.cluster.run(36)
    assert world.story() == ["opened suspected paused-unasked", "verdict confirmed paused-unasked"]


# --- crashed --------------------------------------------------------------------------------------


def test_a_failed_vmi_that_kubevirt_makes_anew_is_none(world):
    world.add()
    world.fail()
    world.cluster.run(2)
    world.launch(agent=True)
    world.cluster.run(400)
    assert world.opened() == []


@pytest.mark.parametrize("strategy", [RunStrategy.MANUAL, RunStrategy.ONCE, RunStrategy.ALWAYS])
def test_a_failed_vmi_that_is_not_made_anew_is_crashed(world, strategy):
    world.add(strategy=strategy)
    world.fail()
    world.cluster.run(61)
    assert world.story() == ["opened suspected failed", "verdict confirmed failed"]
    assert world.incident().verdict is Verdict.CRASHED


def test_a_vmi_without_virtual_machine_can_crash_too(world):
    world.launch("lone")
    world.cluster.run(301)
    world.fail("lone")
    world.cluster.run(61)
    assert world.incident("lone").verdict is Verdict.CRASHED


def test_three_failures_in_a_row_are_a_crash_loop_though_each_is_made_good(world):
    world.add()
    for _ in range(3):
        assert world.opened() == []
        world.fail()
        world.launch()
        world.cluster.run(120)
    assert world.incident().row == "crash-loop"
    assert world.incident().state is IncidentState.CONFIRMED
    world.cluster.run(600)
    assert world.incident() is None


def test_failures_that_are_far_apart_are_no_loop(world):
    world.add()
    for _ in range(6):
        world.fail()
        world.launch(agent=True)
        world.cluster.run(601)
    assert world.opened() == []


def test_an_owner_who_restarts_it_again_and_again_makes_no_crash_loop(world):
    world.add()
    for _ in range(5):
        world.vmi(deleting=True)
        world.fail()
        world.launch()
        world.cluster.run(30)
    assert world.opened() == []


def test_crash_loop_back_off_counts_after_the_third_failure(world):
    world.add()
    world.drop_pod()
    world.drop_vmi()
    world.vm(status="CrashLoopBackOff")
    world.cluster.run(60)  # the second wait of KubeVirt's is 40 to 60 s
    assert world.incident().state is IncidentState.SUSPECTED
    world.cluster.run(17)
    assert world.story()[-1] == "verdict confirmed backing-off"


def test_a_panic_is_told_when_the_same_vmi_is_still_there(world):
    world.add()
    world.signal("panic", detail="kernel BUG at mm/slub.c")
    lose_agent(world)
    world.cluster.run(32)
    assert world.incident().state is IncidentState.CONFIRMED
    assert world.incident().row == "panicked"
    (row,) = [row for row in world.records()[0].evidence if row.plane == "crashes"]
    assert row.detail == "kernel BUG at mm/slub.c (kubelet events)"
    world.cluster.run(1000)
    assert world.incident().row == "panicked"  # told once, and its agent never came back


def test_a_panic_after_which_the_vmi_is_made_anew_is_none(world):
    world.add()
    world.signal("panic")
    world.fail()
    world.cluster.run(1)
    world.launch()
    world.cluster.run(100)
    assert [each.state for each in world.records()] == ["suspected", "resolved"]
    assert world.cluster.notices == []


def test_a_guest_that_dumps_its_kernel_and_comes_back_is_well_again(world):
    world.add()
    world.signal("panic")
    lose_agent(world)
    world.cluster.run(90)
    assert world.incident().state is IncidentState.CONFIRMED
    world.vmi(agent_connected=True)
    world.cluster.run(32)
    assert world.incident() is None


def test_a_panic_that_was_survived_is_not_held_against_a_later_silence(world):
    world.add()
    world.signal("panic")
    lose_agent(world)
    world.cluster.run(20)
    world.vmi(agent_connected=True)
    world.cluster.run(100)
    assert world.incident() is None
    lose_agent(world)
    world.cluster.run(121)
    assert world.incident().row == "agent-lost"


def test_a_watchdog_that_fires_three_times_is_told_and_once_is_not(world):
    world.add()
    world.signal("watchdog")
    world.cluster.run(120)
    world.signal("watchdog")
    world.signal("watchdog", at=world.cluster.now)  # the same one again
    world.cluster.run(120)
    assert world.opened() == []
    world.signal("watchdog")
    assert world.incident().row == "watchdog-loop"
    assert world.incident().state is IncidentState.CONFIRMED


def test_a_vmi_that_runs_without_a_launcher_pod_is_crashed(world):
    world.add()
    world.drop_pod()
    world.cluster.run(190)  # virt-handler's own time for it
    assert world.opened() == []
    world.cluster.run(51)
    assert world.story() == ["opened suspected pod-gone", "verdict confirmed pod-gone"]


# --- stuck and unplaceable ------------------------------------------------------------------------


def test_an_ordinary_start_is_not_stuck(world):
    world.vm(status="Starting")
    world.begin()
    world.cluster.run(120)
    world.pod(node="n1", phase="Running")
    world.vmi(node="n1", phase="Scheduled")
    world.cluster.run(120)
    world.vmi(phase="Running", ready=True)
    world.cluster.run(600)
    assert world.opened() == []


def test_a_start_that_does_not_end_is_stuck_after_kubevirt_s_own_ten_minutes(world):
    world.vm()
    world.begin()
    world.cluster.run(601)
    assert world.story() == ["opened suspected start-late", "verdict confirmed start-late"]


def test_a_start_that_waits_for_its_disk_to_be_written_is_not_stuck(world):
    world.vm(status="Provisioning")
    world.begin()
    world.cluster.run(7200)
    assert world.opened() == []


def test_a_guest_that_qemu_does_not_bring_up_is_stuck_after_the_launcher_s_own_patience(world):
    world.vm()
    world.begin()
    world.pod(node="n1", phase="Running")
    world.vmi(node="n1", phase="Scheduled")
    world.cluster.run(361)
    assert world.story() == ["opened suspected launch-late", "verdict confirmed launch-late"]


def test_a_new_vmi_begins_anew(world):
    world.vm()
    for _ in range(5):
        world.begin()
        world.cluster.run(200)
    assert world.opened() == []


def test_a_volume_that_cannot_be_attached_is_named(world):
    world.vm()
    world.begin()
    world.pod(node="n1")
    world.signal("attach", detail="Multi-Attach error for volume pv-1", source="attach events")
    world.cluster.run(421)
    assert world.incident().row == "volume-blocked"
    assert world.incident().state is IncidentState.CONFIRMED
    (row,) = [row for row in world.records()[0].evidence if row.plane == "volume"]
    assert "pv-1" in row.detail
    world.vmi(node="n1", phase="Running", ready=True)
    world.cluster.run(32)
    assert world.incident() is None


def test_a_disk_that_is_plugged_in_later_and_does_not_attach_is_no_verdict_on_the_vm(world):
    world.add()
    for _ in range(100):
        world.signal("attach")
        world.cluster.run(10)
    assert world.opened() == []


@pytest.mark.parametrize("status", ["ErrorPvcNotFound", "ImagePullBackOff", "DataVolumeError"])
def test_a_vm_that_kubevirt_cannot_start_is_stuck(world, status):
    world.vm()
    world.begin()
    world.vm(status=status)
    world.cluster.run(301)
    assert world.incident().row == "cannot-start"
    assert world.incident().state is IncidentState.CONFIRMED


def test_an_image_that_cannot_be_pulled_is_seen_on_the_pod(world):
    world.vm()
    world.begin()
    world.pod(node="n1", waiting="ImagePullBackOff")
    world.cluster.run(301)
    assert world.incident().row == "cannot-start"


@pytest.mark.parametrize("seen_on", ["pod", "status"])
def test_a_vm_that_no_node_can_take_is_unplaceable(world, seen_on):
    world.vm()
    world.begin()
    if seen_on == "pod":
        world.pod(unschedulable="0/6 nodes are available: 6 Insufficient memory.")
    else:
        world.vm(status="ErrorUnschedulable")
    world.cluster.run(301)
    assert world.incident().verdict is Verdict.UNPLACEABLE
    assert world.incident().state is IncidentState.CONFIRMED


def test_the_target_pod_of_a_migration_that_finds_no_node_is_no_trouble_of_the_vm(world):
    world.add()
    source = world.pods["db"]
    world.pods["db"] = source.__class__(
        namespace="ns",
        name="virt-launcher-db-target",
        uid="target",
        vmi="db",
        vmi_uid=source.vmi_uid,
        migration_target=True,
    )
    world.migration(phase="Scheduling")
    world.pod(unschedulable="0/6 nodes are available", phase="Pending")
    world.cluster.run(800)
    assert world.opened() == []


def test_a_vm_that_kubevirt_makes_no_vmi_for_is_stuck(world):
    world.add()
    world.drop_pod()
    world.drop_vmi()
    world.vm(status="Stopped")
    world.cluster.run(301)
    assert world.story() == ["opened suspected not-made", "verdict confirmed not-made"]


def test_a_launcher_that_does_not_end_is_stuck_a_while_after_its_grace(world):
    world.add()
    world.vmi(deleting=True)
    world.pod(deleting=True, grace_s=60.0)
    world.cluster.run(115)
    assert world.opened() == []
    world.cluster.run(70)
    assert world.story() == ["opened suspected terminating", "verdict confirmed terminating"]
    world.drop_pod()
    world.drop_vmi()
    world.launch()
    world.cluster.run(40)
    assert world.incident() is None


def test_a_launcher_that_hangs_is_told_even_where_its_owner_wanted_the_vm_gone(world):
    world.add()
    world.vm(run_strategy=RunStrategy.HALTED, status="Stopping")
    world.vmi(deleting=True)
    world.pod(deleting=True, grace_s=30.0)
    world.cluster.run(155)
    assert world.incident().row == "terminating"


def test_what_a_finished_migration_leaves_behind_is_no_trouble_of_the_vm(world):
    world.add()
    source = world.pods["db"]
    world.vmi(node="n2")
    world.pods["db"] = source.__class__(
        namespace="ns",
        name="virt-launcher-db-target",
        uid="target",
        vmi="db",
        vmi_uid=source.vmi_uid,
        migration_target=True,
        node="n2",
        phase="Running",
    )
    world.pod()
    target = world.pods["db"]
    world.pods["db"] = source
    world.pod(deleting=True, grace_s=30.0)
    world.pods["db"] = target
    world.cluster.run(1000)
    assert world.opened() == []


def test_a_migration_in_the_queue_is_not_stuck_however_long_it_waits(world):
    world.add()
    world.migration(phase="Pending")
    world.cluster.run(7200)
    assert world.opened() == []


def test_a_migration_whose_target_does_not_come_up_is_stuck(world):
    world.add()
    world.migration(phase="Scheduling")
    world.cluster.run(961)
    assert world.story() == ["opened suspected migration-late", "verdict confirmed migration-late"]
    world.drop_migration()
    world.cluster.run(32)
    assert world.incident() is None


def test_a_migration_that_moves_on_begins_anew(world):
    world.add()
    for phase in ("Scheduling", "Scheduled", "PreparingTarget", "TargetReady"):
        world.migration(phase=phase)
        world.cluster.run(800)
    assert world.opened() == []


def test_a_migration_that_its_vmi_knows_nothing_of_is_stuck(world):
    world.add()
    world.migration(phase="Running")
    world.cluster.run(301)
    assert world.story()[-1] == "verdict confirmed migration-adrift"


def test_a_migration_that_runs_for_hours_is_stuck_in_the_end(world):
    world.add()
    world.migration(phase="Running")
    world.vmi(migrating_to="n2")
    world.cluster.run(14000)
    assert world.opened() == []
    world.cluster.run(401)
    assert world.story()[-1] == "verdict confirmed migration-endless"


# --- who gets none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"run_strategy": RunStrategy.HALTED},
        {"run_strategy": RunStrategy.WAIT_AS_RECEIVER},
        {"deleting": True},
        {"status": "Stopping"},
        {"status": "Terminating"},
    ],
    ids=str,
)
def test_a_vm_that_its_owner_stops_or_deletes_is_cleared_at_once(world, fields):
    world.add()
    lose_agent(world)
    world.cluster.run(301)
    world.vm(**fields)
    assert world.incident() is None
    assert world.records()[-1].why == "its owner stops or deletes it"
    world.cluster.run(1000)
    assert world.story()[-1] == "resolved resolved"


def test_a_vm_that_is_gone_is_cleared_at_once(world):
    world.add()
    lose_agent(world)
    world.cluster.run(301)
    world.drop_vm()
    world.drop_pod()
    world.drop_vmi()
    assert world.incident() is None
    assert world.cluster.engine.vms.suspects() == []


def test_a_vm_that_has_ended_as_its_run_strategy_says_is_cleared(world):
    world.add(strategy=RunStrategy.RERUN_ON_FAILURE)
    lose_agent(world)
    world.cluster.run(301)
    world.vmi(phase="Succeeded", ready=False)
    assert world.incident() is None


def test_the_vms_of_a_dying_host_get_no_incident_of_their_own(world):
    world.add("db", "n1")
    world.add("manual", "n1", strategy=RunStrategy.MANUAL)
    lose_agent(world)
    world.cluster.fence_through("n1")
    for name in ("db", "manual"):
        world.vmi(name, ready=False, not_ready_why="PodTerminating")
        world.pod(name, deleting=True, grace_s=30.0)
    world.cluster.run(400)
    for name in ("db", "manual"):
        world.cluster.answer()
        world.drop_pod(name)
        world.vmi(name, phase="Failed")
    world.drop_vmi("db")
    world.cluster.run(400)
    assert world.opened() == []


def test_a_vm_that_our_recovery_brings_back_gets_no_incident_however_slow_it_is(world):
    world.add("db", "n1")
    world.cluster.fence_through("n1")
    world.cluster.answer()
    world.vmi(phase="Failed")
    world.drop_vmi()
    world.begin()
    world.pod(unschedulable="0/6 nodes are available")
    world.cluster.run(1000)
    assert world.cluster.incident("n1") is not None
    assert world.opened() == []


def test_starts_that_fail_while_our_recovery_brings_it_back_are_no_crash_loop(world):
    world.add("db", "n1")
    world.cluster.fence_through("n1")
    world.cluster.answer()
    for _ in range(4):
        world.vmi(phase="Failed")
        world.drop_vmi()
        world.begin()
        world.pod(node="n2", phase="Running")
        world.vmi(node="n2", phase="Scheduled")
        world.cluster.run(10)
    world.vmi(phase="Running", ready=True, agent_connected=True, agent_known=True)
    assert world.cluster.incident("n1") is None
    world.cluster.run(100)
    assert world.opened() == []
    for _ in range(3):  # but these are its own
        world.fail()
        world.launch("db", "n2", agent=True)
        world.cluster.run(10)
    assert world.incident().row == "crash-loop"


def test_a_recovered_vm_is_watched_again_once_its_recovery_is_over(world):
    world.add("db", "n1")
    world.cluster.fence_through("n1")
    world.cluster.answer()
    world.vmi(phase="Failed")
    world.drop_vmi()
    world.launch("db", "n2", agent=True)
    assert world.cluster.incident("n1") is None
    world.cluster.run(301)
    lose_agent(world)
    world.cluster.run(121)
    assert world.incident() is not None


def test_a_vm_that_is_up_again_is_watched_though_others_are_still_being_recovered(world):
    world.add("db", "n1")
    world.add("web", "n1")
    world.cluster.fence_through("n1")
    while world.cluster.actions:
        world.cluster.answer()
    world.vmi("db", phase="Failed")
    world.drop_vmi("db")
    world.drop_pod("web")  # and KubeVirt makes no new VMI of web
    world.launch("db", "n2", agent=True)
    world.cluster.run(301)
    assert world.cluster.incident("n1") is not None
    lose_agent(world, "db")
    world.cluster.run(121)
    assert world.incident("db").row == "agent-lost"
    assert world.incident("web") is None


def degrade(world: VmWorld, node: str) -> None:
    """Its kubelet says NotReady, though it renews the lease."""
    world.cluster.signal(node, Plane.KUBELET, Reading.DOWN)
    world.cluster.until(lambda: world.cluster.incident(node) is not None)
    assert world.cluster.incident(node).verdict is Verdict.DEGRADED


def test_a_failure_on_a_sick_host_is_told_once_the_host_is_well(world):
    world.add("db", "n1", strategy=RunStrategy.MANUAL)
    degrade(world, "n1")
    world.fail()
    world.cluster.run(300)
    assert world.opened() == []
    world.cluster.signal("n1", Plane.KUBELET, Reading.UP)
    world.cluster.until(lambda: world.cluster.incident("n1") is None)
    world.cluster.run(65)
    assert world.incident().row == "failed"


def test_a_migration_to_a_sick_host_is_not_judged(world):
    world.add("db", "n1")
    degrade(world, "n2")
    world.vmi(migrating_to="n2")
    world.migration(phase="Scheduling")
    world.cluster.run(1000)
    assert world.opened() == []


def test_a_pod_left_over_by_a_failed_migration_is_not_the_vm_s_own(world):
    world.add("db", "n1")
    own = world.pods["db"]
    world.drop_pod()
    world.pods["db"] = own.__class__(
        namespace="ns",
        name="virt-launcher-db-target",
        uid="target",
        vmi="db",
        vmi_uid=own.vmi_uid,
        migration_target=True,
        node="n2",
        phase="Running",
    )
    world.pod()
    world.cluster.run(241)
    assert world.incident().row == "pod-gone"


def test_an_incident_gives_way_to_that_of_its_host(world):
    world.add("db", "n1")
    lose_agent(world)
    world.cluster.run(301)
    opened = world.incident().id
    world.cluster.lose("n1")
    world.cluster.run(6)
    assert world.incident() is None
    assert world.records()[-1].incident == opened
    assert "its host n1 is in an incident itself" in world.records()[-1].why


def test_time_on_a_host_in_doubt_does_not_count(world):
    world.add("db", "n1")
    lose_agent(world)
    world.cluster.run(100)
    world.cluster.silent.add("n1")
    world.cluster.run(40)
    assert world.cluster.incident("n1") is not None
    world.cluster.silent.discard("n1")
    world.cluster.until(lambda: world.cluster.incident("n1") is None)
    world.cluster.run(110)
    assert world.opened() == []
    world.cluster.run(20)
    assert world.incident() is not None


def test_a_host_that_a_vm_left_long_ago_excuses_nothing(world):
    world.add("db", "n1", strategy=RunStrategy.MANUAL)
    left = world.pods["db"]
    world.vmi(node="n2")
    world.pod(phase="Succeeded")  # KubeVirt keeps the pod of a finished migration's source
    world.pods["db"] = left.__class__(
        namespace="ns",
        name="virt-launcher-db-target",
        uid="target",
        vmi="db",
        vmi_uid=left.vmi_uid,
        migration_target=True,
        node="n2",
        phase="Running",
    )
    world.pod()
    world.cluster.lose("n1")
    world.cluster.run(10)
    world.fail()
    world.cluster.run(61)
    assert world.incident().row == "failed"


def test_a_migration_whose_target_host_dies_is_not_stuck_on_top_of_that(world):
    world.add("db", "n1")
    world.migration(phase="Running")
    world.vmi(migrating_to="n2")
    world.cluster.lose("n2")
    world.cluster.run(10)
    world.vmi(migrating_to="")
    world.vmi(migrating_to="n2", agent_connected=False)
    world.cluster.run(15000)
    assert world.opened() == []


def test_a_manual_vm_that_its_host_took_down_is_not_crashed_once_the_host_is_back(world):
    world.add("manual", "n1", strategy=RunStrategy.MANUAL)
    world.cluster.fence_through("n1")
    world.cluster.answer()
    world.drop_pod("manual")
    world.vmi("manual", phase="Failed")
    world.cluster.until(lambda: world.cluster.incident("n1") is None)
    world.cluster.node_changes("n1", boot_id="boot-n1-2")
    world.cluster.silent.discard("n1")
    world.cluster.handler_silent.discard("n1")
    world.cluster.until(lambda: world.cluster.actions)
    world.cluster.answer()
    assert world.cluster.engine.state.residues == {}
    world.vmi("manual", not_ready_why="PodNotExists")
    world.cluster.run(1000)
    assert world.opened() == []


def test_a_vm_that_was_bound_to_a_lost_host_late_waits_for_the_host(world):
    world.add("db", "n1")
    world.cluster.fence_through("n1")
    world.cluster.answer()
    world.vmi(phase="Failed")
    world.drop_vmi()
    world.launch("db", "n2", agent=True)
    assert world.cluster.incident("n1") is None
    assert "n1" in world.cluster.engine.state.residues
    world.vm("late")
    world.begin("late")
    world.pod("late", node="n1")
    world.vmi("late", node="n1", phase="Scheduled")
    world.cluster.run(1000)
    assert world.opened() == []
    world.cluster.node_changes("n1", boot_id="boot-n1-2")
    world.cluster.silent.discard("n1")
    world.cluster.handler_silent.discard("n1")
    world.cluster.until(lambda: world.cluster.actions)
    world.cluster.run(400)
    assert world.opened() == []  # it is back, and still carries our marks
    world.cluster.answer()
    world.cluster.until(lambda: world.incident("late"), 400)
    assert world.incident("late").row == "launch-late"


# --- our own eyes ---------------------------------------------------------------------------------


def test_while_the_api_server_is_not_heard_nothing_grows_old(world):
    world.add()
    lose_agent(world)
    world.cluster.run(100)
    world.cluster.watching = False
    world.cluster.run(3600)
    assert world.opened() == []
    world.cluster.watching = True
    world.cluster.run(110)
    assert world.opened() == []  # deafness gives everybody a fresh period
    world.cluster.until(world.incident, 300)  # at first with more patience than usual


def test_even_a_short_deafness_gives_a_fresh_period(world):
    world.add()
    lose_agent(world)
    world.cluster.run(100)
    world.cluster.watching = False
    world.cluster.run(8)
    world.cluster.watching = True
    world.cluster.run(110)
    assert world.cluster.engine.context.evidence.own_health.multiplier == 1
    assert world.opened() == []
    world.cluster.run(20)
    assert world.incident() is not None


def test_nor_does_an_incident_end_then(world):
    world.add()
    lose_agent(world)
    world.cluster.run(301)
    world.vmi(agent_connected=True)
    world.cluster.watching = False
    world.cluster.run(3600)
    assert world.incident() is not None


def test_while_our_own_trouble_suspends_convictions_no_vm_is_judged_either(world):
    world.add()
    lose_agent(world)
    for _ in range(1000):  # beyond the patience that is shown below that point
        world.cluster.handle(OwnHealthSeen(loop_lag_s=60.0))
        world.cluster.run(1)
    assert world.cluster.engine.context.evidence.own_health.suspended
    assert world.opened() == []
    world.cluster.until(world.incident, 300)


def test_some_trouble_of_our_own_makes_for_more_patience(world):
    world.add()
    lose_agent(world)
    for _ in range(200):
        world.cluster.handle(OwnHealthSeen(api_latency_s=2.5))
        world.cluster.run(1)
    assert world.cluster.engine.context.evidence.own_health.multiplier == 2
    assert world.opened() == []  # 120 s are 240 s
    for _ in range(50):
        world.cluster.handle(OwnHealthSeen(api_latency_s=2.5))
        world.cluster.run(1)
    assert world.incident() is not None
    world.vmi(agent_connected=True)
    for _ in range(55):
        world.cluster.handle(OwnHealthSeen(api_latency_s=2.5))
        world.cluster.run(1)
    assert world.incident() is not None  # and 30 s are 60 s
    world.cluster.run(10)
    assert world.incident() is None


@pytest.mark.parametrize(("watch", "opened"), [("vmis", 0), ("pods", 0), ("volumes", 1)])
def test_what_a_watch_of_vms_does_not_hear_does_not_count(world, watch, opened):
    world.add()
    lose_agent(world)
    for _ in range(300):
        world.cluster.handle(OwnHealthSeen(stale_watches=(watch,)))
        world.cluster.run(1)
    assert len(world.opened()) == opened


def test_nothing_is_concluded_before_the_lists_are_complete(make_cluster):
    cluster = make_cluster(lead=False)
    cluster.lead(sync=False)
    world = VmWorld(cluster)
    world.vm()
    world.begin()
    cluster.run(2000)
    assert world.opened() == []
    cluster.sync()
    cluster.run(599)
    assert [each.state for each in world.opened()] == ["suspected"]


def test_a_vmi_that_failed_before_anybody_looked_is_history_where_nobody_restarts_it(make_cluster):
    cluster = make_cluster(lead=False)
    cluster.lead(sync=False)
    world = VmWorld(cluster)
    for name, strategy in (("once", RunStrategy.ONCE), ("always", RunStrategy.ALWAYS)):
        world.vm(name, run_strategy=strategy)
        world.vmis[name] = VmiFacts(
            namespace="ns", name=name, uid=f"vmi-{name}", phase="Failed", node="n1"
        )
        world.vmi(name)
    cluster.sync()
    cluster.run(100)
    assert world.incident("once") is None
    assert world.incident("always").row == "failed"


# --- signals --------------------------------------------------------------------------------------


def test_a_signal_about_a_vm_that_does_not_exist_is_forgotten_at_once(world):
    for number in range(1000):
        world.signal("panic", name=f"ghost-{number}")
    assert world.opened() == []
    assert world.cluster.engine.vms._evidence._memory == {}


def test_signals_of_ever_new_sources_do_not_fill_the_memory(world):
    world.add()
    for number in range(1000):
        world.signal("liveness-probe", source=f"forger-{number}")
    (memory,) = world.cluster.engine.vms._evidence._memory.values()
    assert len(memory.signals["liveness-probe"]) <= 8


def test_what_was_said_of_a_vm_is_forgotten_once_it_says_nothing_any_more(world):
    world.add()
    memory = world.cluster.engine.vms._evidence._memory
    world.signal("liveness-probe")
    world.signal("watchdog")
    world.fail()
    world.launch(agent=True)
    world.cluster.run(500)
    world.vmi(node="n2")
    assert memory != {}  # a second failure would count beside the first
    world.cluster.run(110)
    world.vmi(node="n3")
    assert memory == {}


def test_a_complaint_that_may_still_count_is_kept(world):
    world.add()
    world.vmi(agent_connected=False, ready=False, probes_muted=True)
    world.signal("readiness-probe")
    world.cluster.run(1000)
    world.vmi(node="n2")
    world.vmi(probes_muted=False)
    world.cluster.run(125)
    assert world.incident().row == "silent-to-both"


def test_events_that_were_only_found_are_history(world):
    world.add()
    world.signal("panic", first=True)
    for _ in range(5):
        world.signal("watchdog", first=True)
    world.cluster.run(400)
    assert world.opened() == []


def test_an_older_signal_does_not_undo_a_newer_one(world):
    world.add()
    world.vmi(ready=False)
    world.signal("readiness-probe", Reading.UP)
    world.signal("readiness-probe", Reading.DOWN, at=world.cluster.now - 30)
    world.cluster.run(400)
    assert world.opened() == []


def test_a_source_whose_clock_was_ahead_is_heard_again_after_a_minute(world):
    world.add()
    world.vmi(ready=False)
    world.signal("readiness-probe", Reading.UP, at=9e9)
    world.cluster.run(61)
    world.signal("readiness-probe")
    world.cluster.run(301)
    assert world.incident().row == "probes-failing"


def test_an_aspect_that_is_not_known_is_not_kept(world):
    world.add()
    world.signal("horoscope")
    world.cluster.run(400)
    assert world.opened() == []


# --- memory and take-over -------------------------------------------------------------------------


def test_a_replay_and_a_snapshot_rebuild_the_incidents(world):
    world.add("db")
    world.add("web", "n2")
    lose_agent(world, "db")
    lose_agent(world, "web")
    world.cluster.run(200)
    world.vmi("web", agent_connected=True)
    world.cluster.run(150)
    cluster = world.cluster
    heir = cluster.reborn()
    assert heir.engine.snapshot() == cluster.engine.snapshot()
    assert [each.state for each in heir.engine.state.vm_incidents.values()] == ["confirmed"]
    other = cluster.__class__(nodes=0, **cluster.engine_options)
    other.engine.restore(cluster.engine.snapshot())
    assert other.engine.state == cluster.engine.state


def take_over(world: VmWorld, *, skew_s: float = 0.0) -> VmWorld:
    """Another replica leads from now on, and its watches offer everything."""
    heir = VmWorld(world.cluster.reborn())
    heir.cluster.now = world.cluster.now + skew_s
    heir.cluster.nodes = dict(world.cluster.nodes)
    heir.cluster.lead(sync=False)
    for mine, theirs, tell in (
        (heir.vms, world.vms, heir.vm),
        (heir.vmis, world.vmis, heir.vmi),
        (heir.pods, world.pods, heir.pod),
    ):
        mine.update(theirs)
        for name in theirs:
            tell(name)
    heir.cluster.sync()
    return heir


@pytest.mark.parametrize("skew_s", [0.0, -86_400.0, 86_400.0])
def test_a_take_over_keeps_a_suspicion_and_counts_anew(world, skew_s):
    world.add()
    lose_agent(world)
    world.cluster.run(290)
    heir = take_over(world, skew_s=skew_s)
    assert heir.incident().state is IncidentState.SUSPECTED
    heir.cluster.run(290 + 300)  # a boot may have begun just before
    assert heir.incident().state is IncidentState.SUSPECTED
    heir.cluster.run(15)
    assert heir.incident().state is IncidentState.CONFIRMED
    assert len(heir.cluster.notices) == 1


def test_a_take_over_keeps_a_confirmed_incident_and_tells_nobody_twice(world):
    world.add()
    lose_agent(world)
    world.cluster.run(301)
    heir = take_over(world)
    heir.cluster.run(1000)
    assert heir.incident().state is IncidentState.CONFIRMED
    assert heir.cluster.notices == []
    heir.vmi(agent_connected=True)
    heir.cluster.run(600)
    assert heir.incident() is None


def test_a_failed_vmi_whose_incident_was_inherited_is_still_failed(world):
    world.add(strategy=RunStrategy.MANUAL)
    world.fail()
    world.cluster.run(61)
    heir = take_over(world)
    heir.cluster.run(2000)
    assert heir.incident().row == "failed"


def test_what_only_the_leader_before_saw_ends_when_it_is_not_seen_again(world):
    world.add()
    for _ in range(3):
        world.signal("watchdog")
        world.cluster.run(10)
    heir = take_over(world)
    heir.cluster.run(590)
    assert heir.incident() is not None
    heir.cluster.run(20)
    assert heir.incident() is None


def test_a_vm_that_went_while_nobody_led_is_cleared_by_the_next_leader(world):
    world.add("db")
    world.add("web", "n2")
    lose_agent(world, "db")
    lose_agent(world, "web")
    world.cluster.run(301)
    for table in (world.vms, world.vmis, world.pods):
        del table["db"]
    heir = take_over(world)
    assert heir.incident("db") is None
    assert heir.incident("web") is not None


def test_the_incidents_of_nodes_go_on_as_if_there_were_none_of_vms(world):
    for number in range(6):
        world.add(f"vm{number}", f"n{number + 1}")
    for number in range(6):
        lose_agent(world, f"vm{number}")
    world.cluster.run(301)
    assert len(world.cluster.engine.state.vm_incidents) == 6
    assert world.cluster.engine.state.incidents == {}
    world.cluster.fence_through("n1")  # no budget counts them, no plan waits for them
    assert world.cluster.incident("n1").state is IncidentState.RECOVERING


def test_a_dead_node_and_a_vm_never_share_an_incident_number(world):
    world.add("db", "n2")
    lose_agent(world)
    world.cluster.lose("n1")
    world.cluster.run(301)
    opened = [each.incident for each in world.cluster.kinds(DecisionKind.OPENED)]
    assert len(opened) == len(set(opened)) == 2
