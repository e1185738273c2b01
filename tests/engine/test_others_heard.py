"""What cuts a rack off is noticed of one node first: the others are heard before it is powered off.

In the rack are n1, n5 and n9, which beat at seconds 0, 4 and 8 of every ten.
"""

from __future__ import annotations

import pytest

from remediator.engine.chain import DecisionKind
from remediator.engine.events import SignalSeen, Tick
from remediator.engine.model import (
    Plane,
    Reading,
    Signal,
    Subject,
    Verdict,
    node_subject,
    vantage_subject,
)

PROBER = "vantage-z"


class Prober:
    """One vantage point; nobody hears it say anything but what a test lets it."""

    def __init__(self, cluster) -> None:
        self._cluster = cluster

    def say(self, subject: Subject, reading: Reading) -> None:
        signal = Signal(
            plane=Plane.NETWORK,
            source=PROBER,
            subject=subject,
            reading=reading,
            at=self._cluster.now,
            zone="zone-z",
        )
        self._cluster.handle(SignalSeen(signal=signal))

    def sees(self, **readings: Reading) -> None:
        self.say(vantage_subject(PROBER), Reading.UP)
        for node, reading in readings.items():
            self.say(node_subject(node), reading)


RACK = ("n1", "n5", "n9")


@pytest.fixture
def rack(make_cluster):
    """Three nodes in one zone, and nine others; n1's renewal is the first that will be missed."""
    cluster = make_cluster(nodes=12, zones=4)
    cluster.add_vm("db", "n1")
    cluster.until(lambda: round(cluster.now) % 10 == 9)
    return cluster


def convict_n1(cluster, prober: Prober) -> None:
    for _ in range(20):
        prober.sees(n1=Reading.DOWN)
        cluster.run(1)
        incident = cluster.incident("n1")
        if incident is not None and incident.verdict is Verdict.UNREACHABLE:
            return
    raise AssertionError("n1 was not called Unreachable")


def test_a_node_that_may_live_is_not_fenced_before_its_neighbours_were_heard(rack):
    rack.silent.update(RACK)
    prober = Prober(rack)
    convict_n1(rack, prober)
    assert rack.actions == []
    (held,) = rack.kinds(DecisionKind.REFUSED)
    assert "others-heard: 2 of 3 nodes of zone-0 were not heard since it fell silent" in held.why
    for _ in range(60):  # their renewals are missed, too: the shares say no from now on
        prober.sees(n1=Reading.DOWN)
        rack.run(1)
    assert rack.actions == []
    assert "zone-share" in rack.kinds(DecisionKind.REFUSED)[-1].why


def test_it_is_fenced_as_soon_as_enough_neighbours_have_renewed(rack):
    rack.silent.add("n1")
    prober = Prober(rack)
    convict_n1(rack, prober)
    for _ in range(10):
        if rack.actions:
            break
        prober.sees(n1=Reading.DOWN)
        rack.run(1)
    (cordon,) = rack.actions
    assert cordon.subject == node_subject("n1")


def test_the_others_are_probed_and_an_answer_of_theirs_is_enough(rack):
    rack.silent.update(RACK)  # nothing but probes can tell of them
    prober = Prober(rack)
    convict_n1(rack, prober)
    assert {"n5", "n9"} <= set(rack.asked_probes)
    answers = {node: Reading.UP for node in rack.asked_probes if node != "n1"}
    prober.sees(n1=Reading.DOWN, **answers)
    rack.handle(Tick())
    assert [action.subject for action in rack.actions] == [node_subject("n1")]


def test_a_host_whose_power_is_off_waits_for_nobody(rack):
    rack.silent.update(RACK)
    rack.until(lambda: "n1" in rack.asked_power)
    rack.power("n1", Reading.DOWN)
    assert [action.subject for action in rack.actions] == [node_subject("n1")]


def test_the_hold_is_no_call_for_help(rack):
    rack.silent.add("n1")
    before = list(rack.notices)
    convict_n1(rack, Prober(rack))
    assert rack.notices == before
