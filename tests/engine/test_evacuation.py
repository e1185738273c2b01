"""A node that lives is emptied: what is begun, in what measure, what is given up, how it ends."""

from __future__ import annotations

import msgspec
import pytest
from evacuation_world import DRAIN, HOLDING, MAINTENANCE, RESTARTING, Evacuation

from remediator.engine.chain import DecisionKind
from remediator.engine.events import InventorySynced, ObjectGone, ObjectSeen, SignalSeen, Verb
from remediator.engine.incidents import Stage
from remediator.engine.model import (
    ClaimFacts,
    FactKind,
    HandsOffFacts,
    IncidentState,
    Migrate,
    OutcomeStatus,
    Plane,
    Reading,
    ReplicaSetFacts,
    RestartVm,
    RunStrategy,
    Signal,
    Uncordon,
    Verdict,
    VolumeFacts,
    node_subject,
)
from remediator.engine.rules import OnFailure, Policy, StepOptions
from remediator.engine.settings import EngineSettings, EvacuationSettings


@pytest.fixture
def town(make_cluster):
    def build(policy: Policy = DRAIN, **settings: object) -> Evacuation:
        engine = EngineSettings(evacuation=EvacuationSettings(**settings))
        base = make_cluster(lead=False).engine_options["policies"]
        return Evacuation(make_cluster(policies=[policy, *base], settings=engine))

    return build


# --- what is begun --------------------------------------------------------------------------------


def test_a_wanted_node_is_cordoned_before_anything_moves(town):
    t = town()
    t.add("a", "b")
    t.want()
    assert [type(each.work).__name__ for each in t.cluster.actions] == ["Cordon"]
    assert t.cluster.incident("n1").state is IncidentState.EVACUATING
    t.cluster.answer()
    assert t.asked() == ["a", "b"]


def test_never_more_than_two_leave_one_node_at_once(town):
    t = town()
    t.add("a", "b", "c")
    t.begin()
    assert t.asked() == ["a", "b"]
    t.accept()
    t.moves("a", "n2")
    assert t.asked() == ["c"]


def test_a_vm_that_is_over_there_holds_its_place_until_its_migration_has_ended(town):
    t = town()
    t.add("a", "b", "c")
    t.begin()
    t.accept()
    t.migration("a", "Running")
    t.moves("a", "n2")
    assert t.asked() == []
    t.migration_ends("a")
    assert t.asked() == ["c"]


def test_migrations_of_others_count_against_the_clusters_limit(town):
    t = town()
    t.add("a", "b")
    for number in range(4):
        t.add(f"x{number}", node="n2")
        t.migration(f"x{number}", "Running")
    t.begin()
    assert t.asked() == ["a"]


def test_what_kubevirt_says_less_of_counts(town):
    t = town()
    t.limits(at_once=5, at_once_node=1)
    t.add("a", "b")
    t.begin()
    assert t.asked() == ["a"]


def test_what_kubevirt_says_more_of_does_not_lift_our_own_limit(town):
    t = town()
    t.limits(at_once=50, at_once_node=50)
    t.add("a", "b", "c", "d")
    t.begin()
    assert t.asked() == ["a", "b"]


def test_a_migration_that_somebody_else_began_is_left_to_them(town):
    t = town()
    t.add("a")
    t.migration("a", "Running")
    t.begin()
    assert t.asked() == []
    t.migration_ends("a")
    t.cluster.run(1)
    assert t.asked() == ["a"]


