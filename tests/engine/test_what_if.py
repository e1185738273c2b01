"""Counterfactuals: every one is what the table says, and none is a wish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.model import Verdict
from remediator.engine.plane_values import PlaneValues
from remediator.engine.verdicts import PLANES, TABLE, decide
from remediator.engine.what_if import SAYS, changed, possible, what_if

DOMAIN = {
    plane: sorted({"unknown", *SAYS[plane], *("quiet",) * (plane == "lease")} - {"own"})
    for plane in PLANES
}
VALUES = st.builds(
    PlaneValues, **{plane: st.sampled_from(DOMAIN[plane]) for plane in PLANES if plane != "own"},
    own=st.sampled_from(("fine", "suspended")),
)  # fmt: skip
ALL = frozenset(PLANES)

HEALTHY = PlaneValues(lease="up", handler="up", kubelet="up", network="up", power="on")
SILENT = PlaneValues(lease="silent", kubelet="up")


def words(values, speaking=ALL, verdict=None):
    return [
        f"{' and '.join(each.changes)} -> {each.verdict}"
        for each in what_if(values, speaking)
        if verdict in (None, each.verdict)
    ]


def test_every_value_of_the_table_can_be_tried():
    # No evidence to wait for: see SAYS. "Refuted" is the lease's word on the network.
    not_tried = {"lease": {"quiet", "unknown"}, "network": {"refuted"}}
    for row in TABLE:
        for plane, allowed in row.needs:
            assert allowed <= set(SAYS[plane]) | not_tried.get(plane, set()), (row.name, plane)


def test_of_a_healthy_node_one_silence_makes_a_suspect_and_two_planes_convict():
    found = words(HEALTHY, {"lease", "power", "network"})
    assert "lease silent -> Suspect" in found
    assert "power off -> Contradiction" in found
    assert "lease silent and power off -> Dead" in found
    assert "lease silent and network down -> Unreachable" in found
    assert not [line for line in words(HEALTHY, ALL, Verdict.DEAD) if " and " not in line]


def test_of_a_silent_node_each_second_witness_is_named():
    found = words(SILENT, {"lease", "power", "network", "handler"})
    assert "power off -> Dead" in found
    assert "network down -> Unreachable" in found
    assert "handler silent -> Unreachable" in found
    assert "lease up -> Healthy" in found
    assert "lease lost and network up -> KubeletDown" in found


def test_what_was_heard_before_the_silence_does_not_outlive_it():
    values = PlaneValues(lease="up", handler="up", storage="up", network="up")
    fallen = changed(values, {"lease": "silent"})
    assert (fallen.handler, fallen.storage, fallen.network) == ("unknown", "unknown", "up")
    heard = changed(values, {"lease": "silent", "handler": "up"})
    assert (heard.handler, heard.storage) == ("up", "unknown")
    silent = PlaneValues(lease="silent", handler="up")
    assert changed(silent, {"lease": "lost"}).handler == "up", "it beats though the lease does not"


def test_a_plane_that_nothing_speaks_on_is_never_named():
    for line in words(SILENT, {"lease", "kubelet"}):
        assert not any(plane in line for plane in ("power", "network", "handler", "storage"))


def test_a_pod_that_is_down_is_no_evidence_once_the_lease_is_silent():
    assert not possible(PlaneValues(lease="silent", handler="down"))
    assert possible(PlaneValues(lease="quiet", handler="down"))
    assert not [line for line in words(SILENT) if line.startswith("handler down ->")]


def test_our_own_trouble_is_said_in_words():
    troubled = PlaneValues(lease="silent", power="off", own="suspended")
    assert "our own trouble over -> Dead" in words(troubled)


@given(VALUES, st.sets(st.sampled_from(PLANES)))
def test_each_is_what_the_table_says_of_the_evidence_it_names(values, speaking):
    now = decide(values).verdict
    for each in what_if(values, speaking):
        assert each.verdict is not now
        assert 1 <= len(each.changes) <= 2
        assert _some_change_leads_to(values, speaking, each)


def _some_change_leads_to(values, speaking, each):
    """Whether changing as many planes as it names, among those that speak, leads to its row."""
    planes = [plane for plane in PLANES if plane in speaking]
    changes = [(plane, value) for plane in planes for value in SAYS[plane]]
    if len(each.changes) == 1:
        return any(
            decide(changed(values, {plane: value})).name == each.row for plane, value in changes
        )
    return any(
        decide(changed(values, dict((one, other)))).name == each.row
        for one in changes
        for other in changes
        if one[0] != other[0]
    )


@given(VALUES)
def test_a_verdict_that_one_plane_leads_to_is_not_told_again_with_two(values):
    found = what_if(values, ALL)
    single = {each.verdict for each in found if len(each.changes) == 1}
    double = {each.verdict for each in found if len(each.changes) == 2}
    assert not single & double


@given(VALUES)
def test_whatever_one_plane_alone_can_change_is_told(values):
    told = {each.verdict for each in what_if(values, ALL)}
    for plane in PLANES:
        for value in SAYS[plane]:
            other = changed(values, {plane: value})
            if possible(other):
                assert decide(other).verdict in told | {decide(values).verdict}


@pytest.mark.parametrize("verdict", [Verdict.DEAD, Verdict.UNREACHABLE, Verdict.HEALTHY])
def test_the_nearest_ways_stand_first(verdict):
    found = what_if(SILENT, ALL)
    assert [len(each.changes) for each in found] == sorted(len(each.changes) for each in found)
    assert verdict in {each.verdict for each in found}
