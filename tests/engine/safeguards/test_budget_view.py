"""What ``remediator budgets`` shows, and that every answer of a guard can be given again."""

from __future__ import annotations

import msgspec

from remediator.engine import budget_view, guard_answers
from remediator.engine.events import CommandGiven, ObjectSeen, Verb
from remediator.engine.model import Reading, vm_subject
from remediator.engine.policy_types import Approval
from remediator.engine.safeguards import ask_vm
from remediator.engine.settings import BudgetSettings, EngineSettings


def give(cluster, verb: Verb, target: str, **options) -> None:
    number = len(cluster.answers) + 1
    cluster.handle(
        CommandGiven(id=f"c{number}", verb=verb, target=target, by="ana", reason="x", **options)
    )
    assert cluster.answers[-1].accepted, cluster.answers[-1].text


def lose(cluster, *nodes: str) -> None:
    for node in nodes:
        cluster.add_vm(f"vm-{node}", node)
        cluster.kill(node)
    cluster.until(lambda: set(nodes) <= set(cluster.asked_power))
    for node in nodes:
        cluster.power(node, Reading.DOWN)
    cluster.run(5)


def view(cluster) -> budget_view.BudgetsView:
    return budget_view.view(cluster.engine.context, cluster.now)


def test_a_quiet_cluster_uses_nothing(cluster):
    found = view(cluster)
    assert not any(line.used or line.spent for line in found.limits)
    assert (found.pauses, found.approvals, found.withheld) == ((), (), ())
    assert (found.leader, found.mode) == ("me", "enforce")


def test_what_is_used_and_what_is_withheld_is_named(make_cluster):
    settings = EngineSettings(budgets=BudgetSettings(max_fences_at_once=1))
    cluster = make_cluster(nodes=12, zones=6, settings=settings)
    lose(cluster, "n1", "n2")
    found = view(cluster)
    lines = {(line.guard, line.scope): line for line in found.limits}
    assert lines["fences-at-once", "cluster"].spent
    assert lines["cluster-share", "cluster"].used == 2
    (held,) = found.withheld
    assert held.subject == "node/n2"
    assert [guard.guard for guard in held.guards] == ["fences-at-once"]


def test_looking_changes_nothing(make_cluster):
    cluster = make_cluster(nodes=12, zones=6)
    lose(cluster, "n1", "n2", "n3")
    before = cluster.engine.snapshot()
    view(cluster)
    assert cluster.engine.snapshot() == before


def test_pauses_by_order_and_by_annotation_are_listed(cluster):
    give(cluster, Verb.PAUSE, "zone/zone-1", lasts_s=600.0)
    cluster.node_changes("n1", annotations={"remediator.io/pause": "ignore"})
    cluster.run(100)
    by_order, by_mark = view(cluster).pauses
    assert (by_order.scope, by_order.meaning, by_order.by) == ("zone/zone-1", "freeze", "ana")
    assert (by_order.since_s, by_order.in_s) == (100.0, 500.0)
    assert (by_mark.scope, by_mark.meaning) == ("node/n1", "ignore")


def test_requests_for_approval_are_listed_until_they_are_answered(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(base, approval=Approval(lapses_after_s=100.0))
    cluster = make_cluster(policies=[policy])
    lose(cluster, "n1")
    (asked,) = view(cluster).approvals
    assert (asked.subject, asked.answer) == ("node/n1", "waits")
    assert 90 < asked.in_s <= 100
    cluster.run(120)
    assert view(cluster).approvals[0].answer == "lapsed"
    give(cluster, Verb.APPROVE, "node/n1")
    assert view(cluster).approvals[0].answer == "approved"


def test_every_answer_can_be_given_again_from_what_its_row_keeps(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy = msgspec.structs.replace(base, approval=Approval())
    settings = EngineSettings(budgets=BudgetSettings(max_unhealthy_zone_share=0.1))
    cluster = make_cluster(nodes=12, zones=3, settings=settings, policies=[policy])
    give(cluster, Verb.PAUSE, "node/n4", lasts_s=30.0)
    lose(cluster, "n1", "n4")
    cluster.run(40)
    for node in ("n1", "n4"):
        give(cluster, Verb.APPROVE, f"node/{node}")
        give(cluster, Verb.CANCEL, f"node/{node}")
    cluster.run(5)
    rows = [row for decision in cluster.decisions for row in decision.guards]
    context = cluster.engine.context
    facts = context.inventory.vms["ns", "vm-n1"]
    labels = {"app.kubernetes.io/instance": "galera"}
    cluster.handle(ObjectSeen(facts=msgspec.structs.replace(facts, labels=labels)))
    rows += ask_vm(context, vm_subject("ns", "vm-n1"), policy, None)
    assert {"paused", "cancelled", "approval", "zone-share", "storm-brake", "crash-loop"} <= {
        row.guard for row in rows
    }
    assert any(row.lifted for row in rows)
    for row in rows:
        assert guard_answers.again(row) == row
