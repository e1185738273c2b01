"""Silence of many nodes on one plane: who is due, whose beats count, whose clock may be wrong."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from remediator.engine.accrual import Tempo
from remediator.engine.silence import BeatPlane, ProvenTime

TEMPO = Tempo(10.6, 12.0, least_s=3.0)


def plane(*, learns: bool = True) -> BeatPlane:
    return BeatPlane(5.0, TEMPO, learns=learns)


def watch(leases: BeatPlane, start: float, seconds: int) -> list[str]:
    """Let the watch prove so many seconds; return who was found due."""
    due: list[str] = []
    for second in range(1, seconds + 1):
        leases.time.progress(start + second)
        due += leases.newly_due()
    return due


def renew(leases: BeatPlane, node: str, every_s: float, times: int) -> float:
    """Let a node beat so often while the watch hears; return when that ended."""
    now = 1000.0
    leases.time.progress(now)
    for _ in range(times):
        leases.beat(node, now, now, source="w")
        end = now + every_s
        while now < end:
            now = min(end, now + 1.0)
            leases.time.progress(now)
            leases.newly_due()
    return now


def test_a_node_that_renews_every_2_seconds_is_silent_after_4():
    leases = plane()
    now = renew(leases, "n1", 2.0, 20)
    leases.beat("n1", now, now, source="w")
    assert watch(leases, now, 3) == ["n1"], "overdue"
    assert not leases.silent("n1")
    watch(leases, now + 3, 1)
    assert leases.silent("n1")


def test_a_node_that_renews_every_30_seconds_is_not_silent_once_that_is_known():
    leases = plane()
    now = renew(leases, "n1", 30.0, 6)
    leases.beat("n1", now, now, source="w")
    watch(leases, now, 31)
    assert not leases.overdue("n1")
    watch(leases, now + 31, 6)
    assert leases.silent("n1")


def test_a_plane_that_does_not_learn_keeps_its_limits():
    handlers = plane(learns=False)
    renew(handlers, "n1", 2.0, 20)
    assert handlers.limits_s("n1") == (10.6, 12.0)
    assert handlers.rhythm_s("n1") is None


def test_suspicion_is_reported_before_anything_is_decided():
    leases = plane()
    now = renew(leases, "n1", 10.0, 10)
    leases.beat("n1", now, now, source="w")
    levels = []
    for second in range(1, 15):
        watch(leases, now + second - 1, 1)
        levels.append(round(leases.suspicion("n1"), 1))
    assert levels[8] == 0.0
    assert levels[9] < 1.0 < levels[10]
    assert levels[11] >= 8.0
    assert levels == sorted(levels)


def test_two_sources_of_beats_do_not_halve_the_rhythm():
    leases = plane()
    now = 1000.0
    leases.time.progress(now)
    for number in range(60):
        now += 5.0
        leases.time.progress(now)
        leases.beat("n1", now, now, source="here" if number % 2 else "there")
        leases.newly_due()
    assert leases.rhythm_s("n1") == 10.0


def test_when_the_source_of_the_rhythm_stops_the_other_one_s_is_taken():
    leases = plane()
    now = renew(leases, "n1", 10.0, 10)
    for _ in range(30):
        leases.beat("n1", now, now, source="another")
        now += 4.0
        leases.time.progress(now)
        leases.newly_due()
    assert leases.rhythm_s("n1") == 4.0


def test_a_deaf_stretch_is_no_interval():
    leases = plane()
    now = renew(leases, "n1", 10.0, 10)
    leases.time.progress(now + 40.0)
    leases.beat("n1", now + 41.0, now + 41.0, source="w")
    assert leases.rhythm_s("n1") == 10.0
    assert leases.silence_s("n1") == 0.0


def test_our_own_trouble_stretches_the_limit_but_calls_nobody_back_who_was_silent():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("early", 0.0, 0.0)
    watch(leases, 0.0, 5)
    leases.beat("late", 5.0, 5.0)
    watch(leases, 5.0, 8)
    assert leases.silent("early")
    leases.stretch = 4
    watch(leases, 13.0, 20)
    assert leases.silent("early"), "it was silent before we were in trouble"
    assert not leases.silent("late")
    leases.beat("early", 33.0, 33.0)
    watch(leases, 33.0, 15)
    assert not leases.silent("early"), "heard, and so stretched like any other"


def test_who_was_spared_by_the_stretch_is_due_within_a_second_of_its_end():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("n1", 0.0, 0.0)
    leases.stretch = 8
    watch(leases, 0.0, 60)
    leases.stretch = 1
    assert watch(leases, 60.0, 1) == ["n1"]
    assert leases.silent("n1")


def test_the_newest_message_delivered_again_is_no_new_life():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("n1", 1.0, 1.0, source="w")
    watch(leases, 1.0, 14)
    assert leases.beat("n1", 1.0, 15.0, source="w") is None
    assert leases.silent("n1")


def test_a_beat_that_was_only_found_is_bettered_by_the_same_one_seen_live():
    leases = plane()
    leases.beat("n1", 1.0, 1.0, source="w", first=True)
    assert leases.beat("n1", 1.0, 1.0, source="w") is True
    assert leases.beats["n1"].live


def test_a_message_that_was_overtaken_is_passed_over():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("n1", 20.0, 20.0, source="w")
    assert leases.beat("n1", 10.0, 20.1, source="w") is None


def test_a_source_whose_clock_was_set_back_is_heard_again():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("n1", 1000.0, 1000.0, source="w")
    assert leases.beat("n1", 400.0, 1000.5, source="w") is not None, "ten minutes: at once"
    assert leases.beat("n1", 380.0, 1010.5, source="w") is not None, "20 s: with the next renewal"


@given(st.integers(1, 10**12).map(lambda whole: whole + 0.5))
def test_a_beat_from_the_future_poisons_nothing(ahead_s):
    leases = plane()
    now = 1000.0
    leases.time.progress(now)
    leases.beat("n1", now + ahead_s, now, source="w")
    for _ in range(3):
        for _ in range(10):
            now += 1.0
            leases.time.progress(now)
            leases.newly_due()
        assert leases.beat("n1", now, now, source="w") is not None
    assert leases.beats["n1"].at == now
    watch(leases, now, 13)
    assert leases.silent("n1")


@given(st.floats(0.1, 1e12))
def test_progress_from_the_future_leaves_the_watch_deaf_for_a_few_seconds_at_most(ahead_s):
    time = ProvenTime(5.0)
    time.progress(1000.0)
    time.progress(1000.0 + ahead_s)
    for second in range(1, 8):
        time.progress(1000.0 + second)
    before_s = time.proven_s
    time.progress(1008.0)
    assert time.proven_s == before_s + 1.0


def test_a_node_that_was_forgotten_and_seen_again_has_one_place_in_the_queue():
    leases = plane()
    leases.time.progress(0.0)
    for _ in range(50):
        leases.beat("n1", 0.0, 0.0)
        leases.forget("n1")
    leases.beat("n1", 0.0, 0.0)
    assert watch(leases, 0.0, 11) == ["n1"]
    assert watch(leases, 11.0, 1) == ["n1"]


def test_many_sources_of_one_node_are_bounded():
    leases = plane()
    for number in range(1000):
        leases.beat("n1", float(number), float(number), source=f"s{number}")
    assert len(leases.beats["n1"].said) == 8


def test_a_node_that_was_silent_and_beat_once_is_told_as_soon_as_it_is_overdue_again():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("n1", 0.0, 0.0)
    assert watch(leases, 0.0, 13) == ["n1", "n1"]
    leases.beat("n1", 13.0, 13.0)
    assert watch(leases, 13.0, 11) == ["n1"]


def test_a_node_that_was_silent_when_the_watch_went_deaf_is_told_as_soon_as_it_is_overdue_again():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("n1", 0.0, 0.0)
    watch(leases, 0.0, 13)
    leases.time.progress(113.0)
    assert watch(leases, 113.0, 11) == ["n1"]


@given(st.floats(0.1, 4.9), st.floats(0.0, 1e6))
def test_whatever_the_sums_round_to_the_look_at_due_nodes_ends(step_s, start_s):
    leases = plane()
    leases.time.proven_s = start_s
    now = 0.0
    leases.time.progress(now)
    leases.beat("n1", now, now)
    told: list[str] = []
    while not leases.silent("n1"):
        now += step_s
        leases.time.progress(now)
        told += leases.newly_due()
        assert bool(told) == leases.overdue("n1")


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["beat a", "beat b", "beat c", "nobody", "forget b", "deaf"]),
            st.floats(0.1, 4.9),
            st.sampled_from([1, 1, 1, 2, 8]),
        ),
        max_size=150,
    )
)
def test_whoever_becomes_overdue_is_told_at_once_and_who_falls_silent_within_a_second(steps):
    """Against the plain truth: look at every node after every step."""
    leases = plane()
    now = 0.0
    leases.time.progress(now)
    known_overdue: set[str] = set()
    silent_for: dict[str, float] = {}
    for what, passed_s, stretch in steps:
        leases.stretch = stretch
        now += 100.0 if what == "deaf" else passed_s
        before_s = leases.time.proven_s
        leases.time.progress(now)
        proven_s = leases.time.proven_s - before_s
        if what.startswith("beat"):
            leases.beat(what[-1], now, now)
        elif what.startswith("forget"):
            leases.forget(what[-1])
        told = set(leases.newly_due())
        overdue = {node for node in "abc" if leases.overdue(node)}
        assert overdue - known_overdue <= told, what
        known_overdue = overdue
        for node in "abc":
            if not leases.silent(node):
                silent_for.pop(node, None)
            elif node in told:
                silent_for[node] = float("-inf")  # told: nothing is owed any more
            else:
                silent_for[node] = silent_for.get(node, -proven_s) + proven_s
                assert silent_for[node] <= 1.0, (node, what)
