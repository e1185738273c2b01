"""The course of a node's incident, from the first silence to the last clean-up."""

from __future__ import annotations

import pytest

from remediator.engine.chain import DecisionKind
from remediator.engine.events import ObjectGone, ObjectSeen
from remediator.engine.model import (
    AttachmentFacts,
    ClaimFacts,
    FactKind,
    Fence,
    ForceStop,
    IncidentState,
    OutcomeStatus,
    PodFacts,
    Reading,
    Release,
    RunStrategy,
    Uncordon,
    Verdict,
    VolumeFacts,
)
from remediator.engine.pacing import booting


def test_a_quiet_cluster_yields_no_decision_but_that_of_leading(cluster):
    cluster.run(600)
    assert cluster.story() == ["leading daemon/me"]


def test_a_silent_lease_alone_makes_a_suspect_and_asks_the_bmc(cluster):
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.run(100)
    assert cluster.incident("n1").verdict is Verdict.SUSPECT
    assert "n1" in cluster.asked_power
    assert cluster.actions == []


def test_a_silent_lease_with_power_verified_off_is_dead_within_15_seconds(cluster):
    cluster.add_vm("db", "n1")
    died_at = cluster.now
    cluster.lose("n1")
    assert cluster.incident("n1").verdict is Verdict.DEAD
    assert cluster.now - died_at <= 15


def test_the_plan_of_a_dead_node_is_cordon_fence_release_recover(cluster):
    cluster.add_vm("db", "n1")
    cluster.fence_through("n1")
    (stop,) = cluster.actions
    assert isinstance(stop.work, ForceStop)
    assert stop.work.proof.boot_id == "boot-n1-1"
    assert cluster.incident("n1").state is IncidentState.RECOVERING


def test_every_action_has_its_record_before_it(make_cluster):
    cluster = make_cluster()
    cluster.add_vm("db", "n1")
    cluster.fence_through("n1")
    recorded = {d.action.id for d in cluster.kinds(DecisionKind.STARTED)}
    assert {"cordon", "fence", "release", "force-stop"} == {id_.split("/")[1] for id_ in recorded}


def test_a_recovered_vm_resolves_the_incident_and_leaves_the_node_tainted(cluster):
    cluster.add_vm("db", "n1")
    cluster.fence_through("n1")
    cluster.answer()
    cluster.drop_pods("db", "n1")
    cluster.place("db", "n2")
    cluster.vmi("db", node="n2", phase="Running")
    cluster.vmi("db", node="n2", phase="Running", agent=True)
    assert cluster.incident("n1") is None
    assert cluster.decisions[-1].kind is DecisionKind.RESOLVED
    assert "1 of 1 VM is up again" in cluster.decisions[-1].why
    assert "n1" in cluster.engine.state.residues


def test_a_node_that_returns_with_a_new_boot_is_uncordoned(cluster):
    test_a_recovered_vm_resolves_the_incident_and_leaves_the_node_tainted(cluster)
    cluster.node_changes("n1", boot_id="boot-n1-2")
    cluster.silent.discard("n1")
    cluster.until(lambda: cluster.actions)
    action = cluster.answer()
    assert isinstance(action.work, Uncordon)
    assert action.work.fenced_boot_id == "boot-n1-1"
    assert cluster.engine.state.residues == {}


def test_a_node_that_returns_with_the_same_boot_stays_tainted_and_is_reported(cluster):
    test_a_recovered_vm_resolves_the_incident_and_leaves_the_node_tainted(cluster)
    cluster.silent.discard("n1")
    cluster.run(60)
    assert cluster.actions == []
    assert any("check for double runs" in notice for notice in cluster.notices)
    assert len([n for n in cluster.notices if "check for double runs" in n]) == 1


