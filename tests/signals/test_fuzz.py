"""Criterion 5 of the issue: garbage never changes a verdict, never crashes, and is counted."""

from __future__ import annotations

import pytest
from garbage import Garbage
from hypothesis import given, settings
from hypothesis import strategies as st
from signal_door import NOW, ORIGIN, Door, document
from twins import END_S, FUZZ_FROM_S, STEP_S, Town, Twin

from remediator.signals.dead_letters import LETTERS_AT_ONCE, LETTERS_PER_S

MESSAGES = 102_400
STEPS = round((END_S - FUZZ_FROM_S) / STEP_S)
PER_STEP = MESSAGES // STEPS


@pytest.mark.parametrize("seed", ["one"])
def test_a_hundred_thousand_pieces_of_garbage_change_no_verdict_and_are_all_accounted_for(seed):
    town = Town()
    garbage = Garbage(seed, town)
    calm, troubled = Twin(), Twin()
    opening = list(town.opening(calm.now))
    calm.step(opening)
    troubled.step(opening)
    drawn, fuzzed_from = 0, 0
    while town.passed_s < END_S:
        for twin in (calm, troubled):
            twin.door.clock.at += STEP_S
        messages = list(town.step(calm.now))
        for message in messages:
            garbage.overhear(message)
        calm.step(messages)
        troubled.step(messages)
        if town.passed_s > FUZZ_FROM_S:
            fuzzed_from = fuzzed_from or len(troubled.story)
            for _ in range(PER_STEP):
                troubled.take(*garbage.draw())
                drawn += 1
            assert troubled.verdicts() == calm.verdicts()
            assert troubled.story == calm.story
    assert drawn >= 100_000
    assert len(set(calm.verdicts().values())) >= 7, "the town shows too little"
    assert [row for row in calm.story[fuzzed_from:] if row[1] == "planned"], "nobody died meanwhile"
    _is_accounted_for(troubled)


def _is_accounted_for(twin: Twin) -> None:
    intake, letters = twin.door.intake, twin.door.dead_letters
    refused = intake.refused.total()
    assert intake.accepted + intake.duplicates + refused == twin.sent
    assert refused > 50_000
    assert intake.duplicates > 10_000
    assert set(intake.odd_times) == {"future", "past", "jump", "out-of-order"}
    assert len(intake.refused) >= 14, intake.refused
    assert letters.buried + letters.dropped == refused
    assert letters.buried == len(twin.door.office.buried)
    seconds = END_S - FUZZ_FROM_S
    assert letters.buried <= LETTERS_AT_ONCE + LETTERS_PER_S * seconds + 1
    for reason, count in intake.refused.items():
        name = "remediator_signals_refused_total"
        assert twin.door.metric(name, reason=reason.value) == count


# --- any bytes, any document ----------------------------------------------------------------------

SUBJECTS = st.sampled_from(
    [
        "remediator.signal.machine.node.n1",
        "remediator.signal.lease.node.n1",
        "remediator.heartbeat.network.node.n1.zone-a-0",
        "remediator.heartbeat.progress.watch.leases",
        "remediator.inventory.Node._.n1",
        "remediator.inventory.synced.Node",
    ]
) | st.builds(
    "remediator.{}.{}".format, st.sampled_from(["signal", "heartbeat", "inventory"]), st.text()
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from([*document(), "aspect", "zone", "detail", "first", "by", "unknown"])
changed = st.builds(
    lambda changes: document(**changes), st.dictionaries(FIELDS, json_values, max_size=3)
)


@settings(max_examples=2000, deadline=None)
@given(SUBJECTS, st.binary(max_size=400) | changed | json_values)
def test_whatever_is_sent_is_taken_repeated_or_refused_and_nothing_else(subject, sent):
    door = Door(origin=ORIGIN)
    for _ in range(2):
        door.take(sent, subject)
    intake = door.intake
    assert intake.accepted + intake.duplicates + intake.refused.total() == 2
    assert intake.accepted <= 1
    assert len(door.office.buried) == intake.refused.total()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(min_value=0, max_value=1e11, exclude_max=True), max_size=30))
def test_any_series_of_times_of_a_source_is_let_in_and_counted(times):
    door = Door()
    taken = [door.take(document(at=at)) for at in times]
    assert sum(event is not None for event in taken) == len(set(times))
    assert door.intake.duplicates == len(times) - len(set(times))
    far = [at for at in set(times) if abs(at - NOW) > 60]
    assert sum(door.intake.odd_times[kind] for kind in ("future", "past")) == len(far)