def test_a_node_with_a_replica_of_all_disks_is_asked_for_by_name(town):
    t = town()
    t.cluster.handle(
        ObjectSeen(
            facts=ClaimFacts(
                namespace="ns", name="disk", uid="c", volume="pv", access_modes=("ReadWriteMany",)
            )
        )
    )
    t.cluster.handle(
        ObjectSeen(facts=VolumeFacts(name="pv", uid="v", driver="driver.longhorn.io", handle="pv"))
    )
    t.cluster.handle(
        ObjectSeen(facts=ReplicaSetFacts(name="longhorn:pv", uid="r", nodes=("n1", "n4")))
    )
    t.add("a", claims=("disk",))
    t.begin()
    (action,) = t.migrates
    assert action.work.target == "n4"
    t.cluster.answer(action, OutcomeStatus.FAILED, "no room there")
    t.cluster.run(25)
    (again,) = t.migrates
    assert again.work.target == "", "after a failure KubeVirt chooses"


def test_only_one_node_is_emptied_at_a_time(town):
    t = town()
    t.add("a")
    t.add("b", node="n2")
    t.begin()
    t.want("n2")
    held = t.cluster.incident("n2")
    assert held.state is IncidentState.HELD
    assert "evacuations-at-once: 1 of 1 nodes are being emptied: n1" in t.last().why
    t.accept()
    t.moves("a", "n3")
    t.cluster.run(2)
    assert t.cluster.incident("n2").state is IncidentState.EVACUATING


# --- what cannot move -----------------------------------------------------------------------------


def _disk(t, mode="ReadWriteOnce", pinned=()):
    t.cluster.handle(
        ObjectSeen(
            facts=ClaimFacts(
                namespace="ns", name="disk", uid="c", volume="pv", access_modes=(mode,)
            )
        )
    )
    t.cluster.handle(ObjectSeen(facts=VolumeFacts(name="pv", uid="v", pinned_to=pinned)))


def test_what_cannot_move_and_why_is_said_before_it_begins(town):
    t = town()
    _disk(t)
    t.add("a", live_migratable=False, not_migratable_why="DisksNotLiveMigratable", claims=("disk",))
    t.add("b")
    t.want()
    (plan,) = t.cluster.kinds(DecisionKind.PLANNED)
    assert "not moved live: ns/a (not live-migratable (DisksNotLiveMigratable)" in plan.why
    assert "its disk disk is ReadWriteOnce, not shared" in plan.why
    assert "ns/b" not in plan.why


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (
            {"live_migratable": False, "not_migratable_why": "HostDeviceNotLiveMigratable"},
            "HostDeviceNotLiveMigratable",
        ),
        ({"claims": ("disk",), "pinned": True}, "the only copy of pv is on this host"),
    ],
    ids=["host-device", "pinned"],
)
def test_a_vm_that_can_never_move_is_left_at_once_and_a_human_is_told(town, facts, why):
    t = town()
    facts = dict(facts)
    if facts.pop("pinned", False):
        _disk(t, "ReadWriteMany", ("n1",))
    t.add("a", **facts)
    t.begin()
    assert t.progress("a").stage is Stage.LEFT
    assert t.cluster.incident("n1").state is IncidentState.ESCALATED
    assert why in t.cluster.notices[-1]
    assert t.asked() == []


def test_the_policy_may_hold_instead(town):
    t = town(HOLDING)
    t.add("a", live_migratable=False)
    t.begin()
    assert t.cluster.incident("n1").state is IncidentState.HELD


def test_what_kubevirt_has_not_judged_yet_is_waited_for(town):
    t = town()
    t.add("a", live_migratable=None)
    t.begin()
    assert t.progress("a").stage is Stage.WAITING
    t.vmi("a", node="n1")
    assert t.asked() == ["a"]


def test_patience_ends(town):
    t = town(patience_s=30)
    t.add("a", live_migratable=None)
    t.begin()
    t.cluster.run(31)
    assert t.cluster.incident("n1").state is IncidentState.ESCALATED


def test_the_policy_may_restart_what_cannot_move(town):
    t = town(RESTARTING)
    t.add("a", live_migratable=False)
    t.begin()
    (action,) = t.cluster.actions
    assert isinstance(action.work, RestartVm)
    assert not action.work.forced, "a guest that lives is shut down in order"
    t.cluster.answer()
    t.cluster.place("a", "n2")
    t.moves("a", "n2")
    assert t.cluster.incident("n1") is None


