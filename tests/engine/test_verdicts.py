"""The verdict table, over every combination of what the planes can say."""

from __future__ import annotations

import itertools

from remediator.engine.evidence import PlaneValues
from remediator.engine.model import Verdict
from remediator.engine.verdicts import ROWS, TABLE, decide

LEASE = ("up", "quiet", "silent", "unknown")
NETWORK = ("up", "down", "unknown")
HANDLER = ("up", "silent", "unknown")
STORAGE = ("up", "down", "unknown")
POWER = ("on", "off", "gone", "unknown")
KUBELET = ("up", "down", "unknown")
ALL = list(itertools.product(LEASE, NETWORK, HANDLER, STORAGE, POWER, KUBELET))

# The verdicts for which policies may fence.
CONVICTING = {Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED}


def values(lease, network, handler, storage, power, kubelet) -> PlaneValues:
    made = PlaneValues(lease=lease, handler=handler, power=power, kubelet=kubelet)
    made.network, made.storage = network, storage
    return made


# These are of VMs; the table is of nodes.
OF_VMS = {
    Verdict.GUEST_SILENT,
    Verdict.CRASHED,
    Verdict.STUCK,
    Verdict.PAUSED,
    Verdict.UNPLACEABLE,
}


def test_every_combination_has_a_verdict():
    assert {decide(values(*each)).verdict for each in ALL} == set(Verdict) - OF_VMS


def test_every_row_can_decide():
    found = {decide(values(*each)).name for each in ALL}
    assert found == set(ROWS)


def test_row_names_are_unique():
    assert len(ROWS) == len(TABLE)


def test_no_node_is_convicted_while_its_lease_is_renewed_or_on_that_plane_alone():
    for each in ALL:
        lease, network, handler, _storage, power, _kubelet = each
        if decide(values(*each)).verdict in CONVICTING:
            assert lease == "silent", each
            assert power in ("off", "gone") or network == "down" or handler == "silent", each


def test_a_node_that_answers_in_any_way_is_never_dead_unless_its_power_is_off():
    for each in ALL:
        _lease, network, handler, _storage, power, _kubelet = each
        if power not in ("off", "gone") and (network == "up" or handler == "up"):
            verdict = decide(values(*each)).verdict
            assert verdict not in (Verdict.DEAD, Verdict.UNREACHABLE), each
