"""Guards in two halves: the second answers the same to what the first has seen, whenever asked."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine import chain, guard_answers
from remediator.engine.chain import DecisionKind, GuardRow
from remediator.engine.guard_answers import Answer, answers, ask, grant, wait
from remediator.engine.model import Record, RunStrategy, Verdict
from remediator.engine.reevaluate import differences, reevaluate


class Counted(Record, frozen=True, kw_only=True):
    names: tuple[str, ...]
    limit: int


@pytest.fixture
def counting():
    @answers("test-counting", Counted)
    def count(saw: Counted) -> Answer:
        many = len(saw.names) > saw.limit
        return wait(", ".join(saw.names), 7.0) if many else grant("few")

    yield count
    del guard_answers._rules["test-counting"]


@pytest.mark.usefixtures("counting")
def test_an_answer_keeps_what_it_was_made_from_and_is_made_again_from_it():
    row = ask("test-counting", Counted(names=("a", "b"), limit=1))
    assert (row.answer, row.why, row.until) == ("wait", "a, b", 7.0)
    read = msgspec.json.decode(msgspec.json.encode(row), type=GuardRow)
    assert read == row
    assert guard_answers.again(read) == row


@pytest.mark.usefixtures("counting")
def test_the_answer_to_something_else_is_another():
    row = ask("test-counting", Counted(names=("a", "b"), limit=1))
    other = msgspec.structs.replace(row, saw={"names": ["a"], "limit": 1})
    assert guard_answers.again(other).answer == "grant"


@pytest.mark.usefixtures("counting")
def test_what_does_not_fit_the_guard_of_today_is_an_error():
    row = ask("test-counting", Counted(names=(), limit=1))
    with pytest.raises(msgspec.ValidationError, match="limit"):
        guard_answers.again(msgspec.structs.replace(row, saw={"names": []}))


@pytest.mark.parametrize("row", [
    GuardRow(guard="gone", answer="grant", why="", saw={"x": 1}),
    GuardRow(guard="mode", answer="grant", why="written before guards kept what they saw"),
])  # fmt: skip
def test_what_cannot_be_told_is_said_to_be_so(row):
    assert guard_answers.again(row) is None


def test_two_guards_cannot_have_one_name(counting):
    with pytest.raises(ValueError, match="two guards are named 'test-counting'"):
        answers("test-counting", Counted)(counting)


@pytest.mark.usefixtures("counting")
def test_an_answer_that_a_person_has_lifted_is_lifted_again():
    row = ask("test-counting", Counted(names=("a", "b"), limit=1))
    lifted = guard_answers.lift(row, "ann")
    assert lifted.answer == "grant"
    assert guard_answers.again(lifted) == lifted


def test_a_refusal_made_again_is_the_same_and_a_forged_one_is_not(make_cluster):
    cluster = make_cluster(enforce=False)
    cluster.add_vm("db", "n1", RunStrategy.MANUAL)
    cluster.lose("n1")
    cluster.run(5.0)
    refused = next(one for one in cluster.decisions if one.kind is DecisionKind.REFUSED)
    policies = cluster.engine_options["policies"]
    read = chain.decode(chain.encode(refused))
    again = reevaluate(read, policies)
    assert again.untold == ()
    assert again.match.policy.name == "node-lost"
    assert again.judged.verdict is Verdict.DEAD
    assert differences(read, again) == ()
    granted = [msgspec.structs.replace(row, answer="grant") for row in read.guards]
    forged = msgspec.structs.replace(read, guards=tuple(granted))
    (apart,) = differences(forged, reevaluate(forged, policies))
    assert apart.startswith("guard mode: grant (observe mode: would cordon")
