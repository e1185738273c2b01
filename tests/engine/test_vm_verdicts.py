"""The VM table, over every combination of what its facets can be."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from remediator.engine.model import Verdict
from remediator.engine.vm_verdicts import FACETS, ROWS, TABLE, WELL, VmValues, fitting, would_change

OF_VMS = {
    Verdict.GUEST_SILENT,
    Verdict.CRASHED,
    Verdict.STUCK,
    Verdict.PAUSED,
    Verdict.UNPLACEABLE,
}


def each_vm():
    """Every combination, one of 302,400."""
    for combination in itertools.product(*FACETS.values()):
        yield VmValues(**dict(zip(FACETS, combination, strict=True)))


@pytest.fixture(scope="module")
def decided() -> list[tuple[VmValues, str]]:
    """Every combination for which some row fits, and the first that does."""
    rows = [(row.name, tuple(row.when.items())) for row in TABLE]
    found = []
    for values in each_vm():
        for name, when in rows:
            if all(getattr(values, facet) in allowed for facet, allowed in when):
                found.append((values, name))
                break
    return found


def test_a_vm_of_which_all_is_well_fits_no_row():
    assert fitting(WELL) == ()
    assert fitting(msgspec.structs.replace(WELL, agent="unknown", probes="unknown")) == ()


def test_every_row_can_decide_and_all_verdicts_of_vms_are_reached(decided):
    names = {name for _, name in decided}
    assert names == set(ROWS)
    assert {ROWS[name].verdict for name in names} == OF_VMS


def test_row_names_are_unique_and_facets_are_known():
    assert len(ROWS) == len(TABLE)
    for row in TABLE:
        for facet, allowed in row.when.items():
            assert allowed <= set(FACETS[facet]), (row.name, facet)
            assert allowed < set(FACETS[facet]), f"{row.name}: {facet} does not matter: drop it"


def test_every_value_of_every_facet_has_a_default_that_is_well():
    assert set(FACETS) == set(VmValues.__struct_fields__)
    for facet, values in FACETS.items():
        assert getattr(WELL, facet) in values


def test_while_a_vm_migrates_only_the_migration_itself_is_judged(decided):
    for values, name in decided:
        if values.migration not in ("none", "queued"):
            assert name.startswith("migration-"), values


def test_a_vm_that_nobody_wants_is_judged_only_for_not_ending(decided):
    for values, name in decided:
        if values.wanted == "no":
            assert name == "terminating" or name.startswith("migration-"), values


def test_no_guest_is_silent_unless_it_runs_unpaused_and_something_says_so(decided):
    for values, name in decided:
        if ROWS[name].verdict is Verdict.GUEST_SILENT:
            assert (values.phase, values.paused) == ("running", "no"), values
            assert values.agent == "lost" or values.probes == "failing", values


def test_a_pause_that_was_asked_for_is_never_a_verdict(decided):
    for values, name in decided:
        if values.paused == "asked":
            assert ROWS[name].verdict not in (Verdict.PAUSED, Verdict.GUEST_SILENT), values


def test_a_vm_that_waits_with_good_reason_is_not_stuck(decided):
    late = {"start-late", "not-made", "cannot-start"}
    for values, name in decided:
        if values.start == "patient":
            assert name not in late, values


def test_each_row_says_how_long_and_why():
    for row in TABLE:
        assert row.after_s >= 0, row.name
        assert row.hold_s >= 0, row.name
        assert row.source, row.name
        assert row.verdict in OF_VMS, row.name


def test_a_suspicion_comes_within_a_minute_of_a_guest_that_stands_still():
    assert ROWS["io-error"].after_s + ROWS["io-error"].hold_s <= 60


@pytest.fixture(scope="module")
def examples(decided) -> dict[str, VmValues]:
    """For each row a VM whose verdict it decides, and one that is well."""
    return {"": WELL} | {name: values for values, name in reversed(decided)}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_would_change_a_verdict_does(name, examples):
    row = ROWS[name]
    values = examples[name]
    said = would_change(values, name)
    for facet in row.when:
        loses = [one for one in said if one.endswith(f"no longer {name}")]
        (sentence,) = [one for one in loses if one.startswith(f"{facet} ")]
        for value in sentence.removeprefix(f"{facet} ").split(":")[0].split(" or "):
            changed = msgspec.structs.replace(values, **{facet: value})
            assert row not in fitting(changed), sentence


@pytest.mark.parametrize("name", ["", *sorted(ROWS)])
def test_what_would_lead_to_another_row_does(name, examples):
    values = examples[name]
    for sentence in would_change(values, name):
        if "no longer" in sentence:
            continue
        cause, _, effect = sentence.partition(": ")
        facet, _, wanted = cause.partition(" ")
        for value in wanted.split(" or "):
            changed = msgspec.structs.replace(values, **{facet: value})
            rows = {row.name: str(row.verdict) for row in fitting(changed)}
            verdict, _, row_name = effect.partition(" ")
            assert rows[row_name.strip("()")] == verdict, sentence
