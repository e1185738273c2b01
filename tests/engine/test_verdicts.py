"""The verdict table, over every combination of what the planes can say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec
import pytest

from remediator.engine.model import Verdict
from remediator.engine.plane_values import SILENT, PlaneValues
from remediator.engine.verdicts import LIVING, PLANES, ROWS, TABLE, Row, decide

DOMAIN = {
    "lease": ("up", "quiet", "silent", "lost", "unknown"),
    "network": ("up", "down", "refuted", "unknown"),
    "handler": ("up", "silent", "down", "unknown"),
    "storage": ("up", "down", "unknown"),
    "power": ("on", "off", "unknown"),
    "kubelet": ("up", "down", "unknown"),
    "machine": ("up", "down", "gone", "unknown"),
    "conditions": ("fine", "bad", "unknown"),
    "own": ("fine", "suspended"),
}
DECIDED: list[tuple[PlaneValues, Row]] = [
    (values, decide(values))
    for values in (
        PlaneValues(**dict(zip(DOMAIN, each, strict=True)))
        for each in itertools.product(*DOMAIN.values())
    )
]

# The verdicts for which policies may fence.
CONVICTING = {Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED}

# These are of VMs; the table is of nodes.
OF_VMS = {
    Verdict.GUEST_SILENT,
    Verdict.CRASHED,
    Verdict.STUCK,
    Verdict.PAUSED,
    Verdict.UNPLACEABLE,
}


def convicted() -> Iterator[PlaneValues]:
    return (values for values, row in DECIDED if row.verdict in CONVICTING)


def test_the_domain_names_every_plane():
    assert tuple(DOMAIN) == PLANES


def test_every_combination_has_a_verdict():
    # Maintenance is a person's wish, not what planes add up to.
    assert {row.verdict for _, row in DECIDED} == set(Verdict) - OF_VMS - {Verdict.MAINTENANCE}


def test_every_row_can_decide():
    assert {row.name for _, row in DECIDED} == set(ROWS)


def test_every_row_asks_for_values_that_its_planes_have():
    for row in TABLE:
        for plane, allowed in row.needs:
            assert allowed < set(DOMAIN[plane]), (row.name, plane)


def test_row_names_are_unique():
    assert len(ROWS) == len(TABLE)


def speaking_against(values: PlaneValues) -> set[str]:
    """The planes that say, each by a witness of its own, that the node is gone."""
    against = {
        "lease": values.lease in ("silent", "lost", "quiet"),
        "network": values.network == "down",
        "handler": values.handler == "silent",
        "power": values.power == "off",
        "machine": values.machine == "gone",
    }
    return {plane for plane, says in against.items() if says}


def test_no_node_is_convicted_on_one_plane_alone():
    for values in convicted():
        against = speaking_against(values)
        assert len(against) >= 2, values
        assert values.lease in SILENT or {"network", "power"} <= against, values


def test_no_node_is_convicted_by_planes_that_only_repeat_the_lease():
    """Conditions, the health of a Machine and the readiness of a pod all come of the lease."""
    for values in convicted():
        less = msgspec.structs.replace(
            values, kubelet="unknown", conditions="unknown", machine="unknown", storage="unknown"
        )
        if values.machine == "gone" or values.storage == "up":
            continue  # one is another's word; the other makes it Isolated
        assert decide(less).verdict in CONVICTING, values


def test_no_node_is_convicted_while_its_lease_is_renewed():
    assert all(values.lease not in ("up", "unknown") for values in convicted())


def test_no_node_that_answers_is_convicted_unless_its_power_is_off():
    for values in convicted():
        if values.power != "off":
            assert values.network != "up", values
            assert values.handler != "up", values


def test_nothing_is_convicted_while_our_own_trouble_suspends_it():
    assert all(values.own == "fine" for values in convicted())


def test_own_trouble_only_ever_takes_a_verdict_back():
    for values, row in DECIDED:
        if values.own == "suspended":
            calm = decide(msgspec.structs.replace(values, own="fine"))
            assert row.verdict is calm.verdict or row.verdict is Verdict.SUSPECT, values


def test_any_one_plane_that_is_in_doubt_makes_no_conviction_of_a_node_that_lives():
    """A plane that loses its voice never turns a living node into one to be fenced."""
    for values, row in DECIDED:
        if row.verdict not in LIVING or values.lease in SILENT:
            continue
        for plane in PLANES[:-1]:
            blind = decide(msgspec.structs.replace(values, **{plane: "unknown"}))
            assert blind.verdict not in CONVICTING, (values, plane)


def test_a_silent_lease_is_never_passed_over():
    for values, row in DECIDED:
        if values.lease in SILENT:
            assert row.verdict not in (Verdict.HEALTHY, Verdict.UNKNOWN, Verdict.DEGRADED), values


def test_a_lost_lease_convicts_no_more_than_a_silent_one():
    for values, row in DECIDED:
        if values.lease == "lost" and row.verdict in CONVICTING:
            silent = decide(msgspec.structs.replace(values, lease="silent"))
            assert silent.verdict is row.verdict, values


@pytest.mark.parametrize(
    ("row", "planes"),
    [
        ("own-trouble", {"lease": "silent", "power": "off", "own": "suspended"}),
        ("power-off", {"lease": "silent", "power": "off", "network": "up"}),
        ("instance-gone", {"lease": "silent", "machine": "gone"}),
        ("alive-but-off", {"lease": "up", "power": "off", "network": "down"}),
        ("off-and-unreachable", {"lease": "quiet", "network": "down", "power": "off"}),
        ("cut-off-but-writing", {"lease": "silent", "network": "down", "storage": "up"}),
        ("kubelet-only-network", {"lease": "lost", "network": "up", "machine": "gone"}),
        ("kubelet-only-handler", {"lease": "lost", "network": "down", "handler": "up"}),
        ("late-but-reached", {"lease": "silent", "network": "up", "machine": "gone"}),
        ("late-but-beating", {"lease": "silent", "network": "down", "handler": "up"}),
        ("unreachable-by-network", {"lease": "silent", "network": "down"}),
        ("unreachable-by-handler", {"lease": "silent", "handler": "silent"}),
        ("lease-silent", {"lease": "silent", "machine": "down", "kubelet": "down"}),
        ("off-at-first-sight", {"lease": "quiet", "power": "off"}),
        ("off-at-first-sight", {"lease": "unknown", "network": "down", "power": "off"}),
        ("network-silent", {"lease": "up", "network": "down", "handler": "silent"}),
        ("handler-silent", {"lease": "up", "handler": "silent"}),
        ("handler-not-ready", {"lease": "up", "handler": "down"}),
        ("not-ready", {"lease": "up", "kubelet": "down", "conditions": "bad"}),
        ("bad-condition", {"lease": "quiet", "conditions": "bad"}),
        ("not-yet-seen", {"network": "up", "handler": "silent"}),
        ("alive", {"lease": "up", "machine": "down", "storage": "down"}),
    ],
)
def test_what_the_rows_are_for(row, planes):
    assert decide(PlaneValues(**planes)).name == row
