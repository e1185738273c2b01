"""Who is held back: only while more start than may, and only while a leader attends."""

from __future__ import annotations

import pytest


def test_without_a_leader_nothing_is_held_back_however_many_come(desk):
    assert not any(desk.gated(f"vm{number}") for number in range(500))
    assert desk.gatekeeper.created_lately == 500


def test_in_quiet_times_a_pod_passes_untouched(desk, make):
    desk.lead()
    pod = make.launcher()
    assert desk.admit(pod) == pod
    assert "patch" not in desk.ask(pod)


def test_a_storm_is_noticed_before_the_leader_has_seen_it(desk):
    desk.lead(places=3)
    assert [desk.gated(f"vm{number}") for number in range(5)] == [False, False, False, True, True]


def test_pods_that_came_before_the_first_word_of_a_leader_count(desk):
    for number in range(4):
        desk.gated(f"vm{number}")
    desk.lead(places=3)
    assert desk.gated("late")


def test_pods_that_the_leader_counts_already_are_not_counted_twice(desk):
    desk.lead(places=2)
    assert not desk.gated("a")
    assert not desk.gated("b")
    desk.lead(places=1, starting=frozenset({"shop/a", "shop/b"}))
    assert not desk.gated("c")
    assert desk.gated("d")


def test_pods_that_the_leader_has_not_seen_yet_keep_their_places(desk):
    desk.lead(places=2)
    desk.gated("a")
    desk.gated("b")
    desk.lead(places=2)  # told before it saw them
    assert desk.gated("c")


def test_a_pod_that_the_leader_never_counts_gives_its_place_back(desk):
    desk.lead(places=1)
    assert not desk.gated("a")
    desk.clock.at += 5.5
    desk.lead(places=1)
    assert not desk.gated("b")


def test_a_pod_held_back_takes_no_place(desk):
    desk.lead(places=1)
    assert [desk.gated(name) for name in "abc"] == [False, True, True]
    desk.lead(places=1, starting=frozenset({"shop/a"}))
    assert not desk.gated("d")


def test_while_others_wait_a_new_one_waits_with_them(desk):
    desk.lead(storm=True, places=5)
    assert desk.gated("a")


def test_a_vm_that_holds_a_place_starts_at_once(desk):
    desk.lead(storm=True, places=0, starting=frozenset({"shop/a"}))
    assert not desk.gated("a")
    assert desk.gated("a", namespace="other")


def test_a_state_grows_old(desk):
    desk.lead(storm=True)
    desk.clock.at += 4.0
    assert desk.gated("a")
    desk.clock.at += 0.1
    assert not desk.gated("b")


@pytest.mark.parametrize("why", [{"gating": False, "storm": True}], ids=str)
def test_a_leader_that_holds_nothing_back_is_obeyed(desk, why):
    desk.lead(**why)
    assert not desk.gated("a")


def test_a_deposed_leader_is_not_heard_while_the_new_one_speaks(desk):
    desk.lead(epoch=2, by="new", storm=False)
    desk.lead(epoch=1, by="old", storm=True)
    assert not desk.gated("a")
    desk.clock.at += 5
    desk.lead(epoch=1, by="old", storm=True)  # the new one is silent: any leader is a leader
    assert desk.gated("b")


def test_of_messages_that_overtake_each_other_the_newest_holds(desk):
    desk.lead(number=7, storm=True)
    desk.lead(number=6, storm=False)
    assert desk.gated("a")


def test_garbage_on_the_channel_changes_nothing(desk):
    desk.lead(storm=True)
    for garbage in (b"", b"{}", b"[" * 100_000, b'{"by": 1}', b"\xff\xfe"):
        desk.outlook.hear(garbage)
    assert desk.outlook.unreadable == 5
    assert desk.gated("a")


def test_a_state_of_a_newer_version_is_no_state(desk):
    desk.lead(schema=99, storm=True)
    assert not desk.gated("a")


def test_what_is_remembered_is_bounded(desk):
    for number in range(30_000):
        desk.gatekeeper.rule(f"shop/vm{number}")
    assert desk.gatekeeper.created_lately == 20_000
    desk.clock.at += 61
    assert desk.gatekeeper.created_lately == 0
    assert desk.gatekeeper._passed == {}