def test_a_partition_with_a_bmc_is_unreachable_once_virt_handler_is_silent_too(cluster):
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.until(lambda: cluster.asked_power)
    cluster.power("n1", Reading.UP)
    cluster.run(60)
    assert cluster.incident("n1").verdict is Verdict.SUSPECT
    cluster.until(lambda: cluster.incident("n1").verdict is Verdict.UNREACHABLE)
    cluster.answer()
    assert isinstance(cluster.actions[0].work, Fence)


def test_a_partition_without_a_fence_method_is_escalated_and_nothing_is_restarted(make_cluster):
    cluster = make_cluster(fence_methods=[])
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.run(600)
    assert cluster.incident("n1").state is IncidentState.ESCALATED
    assert cluster.actions == []
    assert any("no fence method" in notice for notice in cluster.notices)


def test_a_lease_that_is_silent_while_virt_handler_beats_fences_nobody(cluster):
    cluster.add_vm("db", "n1")
    cluster.silent.add("n1")
    cluster.run(600)
    assert cluster.incident("n1").verdict is Verdict.KUBELET_DOWN
    assert cluster.actions == []


def test_five_minutes_without_watch_progress_fence_nobody(cluster):
    for number in range(1, 7):
        cluster.add_vm(f"vm{number}", f"n{number}")
    cluster.watching = False
    cluster.silent.update(cluster.nodes)
    cluster.handler_silent.update(cluster.nodes)
    cluster.run(300)
    cluster.watching = True
    cluster.silent.clear()
    cluster.handler_silent.clear()
    cluster.run(60)
    assert cluster.story()[0] == "leading daemon/me"
    assert [s for s in cluster.story() if "opened" in s] == []


def test_more_silent_nodes_than_the_zone_budget_are_held(make_cluster):
    cluster = make_cluster(nodes=15, zones=3)
    zone = [n.name for n in cluster.nodes.values() if n.zone == "zone-0"]
    for name in zone[:3]:  # 60 %
        cluster.add_vm(f"vm-{name}", name)
        cluster.kill(name)
    cluster.until(lambda: len(cluster.asked_power) >= 3)
    for name in zone[:3]:
        cluster.power(name, Reading.UP)
    cluster.run(400)
    assert cluster.actions == []
    held = [cluster.incident(name).state for name in zone[:3]]
    assert held == [IncidentState.HELD] * 3
    refusals = cluster.kinds(DecisionKind.REFUSED)
    assert any("zone-share" in refusal.why for refusal in refusals)
    assert any("zone-share" in notice for notice in cluster.notices)


def test_observe_mode_records_what_it_would_do_and_does_nothing(make_cluster):
    cluster = make_cluster(enforce=False)
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.run(60)
    assert cluster.actions == []
    (refusal,) = cluster.kinds(DecisionKind.REFUSED)
    assert "would cordon, fence, release, recover n1; 1 VMs" in refusal.why
    assert cluster.incident("n1").plan.vms[0].vm.name == "db"


def test_a_failed_fence_is_repeated_then_escalated_then_tried_again(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()
    for _ in range(3):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=OutcomeStatus.FAILED, detail="the BMC does not answer")
    cluster.run(30)
    assert cluster.incident("n1").state is IncidentState.ESCALATED
    assert any("fence failed 3 times" in notice for notice in cluster.notices)
    cluster.until(lambda: cluster.actions, limit_s=150)
    assert isinstance(cluster.actions[0].work, Fence)


