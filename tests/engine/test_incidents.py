"""The life cycle table."""

from __future__ import annotations

import itertools

import pytest

from remediator.engine.incidents import TRANSITIONS, InvariantError, Trigger, next_state
from remediator.engine.model import IncidentState

BEFORE_PROOF = {
    IncidentState.SUSPECTED,
    IncidentState.CONFIRMED,
    IncidentState.HELD,
    IncidentState.ESCALATED,
}


def reachable(start: IncidentState) -> set[IncidentState]:
    found = {start}
    while True:
        more = {to for (state, _), to in TRANSITIONS.items() if state in found} - found
        if not more:
            return found
        found |= more


def test_every_state_can_be_reached():
    assert reachable(IncidentState.WATCHING) == set(IncidentState)


@pytest.mark.parametrize("state", sorted(set(IncidentState) - {IncidentState.RESOLVED}))
def test_every_state_can_end_in_resolved(state):
    assert IncidentState.RESOLVED in reachable(state)


def test_resolved_is_the_end():
    assert not [key for key in TRANSITIONS if key[0] is IncidentState.RESOLVED]


@pytest.mark.parametrize("state", sorted(BEFORE_PROOF - {IncidentState.HELD}))
def test_every_state_before_fencing_can_be_held(state):
    assert TRANSITIONS[state, Trigger.WITHHELD] is IncidentState.HELD


def test_only_a_proof_leads_to_fenced_and_only_fenced_to_recovering():
    to_fenced = {key for key, to in TRANSITIONS.items() if to is IncidentState.FENCED}
    to_recovering = {key for key, to in TRANSITIONS.items() if to is IncidentState.RECOVERING}
    assert {trigger for _, trigger in to_fenced} == {Trigger.PROVED}
    assert to_recovering == {(IncidentState.FENCED, Trigger.RELEASED)}


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(IncidentState, Trigger)))
def test_what_is_not_in_the_table_is_a_bug(state, trigger):
    if (state, trigger) not in TRANSITIONS:
        with pytest.raises(InvariantError, match=f"{state} cannot be {trigger}"):
            next_state(state, trigger)
