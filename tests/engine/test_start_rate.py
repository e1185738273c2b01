"""The adaptive limit finds the storage's knee, from how long boots take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remediator.engine.settings import RateSettings
from remediator.engine.start_rate import Learned, Phase, StartRate
from tests.engine.boot_model import Storage, Storm


def storm(count: int, storage: Storage, *, seed: int = 0, rate: StartRate | None = None) -> Storm:
    """Boot so many VMs; the Storm says how that went."""
    found = Storm(storage, rate or StartRate(), seed)
    found.now = found.rate.at
    found.run(count)
    return found


@pytest.mark.parametrize("count", [20, 100, 500, 2000])
def test_the_default_storage_is_used_to_within_15_percent_of_its_best(count: int) -> None:
    storage = Storage(knee=10, boot_s=10)
    assert storm(count, storage).now <= count / 10 * 10 * 1.15


@pytest.mark.parametrize("knee", [2, 5, 10, 20, 50, 100, 200])
def test_a_knee_from_2_to_200_is_found_and_kept_for_the_next_storm(knee: int) -> None:
    count = max(500, 60 * knee)
    run = storm(count, Storage(knee=knee))
    tail = storm(count, Storage(knee=knee), rate=run.rate)
    assert tail.now - run.now <= count / knee * 10 * 1.15
    assert knee * 0.8 <= run.rate.limit <= max(knee * 1.3, knee + 2)


@pytest.mark.parametrize("seed", range(5))
def test_boots_of_different_sizes_do_not_mislead_it(seed: int) -> None:
    run = storm(2000, Storage(knee=10, spread=0.3), seed=seed)
    assert run.now <= 2000 * 1.2


def test_a_storage_that_only_shares_is_not_starved() -> None:
    run = storm(1000, Storage(knee=20, thrash=0.0))
    assert run.now <= 1000 / 20 * 10 * 1.15


def test_a_storage_that_became_slower_as_a_whole_is_not_starved_for_ever() -> None:
    rate = StartRate()
    storm(500, Storage(knee=10, boot_s=10), rate=rate)
    slower = Storm(Storage(knee=10, boot_s=30), rate, now=10_000.0)
    assert slower.run(500) <= 500 / 10 * 30 * 1.3


def test_nothing_is_learned_from_places_that_stood_empty() -> None:
    rate = StartRate()
    for number in range(200):
        rate.started(f"vm-{number}", number * 20.0)
        rate.up(f"vm-{number}", number * 20.0 + 10)
    assert rate.limit == 10


def test_starts_that_fail_bring_the_limit_down_and_one_bad_vm_does_not() -> None:
    rate = StartRate()
    for number in range(10):
        rate.started(f"vm-{number}", 0.0)
    rate.failed("vm-0", 5.0)
    assert rate.limit == 10
    rate.failed("vm-1", 6.0)
    assert rate.limit == 7


def test_a_vm_that_its_owner_stopped_teaches_nothing() -> None:
    rate = StartRate()
    for number in range(10):
        rate.started(f"vm-{number}", 0.0)
    for number in range(10):
        rate.left(f"vm-{number}", 900.0)
    assert (rate.limit, rate.base_s, rate.booting) == (10, 0.0, 0)


def test_an_overload_is_met_before_its_boots_are_through() -> None:
    rate = StartRate(learned=Learned(limit=20, phase=Phase.HOLDING, base_s=10, sure=True))
    for number in range(20):
        rate.started(f"vm-{number}", 0.0)
    rate.up("vm-0", 30.0)  # the other nineteen are as late
    assert rate.limit <= 19


def test_what_was_learned_is_kept_by_the_next_leader() -> None:
    first = storm(500, Storage(knee=40))
    second = StartRate(learned=first.rate.learned)
    assert second.limit == first.rate.limit
    assert second.learned == first.rate.learned


def test_each_change_is_told_with_its_reason() -> None:
    told: list[str] = []
    storm(100, Storage(knee=10), rate=StartRate(changed=told.append))
    assert told
    assert all("at once took" in each for each in told)


@given(
    st.lists(
        st.tuples(st.sampled_from(["started", "up", "failed", "left"]), st.integers(0, 30)),
        max_size=300,
    ),
    st.lists(st.floats(0, 100), min_size=300, max_size=300),
    st.integers(1, 5),
    st.integers(5, 40),
)
@settings(max_examples=200, deadline=None)
def test_whatever_it_is_told_it_stays_within_its_bounds(
    told: list[tuple[str, int]], gaps: list[float], floor: int, ceiling: int
) -> None:
    rate = StartRate(RateSettings(initial=5, floor=floor, ceiling=ceiling))
    now = 0.0
    for (what, number), gap in zip(told, gaps, strict=False):
        now += gap
        rate.waits(number * 100)
        getattr(rate, what)(f"vm-{number}", now)
        assert floor <= rate.limit <= ceiling
        assert rate.base_s >= 0


def test_boots_that_nobody_saw_read_from_their_disks_say_nothing() -> None:
    rate = StartRate(RateSettings(initial=1.0, floor=1, ceiling=5))
    rate.started("seen", 0.0)
    rate.reads("seen", 1.0)
    rate.up("seen", 11.0)
    for number in range(12):
        rate.started(f"unseen-{number}", 20.0 + number)
    for number in range(12):
        rate.up(f"unseen-{number}", 40.0 + number)
    assert rate.limit == 1
