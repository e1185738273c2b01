"""Guards of nodes that count: limits, flapping, storms, etcd's quorum, replicas."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.chain import DecisionKind
from remediator.engine.events import CommandGiven, ObjectSeen, Verb
from remediator.engine.model import IncidentState, OutcomeStatus, Reading, VmFacts
from remediator.engine.rules import Limits, Policy
from remediator.engine.safeguards import ask
from remediator.engine.settings import BudgetSettings, EngineSettings, NodeLimits


def budgets(**fields):
    return EngineSettings(budgets=BudgetSettings(**fields))


def lose(cluster, *nodes: str) -> None:
    """Power nodes off at the same moment; their BMCs say so once they are asked."""
    for node in nodes:
        cluster.add_vm(f"vm-{node}", node)
        cluster.kill(node)
    cluster.until(lambda: set(nodes) <= set(cluster.asked_power))
    for node in nodes:
        cluster.power(node, Reading.DOWN)
    cluster.run(5)


def refusals(cluster, guard: str) -> list[str]:
    return [
        row.why
        for decision in cluster.kinds(DecisionKind.REFUSED, DecisionKind.ESCALATED)
        for row in decision.guards
        if row.guard == guard and row.answer != "grant"
    ]


def recover(cluster, node: str) -> None:
    """Answer everything about a node that is lost until its VM is up elsewhere."""
    vm = f"vm-{node}"
    cluster.until(lambda: any(each.subject.name in (node, vm) for each in cluster.actions))
    for _ in range(4):
        mine = [each for each in cluster.actions if each.subject.name in (node, vm)]
        for action in mine:
            cluster.answer(action)
        cluster.run(1)
    cluster.drop_pods(vm, node)
    cluster.place(vm, "n6")
    cluster.vmi(vm, node="n6", phase="Running", agent=True)
    cluster.run(2)
    assert cluster.incident(node) is None


def give(cluster, verb: Verb, target: str, **options):
    number = len(cluster.answers) + 1
    cluster.handle(
        CommandGiven(id=f"c{number}", verb=verb, target=target, by="ana", reason="test", **options)
    )
    return cluster.answers[-1]


# --- at once --------------------------------------------------------------------------------------


def test_as_many_nodes_of_a_pool_are_recovered_at_once_as_may_be(make_cluster):
    settings = budgets(node_pool_label="pool", nodes=NodeLimits(at_once_pool=1))
    cluster = make_cluster(nodes=12, zones=6, settings=settings)
    for node, pool in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        cluster.node_changes(node, labels={"pool": pool})
    lose(cluster, "n1", "n2", "n3")
    why = refusals(cluster, "disruptions-at-once")[0]
    assert "1 of 1 disrupted at once (pool/a): node/n1" in why
    fencing = {each.subject.name for each in cluster.actions}
    assert fencing == {"n1", "n3"}


def test_another_pool_has_its_own_limit_and_the_next_follows_when_the_first_is_done(make_cluster):
    settings = budgets(nodes=NodeLimits(at_once_zone=1))
    cluster = make_cluster(nodes=12, zones=3, settings=settings)
    lose(cluster, "n1", "n4")  # both in zone-0
    assert {each.subject.name for each in cluster.actions} == {"n1"}
    recover(cluster, "n1")
    cluster.until(lambda: any(each.subject.name == "n4" for each in cluster.actions))


# --- per hour -------------------------------------------------------------------------------------


def test_no_more_nodes_are_fenced_within_an_hour_than_may_be(make_cluster):
    settings = budgets(nodes=NodeLimits(per_hour=1), calm_s=0.0)
    cluster = make_cluster(nodes=12, zones=6, settings=settings)
    lose(cluster, "n1")
    recover(cluster, "n1")
    began_at = cluster.engine.state.disruptions[0].at
    lose(cluster, "n2")
    (why,) = refusals(cluster, "disruptions-per-hour")
    assert why == "1 of 1 disrupted within the hour (cluster): node/n1"
    row = cluster.kinds(DecisionKind.REFUSED)[-1].guards
    assert next(each.until for each in row if each.guard == "disruptions-per-hour") == (
        began_at + 3600.0
    )
    assert not cluster.actions
    cluster.run(3600 - (cluster.now - began_at) - 2)
    assert not cluster.actions
    cluster.run(5)
    assert {each.subject.name for each in cluster.actions} == {"n2"}


def test_the_next_attempt_of_a_fence_is_no_further_disruption(make_cluster):
    cluster = make_cluster(settings=budgets(nodes=NodeLimits(per_hour=1)))
    lose(cluster, "n1")
    cluster.answer()
    for _ in range(2):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=OutcomeStatus.FAILED)
    cluster.until(lambda: cluster.actions)
    assert len(cluster.engine.state.disruptions) == 1


def test_a_policy_keeps_its_own_limits(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"][0]
    policy: Policy = msgspec.structs.replace(base, limits=Limits(at_once=1))
    cluster = make_cluster(nodes=12, zones=6, policies=[policy])
    lose(cluster, "n1", "n2")
    assert refusals(cluster, "policy-limits") == [
        "1 of 1 disrupted by this policy (policy node-lost): node/n1"
    ]
    assert {each.subject.name for each in cluster.actions} == {"n1"}


# --- flapping -------------------------------------------------------------------------------------


def test_the_cool_down_doubles_with_each_further_fence(make_cluster):
    settings = budgets(fence_cooldown_s=100.0, nodes=NodeLimits(per_subject_per_hour=None))
    cluster = make_cluster(nodes=12, zones=6, settings=settings)
    held = []
    for boot in (2, 3, 4):
        lose(cluster, "n1")
        fenced = cluster.engine.state.fenced_at.get("n1")
        cluster.until(lambda: cluster.actions)
        if fenced is not None:
            held.append(round(cluster.now - fenced, -1))
        recover(cluster, "n1")
        cluster.silent.clear()
        cluster.handler_silent.clear()
        cluster.power("n1", Reading.UP)
        cluster.node_changes("n1", boot_id=f"boot-n1-{boot}")
        cluster.until(lambda: cluster.actions)
        cluster.answer()  # our taints come off
        cluster.run(30)
        cluster.asked_power.clear()
    assert held == [100.0, 200.0]


def come_and_go(cluster, node: str, times: int) -> None:
    for _ in range(times):
        cluster.kill(node)
        cluster.until(
            lambda: cluster.incident(node) and cluster.incident(node).state != "suspected"
        )
        cluster.silent.discard(node)
        cluster.handler_silent.discard(node)
        cluster.until(lambda: cluster.incident(node) is None)


def flappable(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"][0]
    patient = msgspec.structs.replace(base, for_s=15.0)
    return make_cluster(nodes=12, zones=6, policies=[patient])


def test_a_node_that_came_back_three_times_is_held_when_it_is_unreachable_again(make_cluster):
    cluster = flappable(make_cluster)
    cluster.add_vm("db", "n1")
    come_and_go(cluster, "n1", 3)
    cluster.kill("n1")
    cluster.until(lambda: refusals(cluster, "flapping"), 300)
    assert "came back by itself 3 times" in refusals(cluster, "flapping")[0]
    cluster.until(lambda: cluster.actions, 90)


def test_two_returns_are_not_yet_flapping(make_cluster):
    cluster = flappable(make_cluster)
    cluster.add_vm("db", "n1")
    come_and_go(cluster, "n1", 2)
    cluster.kill("n1")
    cluster.until(lambda: cluster.actions, 300)
    assert refusals(cluster, "flapping") == []


# --- storms ---------------------------------------------------------------------------------------


def test_a_power_cut_stops_all_fences_until_nothing_more_is_lost(make_cluster):
    settings = budgets(max_unhealthy_cluster_share=1.0, max_unhealthy_zone_share=1.0)
    cluster = make_cluster(nodes=30, zones=3, settings=settings)
    lost = [f"n{number}" for number in range(1, 8)]
    lose(cluster, *lost)
    # Each is convicted in turn: the first six are within the limit only until the seventh falls.
    assert any(
        "7 nodes lost within 300 s, limit 5" in why for why in refusals(cluster, "storm-brake")
    )
    begun = {each.subject for each in cluster.engine.state.disruptions}
    assert len(cluster.engine.state.disruptions) <= 2
    last_at = max(cluster.engine.state.losses.values())
    cluster.run(last_at + 300 - cluster.now - 2)
    assert {each.subject for each in cluster.engine.state.disruptions} == begun


def test_five_nodes_are_no_storm(make_cluster):
    settings = budgets(max_unhealthy_cluster_share=1.0, max_unhealthy_zone_share=1.0)
    cluster = make_cluster(nodes=30, zones=3, settings=settings)
    lose(cluster, *(f"n{number}" for number in range(1, 6)))
    assert refusals(cluster, "storm-brake") == []


# --- the control plane ----------------------------------------------------------------------------


def control_plane(make_cluster, count: int = 3, **fields):
    cluster = make_cluster(
        nodes=12, zones=6, settings=budgets(etcd_on_control_plane=True, **fields)
    )
    for number in range(1, count + 1):
        cluster.node_changes(f"n{number}", control_plane=True)
    return cluster


def test_a_control_plane_node_is_fenced_where_etcd_keeps_its_quorum(make_cluster):
    cluster = control_plane(make_cluster)
    lose(cluster, "n1")
    assert {each.subject.name for each in cluster.actions} == {"n1"}
    granted = cluster.kinds(DecisionKind.STARTED)[0].guards
    row = next(each for each in granted if each.guard == "control-plane")
    assert row.why == "etcd keeps 2 of 3 members, and needs 2"


def test_a_second_one_is_not_while_the_first_is_down(make_cluster):
    cluster = control_plane(make_cluster)
    lose(cluster, "n1", "n2")
    assert not cluster.actions
    assert any("etcd keeps 1 of 3 members without it, and needs 2" in why
               for why in refusals(cluster, "control-plane"))  # fmt: skip
    assert cluster.incident("n1").state is IncidentState.ESCALATED


def test_of_five_the_second_waits_for_the_first(make_cluster):
    cluster = control_plane(make_cluster, 5)
    lose(cluster, "n1", "n2")
    assert any(
        "not heard since it fell silent" in why for why in refusals(cluster, "control-plane")
    )
    cluster.run(20)
    assert not cluster.actions
    incident = cluster.incident("n1")
    node = cluster.engine.context.inventory.nodes["n1"]
    rows = ask(cluster.engine.context, incident, node, incident.plan)
    assert [row.why for row in rows if row.guard == "control-plane"] == [
        "one control-plane node at a time: n2 is down as well"
    ]


def test_where_etcd_is_is_not_guessed(make_cluster):
    cluster = make_cluster(nodes=12, zones=6)
    for number in (1, 2, 3):
        cluster.node_changes(f"n{number}", control_plane=True)
    lose(cluster, "n1")
    assert refusals(cluster, "control-plane") == [
        "etcd quorum is not known here: a human must decide"
    ]


def test_labels_say_where_etcd_is(make_cluster):
    cluster = make_cluster(nodes=12, zones=6)
    for number in (1, 2, 3):
        cluster.node_changes(f"n{number}", control_plane=True, etcd=True)
    lose(cluster, "n1")
    assert {each.subject.name for each in cluster.actions} == {"n1"}


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_members_have_no_quorum_to_spare(make_cluster, count):
    cluster = control_plane(make_cluster, count)
    lose(cluster, "n1")
    assert not cluster.actions
    assert "no quorum without it" in refusals(cluster, "control-plane")[0]


# --- replicated applications ----------------------------------------------------------------------


def galera(cluster, *names: str) -> None:
    for name in names:
        facts = cluster.engine.context.inventory.vms["ns", name]
        labels = {"app.kubernetes.io/instance": "galera"}
        cluster.handle(ObjectSeen(facts=msgspec.structs.replace(facts, labels=labels)))


def unreachable(cluster, *nodes: str) -> None:
    """Cut nodes off: they may live."""
    for node in nodes:
        cluster.add_vm(f"vm-{node}", node)
        cluster.kill(node)


def test_the_last_replica_of_an_application_is_not_taken_from_a_host_that_may_live(make_cluster):
    cluster = make_cluster(nodes=12, zones=6)
    unreachable(cluster, "n1", "n2")
    galera(cluster, "vm-n1", "vm-n2")
    cluster.until(lambda: refusals(cluster, "replicated-app"))
    assert refusals(cluster, "replicated-app")[0] == (
        "1 of the 2 VMs of ns/galera are away: ns/vm-n1"
    )
    assert {each.subject.name for each in cluster.actions} == {"n1"}
    recover(cluster, "n1")
    cluster.until(lambda: any(each.subject.name == "n2" for each in cluster.actions))


def test_with_a_third_replica_elsewhere_both_hosts_are_fenced(make_cluster):
    cluster = make_cluster(nodes=12, zones=6)
    cluster.add_vm("third", "n9")
    unreachable(cluster, "n1", "n2")
    galera(cluster, "vm-n1", "vm-n2", "third")
    cluster.until(lambda: len(cluster.actions) == 2)
    assert refusals(cluster, "replicated-app") == []


def test_the_same_label_in_another_namespace_is_another_application(make_cluster):
    cluster = make_cluster(nodes=12, zones=6)
    unreachable(cluster, "n1", "n2")
    galera(cluster, "vm-n1")
    labels = {"app.kubernetes.io/instance": "galera"}
    other = VmFacts(namespace="else", name="vm-n2", uid="u", labels=labels)
    cluster.handle(ObjectSeen(facts=other))
    cluster.until(lambda: len(cluster.actions) == 2)


# --- after a take-over ----------------------------------------------------------------------------


def test_a_new_leader_counts_on_where_the_last_one_stopped(make_cluster):
    settings = budgets(nodes=NodeLimits(per_hour=1), calm_s=0.0)
    cluster = make_cluster(nodes=12, zones=6, settings=settings)
    lose(cluster, "n1")
    recover(cluster, "n1")
    heir = cluster.reborn()
    assert heir.engine.state.disruptions == cluster.engine.state.disruptions
    heir.lead()
    heir.add_vm("vm-n2", "n2")
    heir.kill("n2")
    heir.until(lambda: "n2" in heir.asked_power)
    heir.power("n2", Reading.DOWN)
    heir.run(30)
    assert heir.actions == []
    assert refusals(heir, "disruptions-per-hour")
