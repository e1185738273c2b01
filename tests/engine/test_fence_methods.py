"""Fence configurations that change while a leader leads."""

from __future__ import annotations

from remediator.engine.chain import DecisionKind
from remediator.engine.events import FenceMethodsLoaded
from remediator.engine.model import Fence, IncidentState, OutcomeStatus
from remediator.engine.settings import FenceLevel, FenceMethod

BMC = FenceMethod(name="bmc", nodes=("*",))


def load(cluster, *methods: FenceMethod) -> None:
    cluster.handle(FenceMethodsLoaded(methods=methods))


def told(cluster) -> list[str]:
    return [each.why for each in cluster.kinds(DecisionKind.FENCE_METHODS)]


def test_what_changed_stands_in_the_log_and_what_did_not_does_not(make_cluster):
    cluster = make_cluster(fence_methods=[BMC])
    load(cluster, BMC)
    assert told(cluster) == []
    more = FenceMethod(name="pdu", nodes=("n*",))
    load(cluster, BMC, more)
    load(cluster, more, BMC)
    load(cluster, FenceMethod(name="pdu", nodes=("n*",), power_on=True))
    load(cluster)
    assert told(cluster) == [
        "fence configurations in force: bmc, pdu (new: pdu)",
        "fence configurations in force: pdu, bmc (in another order)",
        "fence configurations in force: pdu (gone: bmc; changed: pdu)",
        "fence configurations in force: none (gone: pdu)",
    ]


def test_a_node_without_a_method_is_fenced_once_there_is_one(make_cluster):
    cluster = make_cluster(fence_methods=[])
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.run(120)
    assert not cluster.actions
    assert cluster.incident("n1").state is not IncidentState.FENCING
    load(cluster, BMC)
    cluster.until(lambda: cluster.actions, 130)
    cluster.answer()
    cluster.until(lambda: cluster.actions, 10)
    assert isinstance(cluster.actions[0].work, Fence)


def test_a_plan_under_way_keeps_its_levels_and_its_action(make_cluster):
    cluster = make_cluster(fence_methods=[BMC])
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()
    cluster.until(lambda: cluster.actions)
    (fencing,) = cluster.actions
    load(cluster, FenceMethod(name="bmc", nodes=("*",), levels=(FenceLevel(name="other"),) * 2))
    cluster.run(5)
    assert cluster.actions == [fencing]
    cluster.answer()
    assert cluster.incident("n1").proof is not None


def test_a_fence_that_failed_is_planned_again_with_what_is_configured_by_then(make_cluster):
    """People mend configurations while a host is dead: that must not wait for the next death."""
    cluster = make_cluster(fence_methods=[BMC])
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.until(lambda: cluster.actions)
    cluster.answer()
    for _ in range(3):
        cluster.until(lambda: cluster.actions)
        cluster.answer(status=OutcomeStatus.FAILED, detail="away")
    cluster.until(lambda: cluster.incident("n1").state is IncidentState.ESCALATED)
    levels = (FenceLevel(name="bmc", attempts=1), FenceLevel(name="pdu", attempts=1))
    load(cluster, FenceMethod(name="both", nodes=("*",), levels=levels))
    cluster.until(lambda: cluster.actions, 180)
    while not isinstance(cluster.actions[0].work, Fence):
        cluster.answer()  # the node is cordoned already: to say it again is harmless
        cluster.until(lambda: cluster.actions)
    assert (cluster.actions[0].work.method, cluster.actions[0].work.level) == ("both", 0)
    (again,) = [each for each in cluster.kinds(DecisionKind.PLANNED) if "again" in each.why]
    assert again.why.endswith("planned again: its fence configuration has changed")
    assert [each.vm.name for each in again.plan.vms] == ["db"]
    cluster.answer(status=OutcomeStatus.FAILED, detail="away")
    cluster.until(lambda: cluster.actions)
    assert cluster.actions[0].work.level == 1
    cluster.answer()
    assert cluster.incident("n1").proof is not None


def test_replay_knows_nothing_of_methods_and_comes_to_the_same_state(make_cluster):
    cluster = make_cluster(fence_methods=[])
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.run(60)
    load(cluster, BMC)
    cluster.until(lambda: cluster.actions, 130)
    other = cluster.reborn()
    assert other.engine.snapshot() == cluster.engine.snapshot()
    assert other.engine.context.fence_methods == ()
