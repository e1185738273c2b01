"""Sources whose clocks are wrong, jump or run backward: counted, and no verdict is another."""

from __future__ import annotations

import pytest
from twins import END_S, LATE_LOSS, STEP_S, VANTAGES, Town, Twin

JUMP_AT_S = 424.0  # LATE_LOSS is looked at next at 425.5


def verdict_at(twin: Twin, node: str, verdict: str) -> float:
    return next(at for at, _, about, said, _ in twin.story if (about, said) == (node, verdict))


def verdict_times(twin: Twin) -> dict[tuple[str, str], float]:
    return {(about, said): at for at, _, about, said, _ in twin.story if said}


def run(clocks) -> Twin:
    """Let a town run through, its vantage points' clocks set at each step by ``clocks``."""
    town, twin = Town(), Twin()
    twin.step(list(town.opening(twin.now)))
    while town.passed_s < END_S:
        twin.door.clock.at += STEP_S
        for vantage in VANTAGES:
            town.ahead_s[vantage] = clocks(town.passed_s)
        twin.step(list(town.step(twin.now)))
    return twin


@pytest.fixture(scope="module")
def calm() -> Twin:
    return run(lambda _passed_s: 0.0)


@pytest.mark.parametrize("ahead_s", [-1e9, -86_400.0, -600.0, 600.0, 86_400.0, 1e9])
def test_clocks_that_are_wrong_all_the_time_change_nothing(calm, ahead_s):
    skewed = run(lambda _passed_s: ahead_s)
    assert skewed.story == calm.story
    oddity = "future" if ahead_s > 0 else "past"
    assert skewed.door.intake.odd_times.keys() == {oddity}
    assert skewed.door.intake.refused.total() == 0


@pytest.mark.parametrize("jump_s", [-86_400.0, -600.0, -90.0, 90.0, 600.0, 86_400.0])
def test_a_clock_that_jumps_just_before_a_host_dies_changes_nothing(calm, jump_s):
    jumped = run(lambda passed_s: jump_s if passed_s >= JUMP_AT_S else 0.0)
    assert jumped.story == calm.story
    assert jumped.door.intake.odd_times["jump"] == len(VANTAGES)
    assert jumped.door.metric("remediator_signals_odd_time_total", oddity="jump") == len(VANTAGES)


@pytest.mark.parametrize("jump_s", [-90.0, -600.0])
def test_a_clock_that_runs_ahead_until_just_before_changes_nothing(calm, jump_s):
    corrected = run(lambda passed_s: -jump_s if passed_s < JUMP_AT_S else 0.0)
    assert corrected.story == calm.story


def test_a_small_step_back_costs_one_look_at_most(calm):
    """Within a minute, a step back cannot be told from messages that overtook each other."""
    stepped = run(lambda passed_s: 0.0 if passed_s >= JUMP_AT_S else 30.0)
    expected_at = verdict_at(calm, f"node/{LATE_LOSS}", "Dead")
    assert verdict_at(stepped, f"node/{LATE_LOSS}", "Dead") <= expected_at + 10.0
    assert stepped.verdicts() == calm.verdicts()
    assert stepped.door.intake.odd_times["out-of-order"] > 0


def test_messages_that_arrive_in_another_order_change_no_verdict(calm):
    town, twin = Town(), Twin()
    twin.step(list(town.opening(twin.now)))
    while town.passed_s < END_S:
        twin.door.clock.at += STEP_S
        *signals, leases, nodes = town.step(twin.now)  # marks never overtake what they vouch for
        twin.step([*reversed(signals), leases, nodes])
    told, expected = verdict_times(twin), verdict_times(calm)
    assert told.keys() == expected.keys()
    assert all(abs(told[row] - expected[row]) <= STEP_S for row in told)
