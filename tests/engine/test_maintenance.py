"""Who wants a node empty, how that is ordered, refused, remembered and taken back."""

from __future__ import annotations

import pytest
from evacuation_world import DRAIN, Evacuation

from remediator.engine.evacuation_view import preview
from remediator.engine.events import Verb
from remediator.engine.model import Reading, Verdict
from remediator.engine.views import NoSuch, Surroundings


@pytest.fixture
def town(make_cluster):
    base = make_cluster(lead=False).engine_options["policies"]
    return Evacuation(make_cluster(policies=[DRAIN, *base]))


def view(t, node="n1"):
    return preview(t.cluster.engine.context, Surroundings(at=t.cluster.now), node)


def test_an_order_is_obeyed_remembered_and_taken_back(town):
    town.add("a")
    assert town.order(Verb.DRAIN).accepted
    assert town.cluster.incident("n1").verdict is Verdict.MAINTENANCE
    assert town.cluster.engine.state.drains == {"n1": "drain by ann: new DIMMs"}
    assert town.cluster.reborn().engine.state.drains == {"n1": "drain by ann: new DIMMs"}
    assert town.order(Verb.UNDRAIN).accepted
    assert town.cluster.engine.state.drains == {}


@pytest.mark.parametrize(
    ("verb", "node", "why"),
    [
        (Verb.DRAIN, "n99", "there is no node n99"),
        (Verb.UNDRAIN, "n1", "nobody has ordered n1 to be drained"),
    ],
)
def test_an_order_that_means_nothing_is_refused_with_the_reason(town, verb, node, why):
    answer = town.order(verb, node)
    assert not answer.accepted
    assert why in answer.text


def test_a_second_order_says_who_gave_the_first(town):
    town.order(Verb.DRAIN)
    answer = town.order(Verb.DRAIN)
    assert not answer.accepted
    assert "it is ordered already: drain by ann: new DIMMs" in answer.text


def test_without_a_policy_an_order_is_refused(make_cluster):
    t = Evacuation(make_cluster())
    answer = t.order(Verb.DRAIN)
    assert not answer.accepted
    assert "no policy answers Maintenance" in answer.text


def test_in_observe_mode_an_order_is_refused(make_cluster):
    t = Evacuation(make_cluster(policies=[DRAIN], enforce=False))
    assert "observe mode" in t.order(Verb.DRAIN).text


def test_what_an_annotation_asks_for_is_not_undone_by_an_order(town):
    town.want()
    answer = town.order(Verb.UNDRAIN)
    assert not answer.accepted
    assert "kubectl annotate node n1 remediator.io/maintenance-" in answer.text


def test_an_annotation_that_stood_before_the_daemon_led_counts(make_cluster):
    cluster = make_cluster(lead=False, policies=[DRAIN])
    t = Evacuation(cluster)
    t.want()
    cluster.lead()
    cluster.run(2)
    assert cluster.incident("n1").verdict is Verdict.MAINTENANCE


def test_a_wish_does_not_speak_for_a_node_that_may_be_dead(town):
    town.add("a")
    town.begin()
    town.cluster.lose("n1")
    town.cluster.until(
        lambda: town.cluster.incident("n1").verdict in (Verdict.DEAD, Verdict.UNREACHABLE), 120
    )


def test_an_empty_node_in_maintenance_may_be_switched_off(town):
    town.add("a")
    town.begin()
    town.accept()
    town.moves("a", "n2")
    town.cluster.drop_pods("a", "n1")
    town.cluster.lose("n1")
    town.cluster.run(200)
    assert town.cluster.actions == [], "nothing would be won by fencing it"
    town.cluster.power("n1", Reading.UP)
    town.cluster.silent.clear()
    town.cluster.handler_silent.clear()
    town.cluster.node_changes("n1", boot_id="boot-n1-2")
    town.cluster.run(60)
    assert {type(each.work).__name__ for each in town.cluster.actions} <= {"Cordon"}


# --- the preview ----------------------------------------------------------------------------------


def test_the_preview_names_what_would_stay_and_why(town):
    town.add("a")
    town.add("b", live_migratable=False, not_migratable_why="HostDeviceNotLiveMigratable")
    seen = view(town)
    assert (seen.policy, seen.state, seen.guards) == ("drain", "nothing is under way", ())
    assert [(move.name, move.how) for move in seen.moves] == [
        ("a", "live migration"),
        ("b", "stays"),
    ]
    assert "HostDeviceNotLiveMigratable" in seen.moves[1].why
    assert town.cluster.actions == []
    assert town.cluster.incident("n1") is None


def test_the_preview_says_which_guard_would_hold_it(town):
    town.add("a")
    town.add("b", node="n2")
    town.begin("n2")
    (guard,) = view(town).guards
    assert (guard.guard, guard.answer) == ("evacuations-at-once", "wait")


def test_the_preview_of_a_drain_under_way_shows_its_course(town):
    town.add("a", "b")
    town.begin()
    town.accept()
    town.migration("a", "Running")
    town.cluster.run(7)
    seen = view(town)
    assert seen.state == "evacuating: 0 of 2 VMs have left"
    assert "2 of 2 off n1" in seen.limits
    a = seen.moves[0]
    assert (a.stage, a.attempts) == ("migrating", 1)
    assert a.migration == "Running, copying for 7 s"


def test_there_is_no_preview_of_a_node_that_is_not_there(town):
    seen = view(town, "n11")
    assert isinstance(seen, NoSuch)
    assert "n1" in seen.detail


def test_without_a_policy_the_preview_says_so(make_cluster):
    t = Evacuation(make_cluster())
    t.add("a")
    assert view(t).policy == ""