@pytest.mark.parametrize("strategy", [RunStrategy.ONCE, RunStrategy.HALTED])
def test_a_vm_that_nothing_would_start_again_is_not_restarted(town, strategy):
    t = town(RESTARTING)
    t.cluster.add_vm("a", "n1", strategy)
    t.vmi("a", node="n1", live_migratable=False)
    t.begin()
    assert t.cluster.actions == []
    assert t.progress("a").stage is Stage.LEFT


def test_a_restart_that_leads_nowhere_is_given_up(town):
    t = town(RESTARTING, restarted_within_s=60)
    t.add("a", live_migratable=False)
    t.begin()
    t.cluster.answer()
    t.cluster.run(61)
    assert t.progress("a").stage is Stage.LEFT
    assert t.cluster.incident("n1").state is IncidentState.ESCALATED


# --- what is given up -----------------------------------------------------------------------------


def test_an_eviction_that_is_refused_is_tried_thrice_then_left(town):
    t = town()
    t.add("a")
    t.begin()
    for _ in range(3):
        t.refuse("a", "a PodDisruptionBudget forbids its eviction")
        t.cluster.run(85)
    assert t.progress("a").stage is Stage.LEFT
    assert "a PodDisruptionBudget forbids" in t.cluster.notices[-1]
    assert t.asked() == []


def test_a_copy_that_never_begins_is_cancelled_with_the_evacuation(town):
    t = town(prepare_s=60)
    t.add("a")
    t.begin()
    t.accept()
    t.migration("a", "TargetReady")
    t.cluster.run(59)
    assert t.cancels == []
    t.cluster.run(2)
    (cancel,) = t.cancels
    assert (cancel.work.migration, cancel.work.migration_uid) == ("kubevirt-a-m1", "a-m1")
    t.migration_ends("a")
    t.vmi("a", node="n1")
    t.cluster.answer(cancel)
    assert t.progress("a").stage is Stage.WAITING
    t.cluster.run(21)
    assert t.asked() == ["a"], "tried again, after KubeVirt's own back-off"


def test_waiting_in_kubevirts_queue_is_no_failure_to_prepare(town):
    t = town(prepare_s=30, queued_s=200)
    t.add("a")
    t.begin()
    t.accept()
    t.migration("a", "Pending")
    t.cluster.run(150)
    assert t.cancels == []
    t.migration("a", "Scheduling")
    t.cluster.run(25)
    assert t.cancels == []
    t.cluster.run(10)
    assert len(t.cancels) == 1


def test_a_copy_under_way_is_given_its_time(town):
    t = town(prepare_s=30, copy_s=500)
    t.add("a")
    t.begin()
    t.accept()
    t.migration("a", "Running")
    t.cluster.run(400)
    assert t.cancels == []
    t.cluster.run(120)
    assert len(t.cancels) == 1


def test_the_policys_own_timeout_counts(town):
    t = town(msgspec.structs.replace(DRAIN, step_options={"migrate": StepOptions(timeout_s=40.0)}))
    t.add("a")
    t.begin()
    t.accept()
    t.migration("a", "Running")
    t.cluster.run(42)
    assert "not moved within 40 s" in t.progress("a").last


def test_an_evacuation_that_kubevirt_never_begins_is_taken_back(town):
    t = town(accepted_within_s=45)
    t.add("a")
    t.begin()
    t.accept()
    t.cluster.run(46)
    (cancel,) = t.cancels
    assert cancel.work.migration == ""


def test_a_failed_migration_is_left_to_kubevirts_own_next_try_first(town):
    t = town(accepted_within_s=45)
    t.add("a")
    t.begin()
    t.accept()
    t.migration("a", "Running")
    t.migration_ends("a")
    t.cluster.run(21)
    assert t.cancels == []
    t.migration("a", "Running", uid="m2")
    t.cluster.run(60)
    assert t.cancels == []
    t.moves("a", "n2")
    t.migration_ends("a", uid="m2")
    assert t.cluster.incident("n1") is None


