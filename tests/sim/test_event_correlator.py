"""client-go's correlator: one Event for all repeats, 25 at once, then one every five minutes."""

from __future__ import annotations

from remediator.sim.event_correlator import EventCorrelator

KEY = ("uid", "Unhealthy", "text")


def test_repeats_are_one_event_with_a_count():
    correlator = EventCorrelator()
    taken = [correlator.take("uid", KEY, "pod", 100.0 + i) for i in range(3)]
    assert {series.name for series in taken} == {taken[0].name}
    assert taken[0].name.startswith("pod.")
    assert (taken[0].first_at, taken[-1].count) == (100.0, 3)


def test_another_text_is_another_event_of_the_same_budget():
    correlator = EventCorrelator()
    names = {correlator.take("uid", (*KEY, i), "pod", 0.0).name for i in range(25)}
    assert len(names) == 25
    assert correlator.take("uid", KEY, "pod", 0.0) is None


def test_one_more_is_granted_every_five_minutes():
    correlator = EventCorrelator()
    for _ in range(25):
        correlator.take("uid", KEY, "pod", 0.0)
    granted = [t for t in range(0, 1200, 10) if correlator.take("uid", KEY, "pod", float(t))]
    assert granted == [300, 600, 900]


def test_one_objects_noise_silences_no_other():
    correlator = EventCorrelator()
    for _ in range(100):
        correlator.take("noisy", KEY, "pod", 0.0)
    assert correlator.take("quiet", ("quiet", "x"), "other", 0.0) is not None


def test_its_memory_is_bounded():
    correlator = EventCorrelator()
    for number in range(10_000):
        correlator.take(f"uid-{number}", (number,), "pod", 0.0)
    first = correlator.take("uid-0", (0,), "pod", 0.0)
    assert first is not None
    assert first.count == 1  # forgotten: a new Event, as after a restart
    assert len(correlator._series) <= 4096
    assert len(correlator._budgets) <= 4096
