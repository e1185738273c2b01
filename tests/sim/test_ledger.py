from __future__ import annotations

import pytest

from remediator.sim.ledger import Entry, Ledger


class Time:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def ledger(time: Time) -> Ledger:
    return Ledger(time)


def start(ledger: Ledger, vm: str = "a/db", node: str = "n01", *, persistent: bool = True):
    return ledger.started(vm, node=node, vmi_uid=f"uid-{node}", persistent=persistent)


def test_two_copies_of_a_vm_with_a_disk_are_a_double_run_as_long_as_both_live(ledger, time):
    first = start(ledger)
    time.at = 110.0
    second = start(ledger, node="n02")
    time.at = 117.5
    ledger.ended(first, "power loss")
    time.at = 130.0
    (run,) = ledger.double_runs
    assert (run.first, run.second) == (first, second)
    assert (run.began_at, run.ended_at) == (110.0, 117.5)
    assert run.lasted_s(time.at) == 7.5


def test_a_double_run_that_still_lasts_counts_up_to_now(ledger, time):
    start(ledger)
    start(ledger, node="n02")
    time.at = 103.0
    (run,) = ledger.double_runs
    assert run.ended_at is None
    assert run.lasted_s(time.at) == 3.0
    assert "still lasts" in str(run)


def test_a_start_after_the_end_of_the_old_copy_is_no_double_run(ledger):
    ledger.ended(start(ledger), "power loss")
    start(ledger, node="n02")
    assert ledger.double_runs == ()


def test_two_copies_without_a_persistent_disk_destroy_nothing(ledger):
    start(ledger, persistent=False)
    start(ledger, node="n02", persistent=False)
    assert ledger.double_runs == ()
    assert len(ledger.running_copies("a/db")) == 2


def test_three_copies_make_three_pairs(ledger):
    for node in ("n01", "n02", "n03"):
        start(ledger, node=node)
    assert len(ledger.double_runs) == 3


def test_a_paused_copy_still_holds_its_disk(ledger):
    old = start(ledger)
    ledger.paused(old, "host hangs")
    start(ledger, node="n02")
    assert len(ledger.double_runs) == 1
    assert len(ledger.writers("a/db")) == 2


def test_a_copy_cut_off_the_storage_writes_nothing_until_it_rejoins(ledger, time):
    old = start(ledger)
    ledger.cut_off(old, "storage partition")
    start(ledger, node="n02")
    assert ledger.double_runs == ()
    time.at = 150.0
    ledger.rejoined(old)
    (run,) = ledger.double_runs
    assert run.began_at == 150.0


def test_a_cut_ends_a_double_run(ledger, time):
    old = start(ledger)
    start(ledger, node="n02")
    time.at = 105.0
    ledger.cut_off(old, "storage fenced")
    assert ledger.double_runs[0].ended_at == 105.0


def test_a_live_migration_hands_over_in_one_instant(ledger):
    source = start(ledger)
    ledger.up(source)
    heir = ledger.moved(source, "n02")
    assert ledger.running_copies("a/db") == (heir,)
    assert ledger.up_at("a/db") == 100.0
    assert ledger.double_runs == ()


def test_a_vm_is_up_when_its_guest_has_booted_and_neither_paused_nor_cut_off(ledger, time):
    copy = start(ledger)
    assert ledger.up_at("a/db") is None
    assert not ledger.is_up("a/db")
    time.at = 112.0
    ledger.up(copy)
    assert ledger.up_at("a/db") == 112.0
    assert ledger.is_up("a/db")
    ledger.paused(copy, "host hangs")
    assert not ledger.is_up("a/db")
    ledger.resumed(copy)
    ledger.cut_off(copy, "storage partition")
    assert not ledger.is_up("a/db")


def test_the_peak_of_boots_is_counted_over_the_cluster_and_per_node(ledger, time):
    first = start(ledger, "a/one")
    second = start(ledger, "a/two")
    time.at = 105.0
    third = start(ledger, "a/three", node="n02")
    ledger.up(first)
    ledger.ended(second, "crash")
    assert ledger.booting == 1
    assert ledger.peak_booting == 3
    assert ledger.peak_booting_at == 105.0
    assert ledger.peak_booting_on == {"n01": 2, "n02": 1}
    ledger.rebooting(third, "boot timed out")
    assert ledger.booting == 1


def test_the_timeline_tells_each_vm_in_order_and_listeners_at_once(ledger):
    heard: list[Entry] = []
    ledger.subscribe(heard.append)
    copy = start(ledger)
    start(ledger, "a/other")
    ledger.up(copy)
    ledger.ended(copy, "power loss")
    assert [e.what for e in ledger.timeline("a/db")] == ["started", "up", "ended"]
    assert ledger.timeline("a/db")[-1].detail == "power loss"
    assert tuple(heard) == ledger.timeline()


def test_nothing_can_be_booked_on_a_copy_that_has_ended(ledger):
    copy = start(ledger)
    ledger.ended(copy, "power loss")
    with pytest.raises(AssertionError, match="power loss"):
        ledger.up(copy)