def test_a_node_that_returns_before_the_fence_is_cleared_and_uncordoned(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()  # cordon
    cluster.silent.discard("n1")
    cluster.handler_silent.discard("n1")
    cluster.power("n1", Reading.UP)
    cluster.answer(status=OutcomeStatus.SPARED, detail="the node renews its lease")
    cluster.until(lambda: cluster.incident("n1") is None)
    cluster.until(lambda: cluster.actions)
    action = cluster.answer()
    assert isinstance(action.work, Uncordon)
    assert action.work.fenced_boot_id == ""
    assert cluster.engine.state.residues == {}


def test_a_bmc_that_says_off_of_a_living_node_is_a_contradiction_and_is_never_believed(cluster):
    cluster.add_vm("db", "n1")
    cluster.power("n1", Reading.DOWN)
    for _ in range(10):
        cluster.run(2)
        cluster.power("n1", Reading.DOWN)
    assert cluster.incident("n1").verdict is Verdict.CONTRADICTION
    cluster.kill("n1")
    for _ in range(100):
        cluster.run(3)
        cluster.power("n1", Reading.DOWN)
    assert cluster.actions == []
    assert any("power-trust" in notice for notice in cluster.notices)


def test_a_flapping_node_is_not_fenced_twice_within_its_cool_down(cluster):
    test_a_node_that_returns_with_a_new_boot_is_uncordoned(cluster)
    cluster.handler_silent.discard("n1")
    cluster.run(100)
    cluster.add_vm("web", "n1")
    cluster.asked_power.clear()
    cluster.lose("n1")
    cluster.run(100)
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.HELD
    assert "flapping" in cluster.kinds(DecisionKind.REFUSED)[-1].why
    cluster.until(lambda: cluster.actions, limit_s=700)


def test_control_plane_nodes_are_left_to_a_human(cluster):
    cluster.node_changes("n1", control_plane=True)
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.run(100)
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.ESCALATED


def test_an_excluded_node_is_hands_off_until_the_label_goes(cluster):
    cluster.node_changes("n1", labels={"remediation.medik8s.io/exclude-from-remediation": "true"})
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.run(60)
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.HELD
    cluster.node_changes("n1", labels={})
    cluster.until(lambda: cluster.actions)


@pytest.mark.parametrize(
    ("strategy", "stage"),
    [
        (RunStrategy.MANUAL, "left"),
        (RunStrategy.ONCE, "left"),
        (RunStrategy.HALTED, "left"),
    ],
)
def test_a_vm_that_kubevirt_does_not_restart_is_freed_and_left_stopped(cluster, strategy, stage):
    cluster.add_vm("db", "n1", strategy)
    cluster.fence_through("n1")
    cluster.answer()
    cluster.drop_pods("db", "n1")
    progress = cluster.kinds(DecisionKind.PROGRESS)[-1]
    assert progress.stage == stage
    assert strategy.value in progress.why


def test_the_pace_limits_how_many_restarts_run_at_once(cluster):
    for number in range(25):
        cluster.add_vm(f"vm{number:02}", "n1")
    cluster.fence_through("n1")
    assert len(cluster.actions) == 10
    cluster.answer()
    cluster.run(5)
    assert len(cluster.actions) == 9, "a deleted pod still holds its place until its guest is up"


def test_a_deleted_node_object_during_the_fence_does_not_stop_the_recovery(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()
    del cluster.nodes["n1"]
    cluster.handle(ObjectGone(kind=FactKind.NODE, name="n1", uid="uid-n1"))
    cluster.answer()
    (stop,) = cluster.actions
    assert isinstance(stop.work, ForceStop)
    assert cluster.kinds(DecisionKind.SKIPPED)


def test_a_proof_that_turns_out_wrong_stops_the_recovery(cluster):
    for number in range(20):
        cluster.add_vm(f"vm{number:02}", "n1")
    cluster.fence_through("n1")
    cluster.silent.discard("n1")
    cluster.run(40)
    before = len(cluster.actions)
    while cluster.actions:
        cluster.answer(status=OutcomeStatus.SPARED, detail="the node is alive")
    cluster.run(200)
    assert before == 10
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.ESCALATED
    assert any("the proof was wrong" in notice for notice in cluster.notices)
    assert booting(cluster.engine.context) == set(), "it holds no places any more"


def test_a_new_leader_repeats_an_action_whose_outcome_was_never_recorded(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()
    (fence,) = cluster.actions
    heir = cluster.reborn()
    heir.lead()
    assert heir.engine.state.incident_on("node/n1").state is IncidentState.FENCING
    assert heir.actions == [], "nothing says yet that the node is still down"
    heir.power("n1", Reading.DOWN)
    (repeated,) = heir.actions
    assert repeated.id == fence.id
    assert fence.work.off_since > 0
    assert repeated.work.off_since == 0, "a time of the old leader's clock"
    assert heir.kinds(DecisionKind.RESUMED)
    heir.add_vm("db", "n1")
    heir.answer()
    assert isinstance(heir.actions[0].work, Release)


def test_a_new_leader_does_not_repeat_the_fence_of_a_node_that_lives(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()
    cluster.silent.clear()
    cluster.handler_silent.clear()
    heir = cluster.reborn()
    heir.lead()
    assert all(isinstance(action.work, Uncordon) for action in heir.actions)
    assert heir.engine.state.incident_on("node/n1") is None


def test_replaying_the_journal_gives_the_same_memory(cluster):
    cluster.add_vm("db", "n1")
    cluster.add_vm("web", "n1", RunStrategy.MANUAL)
    cluster.fence_through("n1")
    assert cluster.reborn().engine.snapshot() == cluster.engine.snapshot()


def test_a_snapshot_restores_the_memory(cluster):
    cluster.add_vm("db", "n1")
    cluster.fence_through("n1")
    heir = cluster.reborn()
    heir.engine.restore(cluster.engine.snapshot())
    assert heir.engine.state == cluster.engine.state


def test_a_launcher_pod_that_cannot_be_deleted_is_reported_once_and_tried_on(cluster):
    cluster.add_vm("db", "n1")
    cluster.fence_through("n1")
    for _ in range(5):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=OutcomeStatus.FAILED, detail="a finalizer holds it")
    cluster.until(lambda: cluster.actions)
    assert [notice for notice in cluster.notices if "force-stop failed 3 times" in notice] == [
        "force-stop failed 3 times, last: a finalizer holds it; it is tried on"
    ]


def test_a_fence_spared_because_the_node_rebooted_by_itself_ends_the_incident(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()
    cluster.node_changes("n1", boot_id="boot-n1-2")
    cluster.answer(status=OutcomeStatus.SPARED, detail="it rebooted by itself")
    cluster.silent.clear()
    cluster.handler_silent.clear()
    cluster.until(lambda: cluster.incident("n1") is None)
    assert not [a for a in cluster.actions if isinstance(a.work, ForceStop)]


def test_a_plan_begun_by_another_leader_stands_still_in_observe_mode(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()
    cluster.engine_options["enforce"] = False
    heir = cluster.reborn()
    heir.lead()
    heir.power("n1", Reading.DOWN)
    heir.run(60)
    assert heir.actions == []
    assert heir.incident("n1").state is IncidentState.FENCING
    assert [n for n in heir.notices if "observe mode: the plan that was under way" in n] != []


def test_a_node_that_beats_for_a_new_leader_voids_a_proof_whatever_the_old_leaders_clock(cluster):
    for number in range(20):
        cluster.add_vm(f"vm{number:02}", "n1")
    cluster.fence_through("n1")
    heir = cluster.reborn()
    heir.now -= 3600  # this daemon's clock is an hour behind the one that took the proof
    heir.silent.discard("n1")
    heir.lead()
    heir.actions.clear()
    heir.run(60)
    assert heir.incident("n1").state is IncidentState.ESCALATED
    assert any("the proof was wrong" in notice for notice in heir.notices)


def test_pods_that_have_ended_on_a_dead_node_are_nobodys_copy(cluster):
    cluster.add_vm("db", "n1")
    cluster.place("moved", "n1")
    vmi_uid, pod_uid = cluster.uids["moved"]
    cluster.handle(
        ObjectSeen(
            facts=PodFacts(
                namespace="ns",
                name="virt-launcher-moved-2",
                uid=pod_uid,
                node="n1",
                vmi="moved",
                vmi_uid=vmi_uid,
                phase="Succeeded",
            )
        )
    )
    cluster.vmi("moved", node="n2", phase="Running", agent=True)
    cluster.fence_through("n1")
    assert [str(action.subject) for action in cluster.actions] == ["vm/ns/db"]


def test_a_host_that_is_back_in_another_boot_is_left_to_kubernetes(cluster):
    for number in range(12):
        cluster.add_vm(f"vm{number:02}", "n1")
    cluster.fence_through("n1")
    assert len(cluster.actions) == 10, "two still wait for their turn"
    cluster.node_changes("n1", boot_id="boot-n1-2")
    cluster.silent.discard("n1")
    cluster.run(30)
    left = [d for d in cluster.kinds(DecisionKind.PROGRESS) if d.stage == "left"]
    assert {str(d.subject) for d in left} == {"vm/ns/vm10", "vm/ns/vm11"}
    assert "Kubernetes restarts it by itself" in left[0].why


def test_a_host_that_is_back_before_its_release_needs_none(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.answer()
    cluster.answer()
    cluster.node_changes("n1", boot_id="boot-n1-2")
    cluster.answer(status=OutcomeStatus.SPARED, detail="it runs another boot")
    cluster.silent.discard("n1")
    cluster.until(lambda: cluster.incident("n1") is None)
    assert cluster.kinds(DecisionKind.SKIPPED)
    assert not [a for a in cluster.actions if isinstance(a.work, ForceStop)]


def test_a_new_leader_in_observe_mode_drops_all_that_was_left_without_outcome(cluster):
    for number in range(5):
        cluster.add_vm(f"vm{number}", "n1")
    cluster.fence_through("n1")
    assert len(cluster.actions) == 5
    cluster.engine_options["enforce"] = False
    heir = cluster.reborn()
    heir.lead()
    dropped = [d for d in heir.kinds(DecisionKind.FINISHED) if "observe mode" in d.why]
    assert len(dropped) == 5
    assert heir.engine.state.pending == {}


def test_a_vm_whose_only_disk_is_on_the_dead_host_is_said_to_be_unable_to_move(cluster):
    cluster.add_vm("local", "n1")
    cluster.add_vm("db", "n1", claims=("shared",))
    for claim, volume, hosts in (("disk", "pv-local", ("n1",)), ("shared", "pv-shared", ())):
        facts = ClaimFacts(namespace="ns", name=claim, uid=claim, volume=volume)
        cluster.handle(ObjectSeen(facts=facts))
        cluster.handle(ObjectSeen(facts=VolumeFacts(name=volume, uid=volume, pinned_to=hosts)))
    cluster.fence_through("n1")
    plans = {
        str(progress.plan.vm): progress.plan for progress in cluster.incident("n1").vms.values()
    }
    assert plans["vm/ns/db"].treatment == "restart"
    assert plans["vm/ns/local"].treatment == "leave-stopped"
    assert "the only copy of pv-local is on this host" in plans["vm/ns/local"].why


def test_a_vm_that_does_not_come_up_names_the_node_that_holds_its_disk(cluster):
    cluster.add_vm("db", "n1")
    disk = {"volume": "pv-1", "access_modes": ("ReadWriteOnce",)}
    cluster.handle(ObjectSeen(facts=ClaimFacts(namespace="ns", name="disk", uid="c", **disk)))
    volume = VolumeFacts(name="pv-1", uid="pv-1", access_modes=("ReadWriteOnce",))
    cluster.handle(ObjectSeen(facts=volume))
    held = AttachmentFacts(name="va-1", uid="va-1", node="n1", volume="pv-1", attached=True)
    cluster.handle(ObjectSeen(facts=held))
    cluster.fence_through("n1")
    cluster.answer()
    cluster.drop_pods("db", "n1")
    cluster.place("db", "n2", claims=("disk",))
    cluster.run(400)
    (stuck,) = [d for d in cluster.kinds(DecisionKind.PROGRESS) if d.stage == "stuck"]
    assert "its volume pv-1 is still attached to n1" in stuck.why
    assert stuck.why in cluster.notices
