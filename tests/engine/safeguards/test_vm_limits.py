"""Guards of living VMs: whose they are, how many at once, how often, and replicas of one app."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.chain import Plan
from remediator.engine.disruptions import Disruption
from remediator.engine.events import ObjectSeen
from remediator.engine.incidents import VmIncident
from remediator.engine.model import (
    ClaimFacts,
    HandsOffFacts,
    IncidentState,
    Verdict,
    vm_subject,
)
from remediator.engine.policy_types import Limits, Policy, SubjectKind
from remediator.engine.safeguards import ask_vm, withheld
from remediator.engine.settings import BudgetSettings, EngineSettings, VmLimits

POLICY = Policy(
    name="vm-crashed",
    source="test",
    content_hash="1" * 64,
    verdicts=(Verdict.CRASHED,),
    subject=SubjectKind.VM,
    steps=("restart",),
)
PLAN = Plan(
    policy="vm-crashed",
    policy_hash="1" * 64,
    verdicts=(Verdict.CRASHED,),
    steps=("restart",),
    required_proof=(),
    fence_method="",
    vms=(),
)


def rows(cluster, name: str = "db", policy: Policy = POLICY):
    return ask_vm(cluster.engine.context, vm_subject("ns", name), policy, PLAN)


def against(cluster, name: str = "db", policy: Policy = POLICY) -> dict[str, str]:
    return {row.guard: row.why for row in withheld(rows(cluster, name, policy))}


def vm_budgets(**fields) -> EngineSettings:
    return EngineSettings(budgets=BudgetSettings(vms=VmLimits(**fields)))


def begin(cluster, name: str) -> None:
    """A step of this VM has taken effect; whether it helped is not known yet."""
    state, number = cluster.engine.state, len(cluster.engine.state.vm_incidents) + 900
    incident = VmIncident(
        id=f"inc-{number}",
        subject=vm_subject("ns", name),
        state=IncidentState.REMEDYING,
        opened_at=cluster.now,
        vmi_uid="",
        verdict=Verdict.CRASHED,
        verdict_at=cluster.now,
        row="",
        plan=PLAN,
        awaiting=True,
    )
    state.vm_incidents[incident.id] = incident
    state.vm_open_on[str(incident.subject)] = incident.id


def restarted(cluster, name: str, *ago_s: float) -> None:
    for ago in sorted(ago_s, reverse=True):
        cluster.engine.state.disruptions.append(
            Disruption(
                at=cluster.now - ago,
                subject=f"vm/ns/{name}",
                what="restart",
                incident="inc-1",
                policy="vm-crashed",
            )
        )


def label(cluster, value: str, *names: str, key: str = "app.kubernetes.io/instance") -> None:
    for name in names:
        facts = cluster.engine.context.inventory.vms["ns", name]
        cluster.handle(ObjectSeen(facts=msgspec.structs.replace(facts, labels={key: value})))


def test_a_quiet_vm_may_be_disrupted(cluster):
    cluster.add_vm("db", "n1")
    assert against(cluster) == {}


def test_nothing_is_done_in_observe_mode_or_by_a_policy_that_observes(make_cluster):
    cluster = make_cluster(enforce=False)
    cluster.add_vm("db", "n1")
    assert set(against(cluster)) == {"mode"}
    cluster = make_cluster()
    cluster.add_vm("db", "n1")
    observing = msgspec.structs.replace(POLICY, enforce=False)
    assert against(cluster, policy=observing)["mode"] == (
        "policy vm-crashed only observes: would restart"
    )


def test_a_vm_that_its_owner_or_its_hosts_user_claims_is_left_alone(cluster):
    cluster.add_vm("db", "n1")
    facts = cluster.engine.context.inventory.vms["ns", "db"]
    marked = msgspec.structs.replace(facts, annotations={"remediator.io/exclude": "true"})
    cluster.handle(ObjectSeen(facts=marked))
    claim = HandsOffFacts(name="NodeMaintenance:m", uid="m", node="n1", why="maintenance")
    cluster.handle(ObjectSeen(facts=claim))
    why = against(cluster)["hands-off"]
    assert why == "it carries the annotation remediator.io/exclude; n1: maintenance"


def test_so_many_vms_of_a_namespace_are_disrupted_at_once(make_cluster):
    cluster = make_cluster(settings=vm_budgets(at_once_namespace=2))
    for name in ("a", "b", "db"):
        cluster.add_vm(name, "n1")
    begin(cluster, "a")
    assert against(cluster) == {}
    begin(cluster, "b")
    assert against(cluster) == {
        "disruptions-at-once": "2 of 2 disrupted at once (namespace/ns): vm/ns/a, vm/ns/b"
    }
    assert against(cluster, "b") == {}  # it is one of the two


def test_so_many_vms_on_one_storage_class_are_disrupted_at_once(make_cluster):
    cluster = make_cluster(settings=vm_budgets(at_once_storage_class=1))
    for name, claim, storage in (("a", "a", "fast"), ("db", "db", "fast"), ("c", "c", "slow")):
        cluster.add_vm(name, "n1", claims=(claim,))
        facts = ClaimFacts(namespace="ns", name=claim, uid=claim, storage_class=storage)
        cluster.handle(ObjectSeen(facts=facts))
    begin(cluster, "a")
    assert "storage-class/fast" in against(cluster)["disruptions-at-once"]
    assert against(cluster, "c") == {}


def test_a_vm_that_restarts_do_not_help_is_left_to_people(cluster):
    cluster.add_vm("db", "n1")
    restarted(cluster, "db", 3000, 2000)
    assert against(cluster) == {}
    restarted(cluster, "db", 1000)
    (row,) = withheld(rows(cluster))
    assert (row.guard, row.answer) == ("crash-loop", "refuse")
    assert row.why == "restarted 3 times within 3600 s, and it did not help: a human should look"


def test_restarts_before_the_window_do_not_count(cluster):
    cluster.add_vm("db", "n1")
    restarted(cluster, "db", 4000, 3900, 3800, 10)
    assert against(cluster) == {}


def test_a_subject_and_the_cluster_have_their_limits_per_hour(make_cluster):
    cluster = make_cluster(settings=vm_budgets(per_subject_per_hour=1, per_hour=2, restarts=9))
    for name in ("db", "web"):
        cluster.add_vm(name, "n1")
    restarted(cluster, "db", 600)
    (row,) = withheld(rows(cluster))
    assert row.why == "1 of 1 disrupted within the hour (vm/ns/db): vm/ns/db"
    assert row.until == pytest.approx(cluster.now + 3000)
    assert against(cluster, "web") == {}
    restarted(cluster, "db", 300)
    assert (
        "2 of 2 disrupted within the hour (cluster)"
        in against(cluster, "web")["disruptions-per-hour"]
    )


def test_a_policy_keeps_its_own_limits(cluster):
    for name in ("a", "db"):
        cluster.add_vm(name, "n1")
    policy = msgspec.structs.replace(POLICY, limits=Limits(at_once=1, per_subject_per_hour=1))
    assert against(cluster, policy=policy) == {}
    begin(cluster, "a")
    assert "1 of 1 disrupted by this policy" in against(cluster, policy=policy)["policy-limits"]


def test_of_a_galera_cluster_of_three_one_is_acted_on_at_a_time(cluster):
    for name in ("g1", "g2", "g3"):
        cluster.add_vm(name, "n1")
    label(cluster, "galera", "g1", "g2", "g3")
    assert against(cluster, "g2") == {}
    begin(cluster, "g1")
    assert against(cluster, "g2") == {
        "replicated-app": "1 of the 3 VMs of ns/galera are away: ns/g1"
    }


def test_of_five_replicas_two_may_be_acted_on(cluster):
    names = [f"g{number}" for number in range(1, 6)]
    for name in names:
        cluster.add_vm(name, "n1")
    label(cluster, "galera", *names, key="remediator.io/replicated-app")
    begin(cluster, "g1")
    assert against(cluster, "g2") == {}
    begin(cluster, "g2")
    assert set(against(cluster, "g3")) == {"replicated-app"}


def test_a_replica_that_runs_waits_for_one_that_is_down_and_not_the_other_way_round(cluster):
    for name in ("g1", "g2"):
        cluster.add_vm(name, "n1")
    label(cluster, "galera", "g1", "g2")
    cluster.vmi("g1", node="n1", phase="Failed")
    assert set(against(cluster, "g2")) == {"replicated-app"}
    assert against(cluster, "g1") == {}


def test_vms_without_a_shared_label_do_not_wait_for_each_other(cluster):
    for name in ("g1", "g2"):
        cluster.add_vm(name, "n1")
    label(cluster, "one", "g1")
    label(cluster, "two", "g2")
    begin(cluster, "g1")
    assert against(cluster, "g2") == {}


def test_a_vm_in_a_crash_loop_may_still_be_moved(cluster):
    cluster.add_vm("db", "n1")
    restarted(cluster, "db", 3000, 2000, 1000)
    moving = msgspec.structs.replace(PLAN, steps=("cordon", "migrate"))
    found = ask_vm(cluster.engine.context, vm_subject("ns", "db"), POLICY, moving)
    assert withheld(found) == ()


def test_what_interrupts_no_vm_asks_no_limit_but_does_ask_whose_it_is(make_cluster):
    cluster = make_cluster(settings=vm_budgets(at_once=1))
    for name in ("a", "db"):
        cluster.add_vm(name, "n1")
    begin(cluster, "a")
    resuming = msgspec.structs.replace(PLAN, steps=("unpause", "notify", "hold"))
    context, vm = cluster.engine.context, vm_subject("ns", "db")
    assert withheld(ask_vm(context, vm, POLICY, resuming)) == ()
    facts = context.inventory.vms["ns", "db"]
    marked = msgspec.structs.replace(facts, annotations={"remediator.io/pause": ""})
    cluster.handle(ObjectSeen(facts=marked))
    assert [row.guard for row in withheld(ask_vm(context, vm, POLICY, resuming))] == ["paused"]