def test_a_cancelling_that_fails_is_tried_on(town):
    t = town(prepare_s=10)
    t.add("a")
    t.begin()
    t.accept()
    t.migration("a", "TargetReady")
    t.cluster.run(12)
    t.cluster.answer(t.cancels[0], OutcomeStatus.FAILED, "does not end")
    t.cluster.run(10)
    (again,) = t.cancels
    assert again.attempt == 2


# --- a source that may not live -------------------------------------------------------------------


def test_nothing_is_begun_where_virt_handler_is_silent(town):
    t = town()
    t.add("a")
    t.cluster.handler_silent.add("n1")
    t.cluster.run(200)
    t.begin()
    t.cluster.run(30)
    assert t.asked() == []
    assert "virt-handler of n1 is silent: a migration would never begin" in str(
        [each.why for each in t.cluster.decisions]
    )


def test_nothing_is_begun_while_the_node_is_suspect(town):
    t = town()
    t.add("a", "b", "c")
    t.begin()
    t.accept()
    t.cluster.silent.add("n1")
    t.cluster.until(lambda: t.cluster.incident("n1").verdict is Verdict.SUSPECT, limit_s=30)
    t.moves("a", "n2")
    assert t.asked() == []
    assert t.cluster.incident("n1").state is IncidentState.EVACUATING


def test_a_node_that_dies_in_the_middle_is_planned_again_as_a_dead_one(town):
    t = town()
    t.add("a", "b")
    t.begin()
    t.accept()
    t.cluster.lose("n1")
    t.cluster.until(lambda: t.cluster.incident("n1").state is IncidentState.FENCING, limit_s=60)
    incident = t.cluster.incident("n1")
    assert incident.plan.policy == "node-lost"
    assert {each.stage for each in incident.vms.values()} == {Stage.WAITING}
    assert t.asked() == []


