"""Pauses, approvals, retries and cancellations: what people order, and what becomes of it."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine import safeguards
from remediator.engine.chain import DecisionKind
from remediator.engine.events import CommandGiven, ObjectSeen, Verb
from remediator.engine.model import (
    IncidentState,
    OutcomeStatus,
    Reading,
    VmFacts,
    node_subject,
    vm_subject,
)
from remediator.engine.planner import make_plan
from remediator.engine.rules import Approval
from remediator.engine.safeguards import ask_vm, ignored, paused, withheld
from remediator.engine.settings import BudgetSettings, EngineSettings


def give(cluster, verb: Verb, target: str, *, by: str = "ana@laptop", **options):
    number = len(cluster.answers) + 1
    cluster.handle(
        CommandGiven(id=f"c{number}", verb=verb, target=target, by=by, reason="firmware", **options)
    )
    return cluster.answers[-1]


def lose(cluster, node: str) -> None:
    cluster.add_vm(f"vm-{node}", node)
    cluster.lose(node)
    cluster.run(5)


def cut_off(cluster, node: str) -> None:
    """Nobody hears of a node any more, and it has no fence device to be asked."""
    cluster.add_vm(f"vm-{node}", node)
    cluster.kill(node)
    cluster.until(lambda: cluster.kinds(DecisionKind.ESCALATED, DecisionKind.REFUSED))


def guards(cluster) -> set[str]:
    """The guards that withheld, in the last refusal."""
    last = cluster.kinds(DecisionKind.REFUSED, DecisionKind.ESCALATED)[-1]
    return {row.guard for row in last.guards if row.answer != "grant"}


def steps(cluster) -> list[str]:
    return [each.action.id.split("/")[1] for each in cluster.kinds(DecisionKind.STARTED)]


# --- pauses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["cluster", "zone/zone-0", "node/n1"])
def test_nothing_is_begun_in_a_paused_scope(cluster, scope):
    assert give(cluster, Verb.PAUSE, scope).accepted
    lose(cluster, "n1")
    assert cluster.actions == []
    assert guards(cluster) == {"paused"}
    assert cluster.incident("n1").state is IncidentState.HELD
    give(cluster, Verb.RESUME, scope)
    assert [each.subject.name for each in cluster.actions] == ["n1"]


@pytest.mark.parametrize("scope", ["zone/zone-1", "node/n2", "namespace/ns", "vm/ns/vm-n1"])
def test_a_pause_elsewhere_holds_no_fence(cluster, scope):
    cluster.add_vm("vm-n1", "n1")
    assert give(cluster, Verb.PAUSE, scope).accepted
    lose(cluster, "n1")
    assert [each.subject.name for each in cluster.actions] == ["n1"]


def test_a_pause_ends_by_itself_and_that_is_recorded(cluster):
    give(cluster, Verb.PAUSE, "cluster", lasts_s=60.0)
    lose(cluster, "n1")
    row = cluster.kinds(DecisionKind.REFUSED)[-1].guards
    until = next(each.until for each in row if each.guard == "paused")
    assert until == pytest.approx(cluster.engine.state.pauses["cluster"].until)
    cluster.until(lambda: cluster.actions, 90)
    assert cluster.now == pytest.approx(until, abs=2)
    ended = cluster.kinds(DecisionKind.COMMAND)[-1]
    assert ended.why == ("resume by remediator: its time is up; it was paused by ana@laptop")
    assert cluster.engine.state.pauses == {}


def test_what_runs_is_held_at_the_next_safe_point(cluster):
    lose(cluster, "n1")
    give(cluster, Verb.PAUSE, "node/n1")
    cluster.answer()  # cordoned
    cluster.run(5)
    assert steps(cluster) == ["cordon"]
    assert cluster.incident("n1").state is IncidentState.HELD
    give(cluster, Verb.RESUME, "node/n1")
    cluster.run(2)
    assert steps(cluster)[-1] == "fence"


def test_a_fenced_host_is_released_only_after_the_pause(cluster):
    lose(cluster, "n1")
    cluster.answer()
    give(cluster, Verb.PAUSE, "cluster")
    cluster.answer()  # the fence that was under way has its proof
    cluster.run(5)
    assert cluster.incident("n1").state is IncidentState.FENCED
    assert "release" not in steps(cluster)
    held = cluster.kinds(DecisionKind.REFUSED)[-1]
    assert held.why.startswith("held at fenced: cluster is paused by ana@laptop: firmware")
    give(cluster, Verb.RESUME, "cluster")
    cluster.run(2)
    assert steps(cluster)[-1] == "release"


def test_recovered_nodes_are_released_even_while_everything_is_paused(cluster):
    cluster.add_vm("vm-n1", "n1")
    cluster.fence_through("n1")
    cluster.run(1)
    cluster.answer()
    cluster.drop_pods("vm-n1", "n1")
    cluster.place("vm-n1", "n2")
    cluster.vmi("vm-n1", node="n2", phase="Running", agent=True)
    cluster.run(2)
    give(cluster, Verb.PAUSE, "cluster")
    cluster.silent.clear()
    cluster.handler_silent.clear()
    cluster.power("n1", Reading.UP)
    cluster.node_changes("n1", boot_id="boot-n1-2")
    cluster.until(lambda: cluster.actions, 60)
    assert cluster.actions[0].id.split("/")[1] == "uncordon"


def test_an_ignored_node_gets_no_incident_and_an_open_one_is_closed(cluster):
    give(cluster, Verb.IGNORE, "node/n2")
    cluster.add_vm("b", "n2")
    cluster.lose("n1")
    cluster.kill("n2")
    cluster.run(120)
    assert cluster.incident("n2") is None
    assert cluster.incident("n1") is not None
    give(cluster, Verb.IGNORE, "node/n1")
    cluster.run(2)
    assert cluster.incident("n1") is None
    closed = cluster.kinds(DecisionKind.RESOLVED)[-1]
    assert closed.why == (
        "none of our business any more: node/n1 is ignored by ana@laptop: firmware"
    )
    give(cluster, Verb.RESUME, "node/n2")
    assert cluster.incident("n2") is not None


def test_an_annotation_pauses_too_and_what_is_not_understood_freezes(cluster):
    cluster.node_changes("n1", annotations={"remediator.io/pause": "ignore"})
    cluster.node_changes("n2", annotations={"remediator.io/pause": "yes please"})
    context, subject = cluster.engine.context, vm_subject("ns", "db")
    cluster.handle(
        ObjectSeen(
            facts=VmFacts(
                namespace="ns", name="db", uid="u", annotations={"remediator.io/pause": ""}
            )
        )
    )
    n1, n2 = (cluster.engine.context.inventory.nodes[name] for name in ("n1", "n2"))
    assert ignored(context, node_subject(n1.name))
    assert paused(context, node_subject(n2.name))
    assert not ignored(context, node_subject(n2.name))
    assert paused(context, subject)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("rack/7", "'rack/7' is no scope: write cluster, zone/NAME"),
        ("node/n99", "there is no node/n99"),
        ("zone/atlantis", "there is no zone/atlantis"),
        ("vm/ns/nobody", "there is no vm/ns/nobody"),
    ],
)
def test_a_scope_that_is_not_there_is_refused(cluster, target, why):
    answer = give(cluster, Verb.PAUSE, target)
    assert not answer.accepted
    assert why in answer.text
    assert cluster.engine.state.pauses == {}


def test_what_is_not_paused_cannot_be_resumed(cluster):
    give(cluster, Verb.PAUSE, "zone/zone-0")
    answer = give(cluster, Verb.RESUME, "cluster")
    assert answer.text.endswith("refused: cluster is not paused; paused are: zone/zone-0")


def test_a_new_leader_keeps_a_pause(cluster):
    give(cluster, Verb.PAUSE, "cluster")
    heir = cluster.reborn()
    heir.lead()
    heir.add_vm("db", "n1")
    heir.lose("n1")
    heir.run(10)
    assert heir.actions == []


def test_a_paused_namespace_or_vm_is_not_disrupted(cluster):
    cluster.add_vm("db", "n1")
    ask = lambda: {  # noqa: E731
        row.guard
        for row in withheld(ask_vm(cluster.engine.context, vm_subject("ns", "db"), None, None))
    }
    assert ask() == set()
    give(cluster, Verb.PAUSE, "namespace/ns")
    assert ask() == {"paused"}
    give(cluster, Verb.RESUME, "namespace/ns")
    give(cluster, Verb.PAUSE, "vm/ns/db")
    assert ask() == {"paused"}


# --- approval -------------------------------------------------------------------------------------


def approving(make_cluster, **approval):
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(base, approval=Approval(**approval))
    cluster = make_cluster(policies=[policy])
    lose(cluster, "n1")
    return cluster


def test_a_plan_waits_for_approval_and_people_are_told(make_cluster):
    cluster = approving(make_cluster)
    assert cluster.actions == []
    assert guards(cluster) == {"approval"}
    incident = cluster.incident("n1")
    assert f"'remediator approve {incident.id}'" in cluster.notices[-1]
    asked = cluster.engine.state.approvals[incident.id]
    assert asked.lapses_at == pytest.approx(asked.asked_at + 3600)
    assert give(cluster, Verb.APPROVE, incident.id).accepted
    assert [each.subject.name for each in cluster.actions] == ["n1"]
    row = cluster.kinds(DecisionKind.STARTED)[-1].guards[-1]
    assert row.why == "approved by ana@laptop: firmware"


def test_a_denied_plan_is_left_to_people(make_cluster):
    cluster = approving(make_cluster)
    assert give(cluster, Verb.DENY, "node/n1").accepted
    cluster.run(60)
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.ESCALATED
    assert "denied by ana@laptop: firmware" in cluster.kinds(DecisionKind.ESCALATED)[-1].why
    again = give(cluster, Verb.APPROVE, "node/n1")
    assert "it was denied by ana@laptop" in again.text
    assert give(cluster, Verb.RETRY, "node/n1").accepted
    cluster.run(2)
    assert guards(cluster) == {"approval"}
    assert give(cluster, Verb.APPROVE, "node/n1").accepted
    assert cluster.actions


@pytest.mark.parametrize("proceeds", [True, False])
def test_a_request_lapses(make_cluster, proceeds):
    cluster = approving(make_cluster, lapses_after_s=120.0, proceeds=proceeds)
    cluster.run(100)
    assert cluster.actions == []
    cluster.run(30)
    assert bool(cluster.actions) is proceeds
    if not proceeds:
        last = cluster.kinds(DecisionKind.REFUSED)[-1]
        assert "nobody answered in time: policy node-lost holds it" in last.why
        assert give(cluster, Verb.APPROVE, "node/n1").accepted
        assert cluster.actions


def test_only_who_is_named_may_answer(make_cluster):
    cluster = approving(make_cluster, by=("eve", "group:storage"))
    answer = give(cluster, Verb.APPROVE, "node/n1")
    assert not answer.accepted
    assert "lets only eve, group:storage answer; who is in a group is not known" in answer.text
    assert give(cluster, Verb.APPROVE, "node/n1", by="eve@desk").accepted


def test_approval_is_not_asked_for_what_cannot_be_done_anyway(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(base, approval=Approval())
    cluster = make_cluster(policies=[policy], fence_methods=[])
    cut_off(cluster, "n1")
    assert guards(cluster) == {"fence-method"}
    assert cluster.engine.state.approvals == {}


def test_another_policys_plan_needs_another_yes(make_cluster):
    cluster = approving(make_cluster)
    incident = cluster.incident("n1")
    give(cluster, Verb.APPROVE, incident.id)
    cluster.answer(status=OutcomeStatus.FAILED)
    old = cluster.engine.context.policies[0]
    other = msgspec.structs.replace(old, name="another", priority=1)
    cluster.engine.context.policies = (other, old)
    node = cluster.engine.context.inventory.nodes["n1"]
    plan = make_plan(cluster.engine.context, other, node)
    rows = safeguards.ask(cluster.engine.context, incident, node, plan)
    assert [row.guard for row in withheld(rows)] == ["approval"]


def test_an_approval_lifts_limits_on_how_much_but_not_what_would_be_wrong(make_cluster):
    settings = EngineSettings(budgets=BudgetSettings(max_unhealthy_zone_share=0.1))
    cluster = make_cluster(nodes=12, zones=3, settings=settings)
    lose(cluster, "n1")
    lose(cluster, "n4")  # the same zone, in which one may be down
    assert guards(cluster) == {"zone-share"}
    incident = cluster.incident("n4")
    assert give(cluster, Verb.APPROVE, incident.id).accepted
    begun = cluster.kinds(DecisionKind.STARTED)[-1]
    row = next(each for each in begun.guards if each.guard == "zone-share")
    assert (row.answer, row.lifted) == ("grant", "ana@laptop")
    assert row.why.startswith("approved by ana@laptop all the same: 2 of 4 nodes down")
    held = make_cluster(fence_methods=[])
    cut_off(held, "n1")
    assert give(held, Verb.APPROVE, "node/n1").accepted
    held.run(5)
    assert held.actions == []


def test_a_new_leader_knows_what_was_asked_and_gives_it_its_time_anew(make_cluster):
    cluster = approving(make_cluster, lapses_after_s=120.0)
    cluster.run(100)
    heir = cluster.reborn()
    asked_before = cluster.engine.state.approvals[cluster.incident("n1").id]
    assert heir.engine.state.approvals == {asked_before.incident: asked_before}
    heir.lead()
    (asked,) = heir.engine.state.approvals.values()
    assert asked.lapses_at - asked.asked_at == pytest.approx(120.0)
    assert asked.asked_at > asked_before.asked_at


# --- retry and cancel -----------------------------------------------------------------------------


def test_a_cancelled_plan_stops_at_its_next_safe_point_and_is_taken_up_again(cluster):
    lose(cluster, "n1")
    incident = cluster.incident("n1")
    assert give(cluster, Verb.CANCEL, incident.id).accepted
    cluster.answer()  # cordoned
    cluster.run(30)
    assert steps(cluster) == ["cordon"]
    assert guards(cluster) == {"cancelled"}
    assert give(cluster, Verb.CANCEL, incident.id).text.endswith("is cancelled already")
    assert give(cluster, Verb.RETRY, incident.id).accepted
    cluster.run(2)
    assert steps(cluster)[-1] == "fence"


def test_a_cancelled_recovery_restarts_no_further_vm(cluster):
    lose(cluster, "n1")
    for _ in range(2):
        cluster.answer()
    assert give(cluster, Verb.CANCEL, "node/n1").accepted
    cluster.answer()  # released: that was under way
    cluster.run(10)
    assert "force-stop" not in steps(cluster)
    assert "cancelled by ana@laptop" in cluster.kinds(DecisionKind.REFUSED)[-1].why
    give(cluster, Verb.RETRY, "vm/ns/vm-n1")
    cluster.run(2)
    assert steps(cluster)[-1] == "force-stop"


def test_retry_tries_at_once_what_was_given_up(cluster):
    lose(cluster, "n1")
    cluster.answer()
    for _ in range(3):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=OutcomeStatus.FAILED)
    cluster.run(2)
    assert cluster.incident("n1").state is IncidentState.ESCALATED
    assert cluster.actions == []
    assert give(cluster, Verb.RETRY, "node/n1").accepted
    assert cluster.actions[0].id.endswith("/fence/1")


@pytest.mark.parametrize("verb", [Verb.APPROVE, Verb.DENY, Verb.RETRY, Verb.CANCEL])
def test_an_incident_that_is_not_open_is_named(cluster, verb):
    answer = give(cluster, verb, "inc-99")
    assert not answer.accepted
    assert "'inc-99' is no open incident, nor a node or VM that has one" in answer.text


def test_orders_change_memory_only_by_their_records(cluster):
    lose(cluster, "n1")
    give(cluster, Verb.PAUSE, "zone/zone-0", lasts_s=600.0)
    give(cluster, Verb.IGNORE, "namespace/x")
    give(cluster, Verb.CANCEL, "node/n1")
    give(cluster, Verb.RETRY, "node/n1")
    give(cluster, Verb.RESUME, "namespace/x")
    heir = cluster.reborn()
    assert heir.engine.snapshot() == cluster.engine.snapshot()


# --- VMs of a lost host ---------------------------------------------------------------------------


def test_a_paused_vm_of_a_lost_host_waits_and_one_that_is_excluded_is_left(cluster):
    for name in ("db", "web", "mine"):
        cluster.add_vm(name, "n1")
    give(cluster, Verb.PAUSE, "vm/ns/db")
    facts = cluster.engine.context.inventory.vms["ns", "mine"]
    marks = {"remediator.io/exclude": ""}
    cluster.handle(ObjectSeen(facts=msgspec.structs.replace(facts, annotations=marks)))
    cluster.fence_through("n1")
    cluster.run(3)
    assert [each.subject.name for each in cluster.actions] == ["web"]
    incident = cluster.incident("n1")
    assert incident.vms["vm/ns/mine"].stage == "left"
    assert incident.vms["vm/ns/db"].stage == "waiting"
    give(cluster, Verb.RESUME, "vm/ns/db")
    cluster.run(2)
    assert {each.subject.name for each in cluster.actions} == {"web", "db"}


def test_an_ignored_host_that_is_fenced_already_is_let_go_and_still_cleaned_up(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()
    give(cluster, Verb.IGNORE, "node/n1")
    assert cluster.incident("n1") is not None  # its fence is under way: not before that has ended
    cluster.answer()
    cluster.run(1)
    assert cluster.incident("n1") is None
    closed = cluster.kinds(DecisionKind.RESOLVED)[-1]
    assert "it was fenced, and 1 of its VMs are left as they are" in closed.why
    assert cluster.actions == []
    cluster.silent.clear()
    cluster.handler_silent.clear()
    cluster.power("n1", Reading.UP)
    cluster.node_changes("n1", boot_id="boot-n1-2")
    cluster.until(lambda: cluster.actions, 60)
    assert cluster.actions[0].id.split("/")[1] == "uncordon"


def test_an_ignored_vm_gets_no_incident_and_an_open_one_is_closed(cluster):
    cluster.add_vm("db", "n1")
    facts = cluster.engine.context.inventory.vmis["ns", "db"]
    lost = msgspec.structs.replace(facts, agent_connected=False, agent_known=True)
    cluster.handle(ObjectSeen(facts=lost))
    cluster.until(lambda: cluster.engine.state.vm_incidents, 900)
    give(cluster, Verb.IGNORE, "namespace/ns")
    cluster.run(60)
    assert cluster.engine.state.vm_incidents == {}
    why = cluster.kinds(DecisionKind.RESOLVED)[-1].why
    assert why == "none of our business: namespace/ns is ignored by ana@laptop: firmware"
    cluster.run(600)
    assert cluster.engine.state.vm_incidents == {}
    give(cluster, Verb.RESUME, "namespace/ns")
    cluster.until(lambda: cluster.engine.state.vm_incidents, 900)
