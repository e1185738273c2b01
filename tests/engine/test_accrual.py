"""Suspicion by each node's own rhythm: quick where it renews often, patient where it does not."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remediator.engine.accrual import PHI_MAX, Rhythm, Tempo, deviations, phi
from remediator.engine.settings import DetectionSettings

SETTINGS = DetectionSettings()


def tempo(**changed: float) -> Tempo:
    return Tempo(
        changed.get("overdue_s", SETTINGS.lease_overdue_after_s),
        changed.get("silent_s", SETTINGS.lease_silent_after_s),
        overdue_phi=SETTINGS.lease_overdue_phi,
        silent_phi=SETTINGS.lease_silent_phi,
        least_s=SETTINGS.lease_silent_min_s,
    )


def learned(intervals: list[float], assumed: Tempo | None = None) -> tuple[float, float]:
    """The limits of a node that beat at these intervals."""
    assumed = assumed or tempo()
    rhythm = heard(intervals, assumed)
    if not rhythm.mean_s:
        return assumed.overdue_s, assumed.silent_s
    return assumed.limits(rhythm.mean_s, rhythm.spread_s)


def heard(intervals: list[float], assumed: Tempo) -> Rhythm:
    """The rhythm after these intervals, worked out after each as it is in life."""
    rhythm = Rhythm()
    for interval in intervals:
        rhythm.note(interval)
        rhythm.settle(assumed)
    return rhythm


def kubelet(period_s: float) -> st.SearchStrategy[float]:
    """Its period with the 4 % of jitter that kubelets add."""
    return st.floats(period_s, period_s * 1.04)


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.floats(0.1, 1e3), st.floats(0.01, 100.0))
def test_suspicion_never_falls_while_silence_grows(silence_s, more_s, mean_s, spread_s):
    before, after = (phi(each, mean_s, spread_s) for each in (silence_s, silence_s + more_s))
    assert 0.0 <= before <= after <= PHI_MAX


@pytest.mark.parametrize(("level", "chance"), [(1.0, 10), (2.0, 100), (3.0, 1000)])
def test_a_level_of_n_is_a_chance_of_one_in_ten_to_the_n(level, chance):
    silence_s = 10.0 + deviations(level) * 0.5
    assert phi(silence_s, 10.0, 0.5) == pytest.approx(level)
    later = 10.0**-level
    assert later == pytest.approx(1 / chance)


def test_before_a_rhythm_is_known_the_seconds_of_the_settings_hold():
    assert learned([]) == (10.6, 12.0)
    assert learned([2.0] * 7) == (10.6, 12.0), "to be quick takes more than that"
    assert learned([30.0] * 2) == (10.6, 12.0)


def test_the_assumed_rhythm_reaches_the_levels_at_those_seconds():
    assumed = tempo()
    assert phi(assumed.overdue_s, assumed.mean_s, assumed.spread_s) == pytest.approx(1.0)
    assert phi(assumed.silent_s, assumed.mean_s, assumed.spread_s) == pytest.approx(8.0)


@given(st.lists(kubelet(10.0), min_size=8, max_size=40))
def test_a_kubelet_by_its_defaults_is_silent_after_about_12_seconds(intervals):
    overdue_s, silent_s = learned(intervals)
    assert 10.4 <= overdue_s <= 10.9
    assert 11.8 <= silent_s <= 12.3


@given(st.lists(kubelet(2.0), min_size=8, max_size=40))
def test_a_node_that_renews_every_2_seconds_is_silent_after_a_few(intervals):
    overdue_s, silent_s = learned(intervals)
    assert max(intervals) < overdue_s
    assert 3.0 <= silent_s <= 4.0


@given(st.lists(st.floats(0.3, 0.5), min_size=8, max_size=40))
def test_however_fast_it_renews_it_is_not_silent_at_once(intervals):
    assert learned(intervals)[1] >= SETTINGS.lease_silent_min_s


@given(st.lists(kubelet(30.0), min_size=3, max_size=40), kubelet(30.0))
def test_a_node_that_renews_every_30_seconds_is_never_falsely_silent(intervals, next_interval):
    _, silent_s = learned(intervals)
    assert next_interval < silent_s <= 40.0


@given(st.lists(kubelet(10.0), min_size=12, max_size=30), st.sets(st.integers(0, 40), max_size=12))
@example([10.375] * 3 + [10.0] * 7 + [10.375, 10.0], {3, 6})
@example([10.2, 10.0, 10.2, 10.4, 10.4, 10.0, 10.0, 10.2, 10.0, 10.4, 10.4, 10.2], {0, 3})
def test_lost_beats_are_no_new_rhythm(intervals, lost):
    """A lost beat makes one interval of twice the rhythm; here no two in a row are lost."""
    lost = {each for each in lost if each - 1 not in lost and each % 3 == 0}
    told = [2 * each if number in lost else each for number, each in enumerate(intervals)]
    # At most 10.4 s, and φ 8 (5.6 deviations) past that at a median deviation of 0.4 s / 0.6745.
    assert 11.7 <= learned(told)[1] <= 13.75, "nowhere near the 20 s of a lost beat"


def test_a_slower_rhythm_is_learned_from_three_intervals_in_a_row():
    assert heard([10.2] * 12 + [30.4, 30.9, 30.1], tempo()).mean_s == pytest.approx(30.4)


def test_three_silences_that_are_not_alike_are_no_rhythm():
    assert heard([10.2] * 12 + [20.0, 45.0, 90.0], tempo()).mean_s == pytest.approx(10.2)


def test_a_faster_rhythm_is_not_believed_before_eight_intervals():
    for number in range(1, 8):
        assert heard([30.2] * 3 + [2.05] * number, tempo()).mean_s >= 30.0, number
    assert heard([30.2] * 3 + [2.05] * 12, tempo()).mean_s == pytest.approx(2.05)


@given(st.lists(st.floats(0.0, 0.19) | st.floats(300.1, 1e9), max_size=30))
def test_bursts_and_outages_say_nothing_about_a_rhythm(intervals):
    assert learned(intervals) == (10.6, 12.0)


@given(st.lists(kubelet(10.0), min_size=8, max_size=12), st.floats(12.0, 60.0))
def test_raising_the_seconds_makes_every_node_s_limit_more_patient(intervals, silent_s):
    assert learned(intervals, tempo(silent_s=silent_s))[1] >= silent_s - 0.3


@given(st.lists(st.floats(0.2, 300.0), min_size=1, max_size=40))
def test_whatever_the_intervals_the_limits_are_in_order_and_bounded(intervals):
    overdue_s, silent_s = learned(intervals)
    assert 0.0 < overdue_s <= silent_s
    assert silent_s <= 2.0 * max(*intervals, 12.0)


def test_settings_that_contradict_each_other_still_give_limits():
    odd = Tempo(10.6, 5.0, least_s=60.0)
    overdue_s, silent_s = odd.limits(10.2, odd.spread_s)
    assert 0.0 < overdue_s <= silent_s
