"""The network plane: a quorum of zones convicts, one answer from anywhere acquits."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.model import Plane, Reading, Signal, node_subject, vantage_subject
from remediator.engine.network import FORGET_AFTER_S, VANTAGES_MAX, Network
from remediator.engine.settings import DetectionSettings

NOW = 1000.0
UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN


class Prober:
    """Vantage points that speak to one network plane."""

    def __init__(self, **settings: float) -> None:
        self.network = Network(DetectionSettings(**settings))
        self.now = NOW

    def lives(self, name: str, zone: str = "", reading: Reading = UP, at: float = 0.0) -> None:
        signal = Signal(
            plane=Plane.NETWORK,
            source=name,
            subject=vantage_subject(name),
            reading=reading,
            at=at or self.now,
            zone=zone,
        )
        self.network.life(signal, self.now)

    def says(
        self, name: str, reading: Reading, zone: str = "", node: str = "n1", at: float = 0.0
    ) -> bool:
        signal = Signal(
            plane=Plane.NETWORK,
            source=name,
            subject=node_subject(node),
            reading=reading,
            at=at or self.now,
            zone=zone,
            detail="tcp 10250: timeout" if reading is DOWN else "",
        )
        return self.network.sight(node, signal, self.now)

    @property
    def value(self) -> str:
        return self.network.value("n1", self.now)


def made(votes: dict[str, Reading | None]) -> Prober:
    """Fresh vantage points ``zone-number`` that say this; None: nothing yet."""
    prober = Prober()
    for name, reading in votes.items():
        prober.lives(name, name[0])
        if reading is not None:
            prober.says(name, reading, name[0])
    return prober


def test_without_a_vantage_point_nothing_is_known():
    assert Prober().value == "unknown"


def test_a_reading_of_a_vantage_point_that_shows_no_life_counts_for_nothing():
    prober = Prober()
    prober.says("a", DOWN, "zone-a")
    assert prober.value == "unknown"
    assert not prober.network.doubted("n1", prober.now)


def test_the_only_vantage_point_decides_alone():
    assert made({"a": DOWN}).value == "down"


def test_the_first_answer_convicts_nobody_while_others_have_not_spoken():
    prober = made({"a": DOWN, "b": None, "c": None})
    assert prober.value == "unknown"
    assert prober.network.doubted("n1", prober.now)
    prober.says("b", DOWN, "b")
    assert prober.value == "down", "two of three zones"


def test_half_of_the_zones_are_not_enough():
    assert made({"a": DOWN, "b": UNKNOWN}).value == "unknown"
    assert made({"a": DOWN, "b": DOWN, "c": UNKNOWN, "d": None}).value == "unknown"


def test_many_vantage_points_in_one_zone_do_not_outvote_the_others():
    votes = {"a1": DOWN, "a2": DOWN, "a3": DOWN, "a4": DOWN, "b1": None, "c1": None}
    assert made(votes).value == "unknown"


def test_half_of_a_zone_does_not_speak_for_it():
    assert made({"a1": DOWN, "a2": None}).value == "unknown"


def test_one_that_reaches_the_node_outweighs_all_that_do_not():
    assert made({"a": DOWN, "b": DOWN, "c": UP}).value == "up"


def test_the_quorum_asks_for_so_many_voices():
    prober = Prober(network_quorum=2)
    prober.lives("a", "a")
    prober.says("a", DOWN, "a")
    assert prober.value == "unknown"
    prober.lives("b", "b")
    prober.says("b", DOWN, "b")
    assert prober.value == "down"


@pytest.mark.parametrize("reading", [UP, DOWN])
def test_a_reading_counts_for_15_seconds_from_its_arrival(reading):
    prober = made({"a": reading})
    prober.now += 15.0
    prober.lives("a", "a")
    assert prober.value == reading.value
    prober.now += 0.1
    assert prober.value == "unknown"


def test_a_vantage_point_counts_for_15_seconds_from_its_last_sign_of_life():
    prober = made({"a": DOWN})
    prober.now += 10.0
    prober.says("a", DOWN, "a")
    prober.now += 5.1
    assert prober.value == "unknown"


def test_one_that_died_no_longer_holds_the_others_back():
    prober = made({"a": DOWN, "b": None})
    assert prober.value == "unknown"
    prober.now += 15.1
    prober.lives("a", "a")
    prober.says("a", DOWN, "a")
    assert prober.value == "down"


def test_one_that_cannot_reach_its_own_references_has_no_vote_but_may_acquit():
    prober = made({"a": DOWN})
    prober.lives("a", "a", UNKNOWN, at=NOW + 0.1)
    assert prober.value == "unknown"
    assert not prober.network.doubted("n1", prober.now)
    prober.says("a", UP, "a", at=NOW + 0.2)
    assert prober.value == "up"


def test_one_that_cannot_reach_its_references_still_holds_its_zone_s_place():
    prober = made({"a": DOWN, "b": DOWN})
    prober.lives("b", "b", UNKNOWN, at=NOW + 0.1)
    assert prober.value == "unknown", "one of two zones"


def test_nobody_speaks_for_the_life_of_another():
    prober = Prober()
    signal = Signal(
        plane=Plane.NETWORK, source="a", subject=vantage_subject("b"), reading=UP, at=NOW, zone="z"
    )
    prober.network.life(signal, NOW)
    assert prober.network.vantages(NOW) == ()
    assert prober.network.refused == 1


def test_only_what_speaks_against_a_node_or_takes_that_back_is_worth_a_look():
    prober = made({"a": None})
    looks = []
    for seconds, reading in (
        (0, UP), (1, UP), (16, UP), (1, DOWN), (1, DOWN), (16, DOWN), (1, UP), (1, UNKNOWN),
        (1, DOWN), (1, UNKNOWN),
    ):  # fmt: skip
        prober.now += seconds
        looks.append(prober.says("a", reading, "a"))
    assert looks == [False, False, False, True, False, True, True, False, True, True]


def test_the_same_message_again_makes_no_reading_fresh():
    prober = made({"a": DOWN})
    prober.now += 10.0
    assert not prober.says("a", DOWN, "a", at=NOW)
    prober.now += 6.0
    prober.lives("a", "a")
    assert prober.value == "unknown"


def test_the_same_life_again_makes_no_vantage_point_fresh():
    prober = made({"a": DOWN})
    prober.now += 14.0
    prober.lives("a", "a", at=NOW)
    prober.says("a", DOWN, "a")
    prober.now += 2.0
    assert prober.value == "unknown"


def test_an_overtaken_reading_takes_nothing_back():
    prober = made({"a": None})
    prober.says("a", UP, "a", at=NOW)
    prober.says("a", DOWN, "a", at=NOW - 2.0)
    assert prober.value == "up"


@pytest.mark.parametrize("jump_s", [-600.0, -20.0, 20.0, 600.0, 1e9])
def test_a_vantage_point_whose_clock_jumps_is_heard_again_within_seconds(jump_s):
    prober = Prober()
    for second in range(30):
        prober.now = NOW + second
        offset_s = jump_s if second >= 10 else 0.0
        prober.lives("a", "a", at=prober.now + offset_s)
        prober.says("a", DOWN if second >= 10 else UP, "a", at=prober.now + offset_s)
        if second >= 16:
            assert prober.value == "down"


@given(st.floats(-1e12, 1e12))
def test_what_its_clock_says_is_never_compared_with_ours(skew_s):
    prober = Prober()
    for second in range(3):
        prober.now = NOW + second
        prober.lives("a", "a", at=prober.now + skew_s)
        prober.says("a", DOWN, "a", at=prober.now + skew_s)
    assert prober.value == "down"


def test_vantage_points_that_are_gone_are_forgotten():
    prober = made({"a": DOWN, "b": UP})
    prober.now += FORGET_AFTER_S - 1.0
    prober.lives("b", "b")
    prober.now += 2.0
    prober.network.forget_gone(prober.now)
    assert [each.name for each in prober.network.vantages(prober.now)] == ["b"]


def test_vantage_points_are_bounded():
    prober = Prober()
    for number in range(VANTAGES_MAX + 10):
        prober.lives(f"v{number}")
    assert len(prober.network.vantages(NOW)) == VANTAGES_MAX
    assert prober.network.refused == 10


def test_a_deleted_node_is_forgotten():
    prober = made({"a": DOWN})
    prober.network.forget("n1")
    assert prober.value == "unknown"


def test_what_each_zone_says_can_be_shown():
    prober = made({"a1": DOWN, "a2": DOWN, "b1": UP, "c1": None})
    prober.now += 3.0
    a, b, c = prober.network.zones("n1", prober.now)
    assert (a.zone, a.value, a.down, a.since_s) == ("a", "down", 2, 3.0)
    assert "a1 says down (tcp 10250: timeout)" in a.detail
    assert (b.value, b.up) == ("up", 1)
    assert (c.value, c.no_vote) == ("unknown", 1)
    assert "c1 has said nothing lately" in c.detail


def by_the_book(votes: dict[str, Reading | None]) -> str:
    """The rule once more, in other words: see the issue."""
    zones: dict[str, list[Reading | None]] = defaultdict(list)
    for name, reading in votes.items():
        zones[name[0]].append(reading)
    if UP in votes.values():
        return "up"
    says_down = [zone for zone in zones.values() if zone.count(DOWN) > len(zone) / 2]
    return "down" if len(says_down) > len(zones) / 2 else "unknown"


@pytest.mark.parametrize(
    "names",
    [("a1",), ("a1", "a2"), ("a1", "b1"), ("a1", "a2", "b1"), ("a1", "b1", "c1"),
     ("a1", "a2", "b1", "b2"), ("a1", "a2", "a3", "b1", "c1")],
)  # fmt: skip
def test_every_vote_of_every_small_set_of_vantage_points(names):
    for said in itertools.product((UP, DOWN, UNKNOWN, None), repeat=len(names)):
        votes = dict(zip(names, said, strict=True))
        assert made(votes).value == by_the_book(votes), votes


def test_the_nodes_that_are_down_together_are_known_without_asking_of_each():
    prober = made({"a": None, "b": None, "c": None})
    for node, voices in (("n1", "abc"), ("n2", "ab"), ("n3", "a"), ("n4", "")):
        for name in "abc":
            prober.says(name, DOWN if name in voices else UNKNOWN, name, node)
    assert prober.network.unreached(prober.now) == {"n1", "n2"}
    prober.says("a", UP, "a", "n1")
    assert prober.network.unreached(prober.now) == {"n2"}
    prober.network.forget("n2")
    assert prober.network.unreached(prober.now) == set()


def test_since_when_a_node_is_reached():
    prober = made({"a": UP, "b": DOWN})
    assert prober.network.up_since("n1", NOW) == NOW
    for _ in range(5):
        prober.now += 5.0
        prober.lives("a", "a")
        prober.says("a", UP, "a")
    assert prober.network.up_since("n1", prober.now) == NOW
    prober.now += 1.0
    prober.says("a", DOWN, "a")
    assert prober.network.up_since("n1", prober.now) is None
