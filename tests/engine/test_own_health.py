"""Trouble of our own stretches limits; past a point nothing is convicted, and that is recorded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.chain import DecisionKind
from remediator.engine.events import OwnHealthSeen
from remediator.engine.model import IncidentState, Plane, Reading, Verdict
from remediator.engine.own_health import OwnHealth
from remediator.engine.settings import OwnHealthSettings

FINE = OwnHealthSeen(loop_lag_s=0.01, api_latency_s=0.1, nats_latency_s=0.01)


def own() -> OwnHealth:
    return OwnHealth(OwnHealthSettings())


def after(*events: OwnHealthSeen) -> OwnHealth:
    health = own()
    for number, event in enumerate(events):
        health.seen(event, 1000.0 + number)
    return health


def test_an_ordinary_second_changes_nothing():
    health = after(FINE, FINE)
    assert (health.multiplier, health.suspended, health.reasons) == (1, False, ())
    assert health.relaxes_at is None


@pytest.mark.parametrize(
    ("event", "multiplier", "reason"),
    [
        (OwnHealthSeen(loop_lag_s=0.6), 2, "the event loop is late by 0.6 s"),
        (OwnHealthSeen(loop_lag_s=1.6), 4, "the event loop is late by 1.6 s"),
        (OwnHealthSeen(api_latency_s=2.5), 2, "the API server answers after 2.5 s"),
        (OwnHealthSeen(nats_latency_s=3.0), 4, "NATS answers after 3.0 s"),
        (OwnHealthSeen(stale_watches=("pods", "vms")), 3, "watches without progress: pods, vms"),
    ],
)  # fmt: skip
def test_each_kind_of_trouble_stretches_and_is_named(event, multiplier, reason):
    health = after(event)
    assert health.multiplier == multiplier
    assert health.reasons == (reason,)


def test_small_troubles_add_up():
    health = after(OwnHealthSeen(loop_lag_s=0.6, api_latency_s=2.0, nats_latency_s=1.0))
    assert health.multiplier == 4
    assert len(health.reasons) == 3


def test_past_a_point_convictions_are_suspended():
    assert not after(OwnHealthSeen(nats_latency_s=4.9)).suspended
    assert after(OwnHealthSeen(nats_latency_s=5.0)).suspended


@given(
    st.builds(
        OwnHealthSeen,
        loop_lag_s=st.floats(0.0, 1e308),
        api_latency_s=st.none() | st.floats(0.0, 1e308),
        nats_latency_s=st.none() | st.floats(0.0, 1e308),
        stale_watches=st.lists(st.text(max_size=5), max_size=50).map(tuple),
    )
)
def test_whatever_is_measured_the_multiplier_is_between_1_and_8(event):
    assert 1 <= after(event).multiplier <= 8


def test_it_rises_at_once_and_relaxes_after_a_calm_period():
    health = after(OwnHealthSeen(nats_latency_s=7.0))
    assert health.multiplier == 8
    assert health.relaxes_at == 1015.0
    for second in range(1, 16):
        health.seen(FINE, 1000.0 + second)
        assert health.multiplier == 8, second
    health.seen(FINE, 1016.0)
    assert health.multiplier == 1


def test_it_relaxes_to_what_was_still_wrong_lately():
    health = after(OwnHealthSeen(nats_latency_s=7.0))
    health.seen(OwnHealthSeen(nats_latency_s=2.0), 1010.0)
    health.seen(FINE, 1016.0)
    assert health.multiplier == 3
    health.seen(FINE, 1026.0)
    assert health.multiplier == 1


def test_a_measurement_that_is_not_repeated_fades():
    health = after(OwnHealthSeen(nats_latency_s=7.0))
    for second in range(1, 30):
        health.look(1000.0 + second)
    assert health.multiplier == 1


def test_a_watch_that_shows_no_progress_stretches_the_more_the_longer():
    health = own()
    health.progressed("leases", 5.0, 1000.0)
    levels = []
    for second in range(1, 40):
        health.look(1000.0 + second)
        levels.append(health.multiplier)
    assert levels[4] == 1
    assert levels[5] == 2
    assert levels[24] == 6
    assert levels[38] == 8
    assert health.reasons == ("leases silent for 39 s",)


def test_deafness_that_nobody_looked_at_counts_when_the_watch_is_back():
    health = own()
    health.progressed("leases", 5.0, 1000.0)
    health.progressed("leases", 5.0, 1060.0)
    assert health.suspended


def test_a_watch_that_was_never_heard_is_no_trouble():
    health = own()
    health.look(5000.0)
    assert health.multiplier == 1


@pytest.mark.parametrize(
    ("overdue", "nodes", "multiplier"),
    [
        (1, 1, 1), (2, 6, 1), (2, 2, 1),  # two hosts are no trouble of ours
        (3, 6, 3), (6, 6, 8),
        (20, 1000, 1), (340, 1000, 1), (341, 1000, 2), (600, 1000, 4), (1000, 1000, 8),
    ],
)  # fmt: skip
def test_many_nodes_overdue_in_the_same_interval_are_our_own_trouble(overdue, nodes, multiplier):
    health = own()
    health.many_overdue(overdue, nodes, 0.34)
    health.look(1000.0)
    assert health.multiplier == multiplier


# --- in the engine --------------------------------------------------------------------------------


def lose(cluster, *nodes: str) -> None:
    """Power off; from then on their BMCs say so when they are asked."""
    for node in nodes:
        cluster.add_vm(f"vm-{node}", node)
        cluster.kill(node)
    answered: set[str] = set()

    def answer_bmcs() -> bool:
        for node in set(cluster.asked_power) - answered:
            if node in nodes:
                answered.add(node)
                cluster.power(node, Reading.DOWN)
        return answered == set(nodes)

    cluster.until(answer_bmcs, limit_s=90)


def dead_after(make_cluster, lost: int, nodes: int, zones: int = 1) -> list[float]:
    """How long after the loss each of so many hosts of a cluster is found dead."""
    cluster = make_cluster(nodes=nodes, zones=zones)
    died_at = cluster.now
    lose(cluster, *(f"n{number + 1}" for number in range(lost)))
    cluster.run(3)
    found = {
        each.subject.name: each.at
        for each in reversed(cluster.decisions)
        if each.verdict is Verdict.DEAD
    }
    assert cluster.kinds(DecisionKind.OWN_HEALTH) == []
    return [at - died_at for at in found.values()]


@pytest.mark.parametrize(("lost", "nodes"), [(1, 3), (1, 30), (2, 6), (2, 30), (20, 1000)])
def test_the_ordinary_case_is_not_slowed(make_cluster, lost, nodes):
    took = dead_after(make_cluster, lost, nodes)
    assert len(took) == lost
    assert max(took) <= 13.0


def test_most_of_a_cluster_silent_at_once_is_looked_at_longer(make_cluster):
    cluster = make_cluster(nodes=10)
    lose_at = cluster.now
    for node in list(cluster.nodes)[:9]:
        cluster.kill(node)
    cluster.run(40)
    (suspended, going_on) = cluster.kinds(DecisionKind.OWN_HEALTH)
    assert suspended.at - lose_at < 12
    assert "nodes overdue in the same interval" in suspended.why
    assert "convictions go on" in going_on.why


def test_a_suspension_is_recorded_once_with_its_reasons_and_so_is_its_end(cluster):
    cluster.run(5)
    for _ in range(10):
        cluster.handle(OwnHealthSeen(nats_latency_s=8.0))
        cluster.run(1)
    cluster.run(40)
    begun, ended = cluster.kinds(DecisionKind.OWN_HEALTH)
    assert begun.why == "nothing is convicted until this is over: NATS answers after 8.0 s"
    assert (begun.stage, ended.stage) == ("suspended", "fine")
    assert begun.subject.kind == "daemon"
    assert begun.why in cluster.notices


def test_nothing_is_convicted_while_suspended_and_all_is_afterwards(cluster):
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    for _ in range(100):
        cluster.handle(OwnHealthSeen(nats_latency_s=8.0))
        cluster.run(1)
        cluster.power("n1", Reading.DOWN)
    assert cluster.incident("n1").verdict is Verdict.SUSPECT
    assert cluster.actions == []
    assert "n1" in cluster.asked_power
    cluster.until(lambda: cluster.actions, limit_s=20)
    assert cluster.incident("n1").verdict is Verdict.DEAD


def test_a_host_that_was_silent_before_the_trouble_is_a_suspect_by_the_row_own_trouble(cluster):
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.run(14)
    assert cluster.incident("n1").row == "lease-silent"
    cluster.handle(OwnHealthSeen(nats_latency_s=8.0))
    cluster.power("n1", Reading.DOWN)
    assert cluster.engine.context.evidence.own_health.suspended
    cluster.run(3)
    assert cluster.incident("n1").verdict is Verdict.SUSPECT
    assert cluster.actions == []


def test_a_fence_that_was_not_ordered_yet_waits_for_the_end_of_the_trouble(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    cluster.handle(OwnHealthSeen(nats_latency_s=8.0))
    cluster.answer()  # the cordon
    cluster.run(5)
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.FENCING
    cluster.until(lambda: cluster.actions, limit_s=30)


def test_a_fence_that_is_proven_goes_on_whatever_our_trouble(cluster):
    cluster.add_vm("db", "n1")
    cluster.fence_through("n1")
    for _ in range(5):
        cluster.handle(OwnHealthSeen(nats_latency_s=8.0))
        cluster.run(1)
    assert cluster.incident("n1").state is IncidentState.RECOVERING
    cluster.answer()
    cluster.drop_pods("db", "n1")
    cluster.place("db", "n2")
    cluster.vmi("db", node="n2", phase="Running", agent=True)
    assert cluster.incident("n1") is None


def test_a_slow_daemon_suspects_later(cluster):
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    died_at = cluster.now
    while cluster.incident("n1") is None:
        cluster.handle(OwnHealthSeen(loop_lag_s=0.6))
        cluster.run(1)
    assert 20.0 <= cluster.now - died_at <= 26.0


def test_the_handler_s_limit_is_stretched_too(cluster):
    cluster.handler_silent.add("n1")
    for _ in range(200):
        cluster.handle(OwnHealthSeen(loop_lag_s=0.6))
        cluster.run(1)
    assert cluster.incident("n1") is None
    cluster.run(40)
    assert cluster.incident("n1").verdict is Verdict.HANDLER_DOWN


def test_the_record_of_a_suspect_names_our_own_trouble(cluster):
    cluster.kill("n1")
    while cluster.incident("n1") is None:
        cluster.handle(OwnHealthSeen(loop_lag_s=0.6))
        cluster.run(1)
    rows = cluster.kinds(DecisionKind.OPENED)[-1].evidence
    assert rows[-1].plane == "own health"
    assert "limits are 2 times as long: the event loop is late by 0.6 s" in rows[-1].detail
    assert rows[0].plane == Plane.LEASE