def test_what_kubevirt_was_told_is_taken_back_when_a_node_taken_for_dead_is_well(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"]
    t = Evacuation(make_cluster(policies=[DRAIN, *base], fence_methods=[]))
    t.add("a")
    t.begin()
    t.accept()
    t.cluster.kill("n1")
    t.cluster.until(lambda: t.cluster.incident("n1").state is IncidentState.ESCALATED, 200)
    t.give_back()
    t.cluster.silent.clear()
    t.cluster.handler_silent.clear()
    t.cluster.until(lambda: t.cluster.incident("n1") is None, 200)
    t.cluster.until(lambda: t.cluster.actions, 200)
    (cancel,) = t.cancels
    assert not any(isinstance(each.work, Uncordon) for each in t.cluster.actions)
    t.vmi("a", node="n1")
    t.cluster.answer(cancel)
    t.cluster.run(2)
    assert isinstance(t.cluster.actions[0].work, Uncordon)


# --- how it ends ----------------------------------------------------------------------------------


def test_an_empty_node_stays_cordoned_while_it_is_wanted_and_opens_no_incident(town):
    t = town()
    t.add("a")
    t.begin()
    t.accept()
    t.moves("a", "n2")
    (resolved,) = t.cluster.kinds(DecisionKind.RESOLVED)
    assert "n1 is empty: 1 of 1 VMs were moved; it stays cordoned" in resolved.why
    t.cluster.run(120)
    assert t.cluster.incident("n1") is None
    assert t.cluster.actions == []
    t.give_back()
    t.cluster.run(2)
    assert isinstance(t.cluster.actions[0].work, Uncordon)


def test_a_vm_that_comes_to_an_empty_node_is_moved_off_again(town):
    t = town()
    t.add("a")
    t.begin()
    t.accept()
    t.moves("a", "n2")
    t.add("late")
    t.cluster.run(2)
    t.cluster.answer(t.cordons[0])
    assert t.asked() == ["late"]


def test_a_vm_that_came_after_the_plan_is_moved_too(town):
    t = town()
    t.add("a")
    t.begin()
    t.accept()
    t.add("late")
    assert t.asked() == ["late"]


def test_an_empty_node_is_only_cordoned(town):
    t = town()
    t.begin()
    assert t.cluster.incident("n1") is None
    assert "n1 is empty" in t.last().why


def test_given_back_midway_takes_back_what_does_not_copy_and_uncordons(town):
    t = town()
    t.add("a", "b", "c")
    t.begin()
    t.accept()
    t.migration("a", "Running")
    t.migration("b", "Scheduling")
    t.give_back()
    (cancel,) = t.cancels
    assert cancel.work.vmi == "b"
    t.migration_ends("b")
    t.vmi("b", node="n1")
    t.cluster.answer(cancel)
    assert t.cluster.incident("n1") is not None, "a is copied still"
    t.moves("a", "n2")
    t.migration_ends("a")
    t.cluster.run(2)
    assert t.cluster.incident("n1") is None
    assert isinstance(t.cluster.actions[0].work, Uncordon)


def test_hands_off_in_the_middle_winds_down_and_holds(town):
    t = town()
    t.add("a", "b", "c")
    t.begin()
    t.accept()
    t.moves("a", "n2")
    t.accept()
    t.cluster.handle(
        ObjectSeen(
            facts=HandsOffFacts(
                name="NodeMaintenance:x", uid="x", node="n1", why="NodeMaintenance x"
            )
        )
    )
    assert sorted(each.work.vmi for each in t.cancels) == ["b", "c"]
    for each in list(t.cancels):
        t.vmi(each.work.vmi, node="n1")
        t.cluster.answer(each)
    incident = t.cluster.incident("n1")
    assert incident.state is IncidentState.HELD
    assert "NodeMaintenance x" in t.cluster.notices[-1]


@pytest.mark.parametrize(("verb", "lifts"), [(Verb.CANCEL, Verb.RETRY), (Verb.PAUSE, Verb.RESUME)])
def test_a_person_may_stop_it_in_the_middle_and_let_it_go_on(town, verb, lifts):
    t = town()
    t.add("a", "b", "c")
    t.begin()
    t.accept()
    t.moves("a", "n2")
    t.accept()
    assert t.order(verb, "node/n1").accepted
    for each in list(t.cancels):
        t.vmi(each.work.vmi, node="n1")
        t.cluster.answer(each)
    assert t.cluster.incident("n1").state is IncidentState.HELD
    t.cluster.run(60)
    assert t.cluster.actions == []
    assert t.order(lifts, "node/n1").accepted
    t.cluster.until(lambda: t.cordons, limit_s=30)
    t.cluster.answer(t.cordons[0])
    assert t.asked() == ["b", "c"]


def test_what_stayed_is_looked_at_again_and_moved_when_it_can_be(town):
    t = town(follow_up_s=60)
    t.add("a", live_migratable=False)
    t.begin()
    assert t.cluster.incident("n1").state is IncidentState.ESCALATED
    t.cluster.run(200)
    told = len(t.cluster.notices)
    t.cluster.run(200)
    assert len(t.cluster.notices) == told, "the same is said once"
    t.vmi("a", node="n1")
    t.cluster.until(lambda: t.cordons, limit_s=70)
    t.cluster.answer(t.cordons[0])
    assert t.asked() == ["a"]


def test_the_incident_ends_when_the_last_vm_leaves_by_itself(town):
    t = town()
    t.add("a", live_migratable=False)
    t.begin()
    t.moves("a", "n2")
    assert t.cluster.incident("n1") is None
    assert "its last VM has left" in t.cluster.kinds(DecisionKind.RESOLVED)[0].why


def test_a_new_leader_goes_on_where_the_old_one_stopped(town):
    t = town(accepted_within_s=300)
    t.add("a", "b", "c")
    t.begin()
    t.accept()
    other = Evacuation(t.cluster.reborn())
    assert {key: each.stage for key, each in other.cluster.incident("n1").vms.items()} == {
        "vm/ns/a": "migrating",
        "vm/ns/b": "migrating",
        "vm/ns/c": "waiting",
    }
    other.cluster.lead(sync=False)
    for name in ("a", "b"):
        other.add(name, evacuating_from="n1")
    other.add("c")
    other.cluster.sync()
    other.cluster.run(10)
    assert other.asked() == [], "two are under way"
    other.moves("a", "n2")
    assert other.asked() == ["c"]


def test_a_move_whose_outcome_nobody_recorded_is_repeated_under_its_id(town):
    t = town()
    t.add("a")
    t.begin()
    (action,) = t.migrates
    other = Evacuation(t.cluster.reborn())
    other.cluster.lead(sync=False)
    other.add("a")
    other.cluster.sync()
    other.cluster.run(2)
    assert [each.id for each in other.migrates] == [action.id]


def test_observe_mode_says_what_it_would_do(make_cluster):
    cluster = make_cluster(policies=[DRAIN], enforce=False)
    t = Evacuation(cluster)
    t.add("a")
    t.want()
    assert cluster.actions == []
    assert "observe mode: would cordon, migrate n1" in t.last().why


def test_the_migrations_must_be_listed_first(make_cluster):
    cluster = make_cluster(lead=False, policies=[DRAIN])
    t = Evacuation(cluster)
    cluster.lead(sync=False)
    for kind in set(FactKind) - {FactKind.MIGRATION}:
        cluster.handle(InventorySynced(kind=kind))
    t.add("a")
    t.want()
    assert "the live migrations are not all listed yet" in t.last().why
    cluster.handle(InventorySynced(kind=FactKind.MIGRATION))
    cluster.run(2)
    assert t.cordons


def test_the_lists_must_be_complete_first(make_cluster):
    cluster = make_cluster(lead=False, policies=[DRAIN])
    t = Evacuation(cluster)
    cluster.lead(sync=False)
    t.add("a")
    t.want()
    cluster.run(5)
    assert cluster.actions == []
    for kind in FactKind:
        cluster.handle(InventorySynced(kind=kind))
    cluster.run(2)
    assert t.cordons


# --- a sick node ----------------------------------------------------------------------------------


def _condition(t, node, reading):
    t.cluster.handle(
        SignalSeen(
            signal=Signal(
                plane=Plane.KUBELET,
                source="node watch",
                subject=node_subject(node),
                reading=reading,
                at=t.cluster.now,
                aspect="KernelDeadlock",
            )
        )
    )


def test_a_degraded_node_is_emptied_and_uncordoned_once_it_is_well(make_cluster):
    policy = msgspec.structs.replace(DRAIN, name="sick", verdicts=(Verdict.DEGRADED,))
    t = Evacuation(make_cluster(policies=[policy]))
    t.add("a")
    _condition(t, "n1", Reading.DOWN)
    t.cluster.run(61)
    t.cluster.answer(t.cordons[0])
    t.accept()
    t.moves("a", "n2")
    assert t.cluster.incident("n1") is None
    t.cluster.run(120)
    assert t.cluster.actions == [], "it is not well yet"
    _condition(t, "n1", Reading.UP)
    t.cluster.run(2)
    assert isinstance(t.cluster.actions[0].work, Uncordon)


def test_a_policy_may_only_tell_and_hold(make_cluster):
    policy = Policy(
        name="tell",
        source="t",
        content_hash="t",
        verdicts=(Verdict.DEGRADED,),
        steps=("notify", "hold"),
    )
    t = Evacuation(make_cluster(policies=[policy]))
    t.add("a")
    _condition(t, "n1", Reading.DOWN)
    t.cluster.run(65)
    assert t.cluster.actions == []
    assert "the policy asks to tell: n1 is Degraded, 1 VM is on it" in t.cluster.notices
    assert t.cluster.incident("n1").state is IncidentState.HELD
    told = len(t.cluster.decisions)
    t.cluster.run(1500)
    assert len(t.cluster.decisions) == told, "it is said once, until the evidence changes"
    _condition(t, "n1", Reading.UP)
    assert t.cluster.incident("n1") is None


def test_each_step_failing_as_the_policy_says(town):
    policy = msgspec.structs.replace(
        DRAIN, step_options={"migrate": StepOptions(attempts=1, on_failure=OnFailure.HOLD)}
    )
    t = town(policy)
    t.add("a")
    t.begin()
    t.refuse("a", "no")
    t.cluster.run(22)
    assert t.cluster.incident("n1").state is IncidentState.HELD


def test_names_of_migrations_are_of_the_incident_the_attempt_and_the_vm(town):
    t = town()
    t.add("a")
    t.begin()
    (action,) = t.migrates
    incident = t.cluster.incident("n1")
    assert isinstance(action.work, Migrate)
    assert action.work.migration == f"remediator-{incident.id}-1-a"
    assert action.id == f"{incident.id}/migrate/ns/a/1"


def test_the_migrations_of_another_plan_have_names_of_their_own(town):
    t = town(follow_up_s=100)
    t.add("a")
    t.begin()
    asked = []
    for _ in range(3):
        asked += [(each.id, each.work.migration) for each in t.migrates]
        t.refuse("a", "no room")
        t.cluster.run(85)
    t.cluster.until(lambda: t.cordons)
    t.cluster.answer(t.cordons[0])
    assert t.asked() == ["a"], "planned again"
    asked += [(each.id, each.work.migration) for each in t.migrates]
    assert len({each for each, _ in asked}) == len({name for _, name in asked}) == 4
    rebuilt = t.cluster.reborn().incident("n1").vms["vm/ns/a"]
    assert rebuilt == t.progress("a")


def test_what_is_taken_back_is_of_the_instance_that_runs_now(town):
    t = town(prepare_s=60)
    t.add("a")
    t.want()
    t.cluster.until(lambda: t.cordons, limit_s=5)
    t.cluster.drop_pods("a", "n1")
    t.cluster.place("a", "n1")  # by itself, before the cordon is on
    t.vmi("a", node="n1")
    t.cluster.answer(t.cordons[0])
    (migrate,) = t.migrates
    t.accept()
    t.migration("a", "TargetReady")
    t.cluster.run(62)
    (cancel,) = t.cancels
    assert cancel.work.vmi_uid == migrate.work.vmi_uid


def test_a_new_leader_ends_a_move_off_a_node_that_is_gone(town):
    t = town()
    t.add("a")
    t.begin()
    assert t.asked() == ["a"]
    gone = t.cluster.nodes.pop("n1")
    t.cluster.handle(ObjectGone(kind=FactKind.NODE, namespace="", name="n1", uid=gone.uid))
    t.cluster.run(2)
    assert t.cluster.incident("n1") is None
    other = t.cluster.reborn()
    assert other.engine.state.busy == {"vm/ns/a": t.migrates[0].id}
    other.lead()
    assert other.engine.state.busy == {}, "else nothing would ever be done for this VM again"


def test_what_a_person_declares_none_of_our_business_keeps_nothing_of_ours(town):
    t = town()
    t.add("a")
    t.begin()
    t.accept()
    t.migration("a", "Scheduling")
    t.cluster.node_changes("n1", annotations={**MAINTENANCE, "remediator.io/pause": "ignore"})
    t.cluster.run(2)
    (cancel,) = t.cancels
    t.migration_ends("a")
    t.vmi("a", node="n1")
    t.cluster.answer(cancel)
    t.cluster.run(2)
    assert t.cluster.incident("n1") is None
