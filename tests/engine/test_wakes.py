"""When the engine asks to be called again: never for a time that is over, or it would not rest."""

from __future__ import annotations

import pytest
from test_pacing import Lost, paced

from remediator.engine import placement, restart_marks
from remediator.engine.effects import WakeAt
from remediator.engine.events import Tick
from remediator.engine.model import Verdict, vm_subject
from remediator.engine.rules import MatchInput, Policy, SubjectKind, first_match
from remediator.engine.start_scopes import Scopes
from remediator.engine.start_words import Bound, Candidate, Limits, Origin, Started


@pytest.fixture
def nobody_fits(monkeypatch):
    def fits(_context, candidates):
        return {
            each.vm: placement.Unplaced(vm=each.vm, why="no room anywhere") for each in candidates
        }

    monkeypatch.setattr(placement, "fits", fits)


def wakes(cluster) -> list[float]:
    effects = cluster.engine.handle(Tick(), cluster.now)
    return [each.at for each in effects if isinstance(each, WakeAt)]


@pytest.mark.usefixtures("nobody_fits")
def test_a_gate_that_only_its_own_tier_waits_at_wakes_nobody_once_its_time_is_up(make_cluster):
    lost = Lost(
        make_cluster, {"db": {"priority": "highest"}}, settings=paced(5, gate_timeout_s=60.0)
    )
    lost.lose()
    lost.cluster.run(120)
    assert lost.cluster.engine.context.pace.shut_since, "it waits at the gate"
    assert [at for at in wakes(lost.cluster) if at <= lost.cluster.now] == []


def _unlucky_times(window_s: float) -> list[tuple[float, float]]:
    """Return (then, now) of which rounding says both: within the window, and out of it."""
    found = []
    for number in range(1, 20_000):
        then = number * 0.1 + 0.003 * (number % 7)
        now = then + window_s
        if then > now - window_s:
            found.append((then, now))
    return found


def test_a_minute_that_is_over_bounds_no_start():
    unlucky = _unlucky_times(60.0)
    assert unlucky
    limits = Limits(cluster=Bound(per_minute=1))
    for then, now in unlucky[:50]:
        before = Started(vm=vm_subject("ns", "a"), started_at=then, booting=False, ready=True)
        scopes = Scopes(limits, None, [before], None, now)
        candidate = Candidate(vm=vm_subject("ns", "b"), origin=Origin.GATE, since_at=then)
        assert scopes.take(candidate, "", "") is None


def test_a_policy_matches_at_the_moment_that_it_is_said_to():
    policy = Policy(
        name="patient",
        source="test",
        content_hash="0" * 64,
        verdicts=(Verdict.DEAD,),
        steps=("hold",),
        for_s=0.7,
    )
    for then, now in _unlucky_waits(0.7):
        given = MatchInput(kind=SubjectKind.NODE, name="n1", verdict=Verdict.DEAD, since_at=then)
        early = first_match([policy], given, then)
        assert early.due_at == now
        assert first_match([policy], given, now).policy is policy


def _unlucky_waits(wait_s: float) -> list[tuple[float, float]]:
    """Return (since, due) of which rounding says that the wait is over, and that it is not."""
    found = [(number * 0.1, number * 0.1 + wait_s) for number in range(1, 2000)]
    unlucky = [(since, due) for since, due in found if due - since < wait_s]
    assert unlucky
    return unlucky[:50]


def test_a_vm_that_is_ready_as_soon_as_it_runs_is_not_asked_about_without_end(make_cluster):
    lost = Lost(make_cluster, {"db": {"ready": "0s"}})
    context = lost.cluster.engine.context
    context.effects = []
    assert not restart_marks.is_ready(context, vm_subject("ns", "db"), 0.0)
    assert all(each.at > context.now for each in context.effects if isinstance(each, WakeAt))
