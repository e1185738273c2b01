"""The planes that speak by signals: storage, power, machine, conditions, virt-handler's pod."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.evidence import Evidence
from remediator.engine.model import (
    NodeFacts,
    Plane,
    Reading,
    Signal,
    node_subject,
    vantage_subject,
)
from remediator.engine.plane_values import INSTANCE_GONE, PlaneValues
from remediator.engine.said import SAID_MAX
from remediator.engine.settings import ConditionRule, DetectionSettings

NODE = NodeFacts(name="n1", uid="u", boot_id="b1", kubevirt=True)
UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN


class Seen:
    """Evidence about one node, second by second; its lease is renewed while ``alive``."""

    def __init__(self, **settings: object) -> None:
        self.evidence = Evidence(DetectionSettings(**settings))
        self.now = 1000.0
        self.alive = True
        self.signal(Plane.LEASE, UP)
        self.run(20)

    def signal(
        self,
        plane: Plane,
        reading: Reading,
        aspect: str = "",
        *,
        source: str = "t",
        at: float | None = None,
        first: bool = False,
    ) -> bool:
        return self.evidence.signal(
            Signal(
                plane=plane,
                source=source,
                subject=node_subject("n1"),
                reading=reading,
                at=self.now if at is None else at,
                aspect=aspect,
                first=first,
                detail=f"{source} {aspect}".strip(),
            ),
            self.now,
        )

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.evidence.progressed("leases", self.now, self.now)
            self.evidence.progressed("nodes", self.now, self.now)
            if self.alive and self.now % 10 == 0:
                self.signal(Plane.LEASE, UP)
            self.evidence.due(self.now)
            self.evidence.own_health.look(self.now)

    def die(self) -> None:
        self.alive = False

    @property
    def values(self) -> PlaneValues:
        return self.evidence.values(NODE, self.now)


# --- lease ----------------------------------------------------------------------------------------


def test_a_lease_is_up_then_quiet_then_silent_then_lost():
    seen = Seen()
    seen.die()
    seen.run(10)
    course = []
    for _ in range(40):
        seen.run(1)
        if not course or course[-1][1] != seen.values.lease:
            course.append((round(seen.evidence.silence_s("n1")), seen.values.lease))
    assert course == [(11, "quiet"), (12, "silent"), (41, "lost")]


# --- kubelet and conditions -----------------------------------------------------------------------


def test_a_condition_is_bad_once_it_has_stood_for_its_hold():
    seen = Seen()
    assert seen.values.conditions == "unknown"
    seen.signal(Plane.KUBELET, UP, "KernelDeadlock")
    assert seen.values.conditions == "fine"
    seen.signal(Plane.KUBELET, DOWN, "KernelDeadlock")
    assert seen.evidence.holding() == ["n1"]
    seen.run(59)
    assert seen.values.conditions == "fine"
    seen.run(1)
    assert seen.values.conditions == "bad"
    seen.signal(Plane.KUBELET, UP, "KernelDeadlock")
    assert seen.values.conditions == "fine"
    assert seen.evidence.holding() == []


def test_each_condition_has_a_hold_of_its_own():
    seen = Seen()
    seen.signal(Plane.KUBELET, DOWN, "MemoryPressure")
    seen.run(299)
    assert seen.values.conditions == "fine"
    seen.run(1)
    assert seen.values.conditions == "bad"


def test_a_condition_repeated_by_its_source_does_not_begin_anew():
    seen = Seen()
    for _ in range(7):
        seen.signal(Plane.KUBELET, DOWN, "KernelDeadlock")
        seen.run(10)
    assert seen.values.conditions == "bad"


def test_a_condition_that_nobody_configured_is_not_even_remembered():
    seen = Seen()
    assert not seen.signal(Plane.KUBELET, DOWN, "FrequentKubeletRestart")
    seen.run(1000)
    assert seen.values.conditions == "unknown"
    assert list(seen.evidence.said.kubelet.of("n1")) == []


def test_a_condition_of_one_s_own_can_be_named():
    rule = ConditionRule(type="DiskIsSlow", hold_s=5.0)
    seen = Seen(conditions=(rule,))
    seen.signal(Plane.KUBELET, DOWN, "DiskIsSlow")
    seen.run(5)
    assert seen.values.conditions == "bad"


def test_conditions_say_nothing_about_readiness_nor_the_other_way_round():
    seen = Seen()
    seen.signal(Plane.KUBELET, DOWN, "KernelDeadlock")
    seen.signal(Plane.KUBELET, UP)
    seen.run(70)
    assert (seen.values.kubelet, seen.values.conditions) == ("up", "bad")
    seen.signal(Plane.KUBELET, DOWN)
    seen.signal(Plane.KUBELET, UP, "KernelDeadlock")
    seen.run(70)
    assert (seen.values.kubelet, seen.values.conditions) == ("down", "fine")


def test_a_condition_is_no_sign_of_life():
    seen = Seen()
    seen.die()
    seen.run(30)
    seen.signal(Plane.KUBELET, UP, "KernelDeadlock")
    assert seen.values.lease == "silent"


# --- virt-handler ---------------------------------------------------------------------------------


def beat_handler(seen: Seen, seconds: int) -> None:
    for _ in range(seconds // 10):
        seen.signal(Plane.HANDLER, UP)
        seen.run(10)


def test_a_rollout_that_takes_less_than_150_seconds_alarms_nobody():
    seen = Seen()
    beat_handler(seen, 20)
    seen.signal(Plane.HANDLER, DOWN, "pod")
    beat_handler(seen, 140)
    assert seen.values.handler == "up"
    seen.signal(Plane.HANDLER, UP, "pod")
    beat_handler(seen, 140)
    assert seen.values.handler == "up"


def test_a_pod_that_is_not_ready_for_longer_is_down_though_it_beats():
    seen = Seen()
    beat_handler(seen, 20)
    seen.signal(Plane.HANDLER, DOWN, "pod")
    beat_handler(seen, 150)
    assert seen.values.handler == "down"


def test_the_pod_of_a_silent_node_says_nothing_since_the_node_controller_says_it():
    seen = Seen()
    beat_handler(seen, 20)
    seen.signal(Plane.HANDLER, DOWN, "pod")
    beat_handler(seen, 160)
    seen.die()
    seen.run(30)
    assert seen.values.lease == "silent"
    assert seen.values.handler == "unknown", "no second plane: it comes of the same lease"


def test_a_node_that_is_back_gets_the_full_time_for_its_pod():
    seen = Seen()
    beat_handler(seen, 20)
    seen.die()
    seen.run(45)
    seen.signal(Plane.HANDLER, DOWN, "pod")
    seen.run(400)
    seen.alive = True
    seen.run(30)
    beat_handler(seen, 30)
    assert seen.values.handler == "up"


def test_an_unparsable_heartbeat_is_neither_a_beat_nor_silence():
    seen = Seen()
    assert not seen.signal(Plane.HANDLER, UNKNOWN)
    assert seen.values.handler == "unknown"


# --- storage --------------------------------------------------------------------------------------


def test_storage_that_heard_the_node_before_its_lease_fell_silent_is_no_sign_of_life():
    seen = Seen()
    seen.signal(Plane.STORAGE, UP, source="longhorn")
    assert seen.values.storage == "up"
    seen.die()
    seen.run(30)
    assert seen.values.storage == "unknown"
    seen.signal(Plane.STORAGE, UP, source="longhorn")
    assert seen.values.storage == "up"
    seen.run(61)
    assert seen.values.storage == "unknown", "it has not heard it since"


def test_storage_that_hears_the_node_outweighs_storage_that_does_not():
    seen = Seen()
    seen.die()
    seen.run(30)
    seen.signal(Plane.STORAGE, DOWN, source="longhorn")
    assert seen.values.storage == "down"
    seen.signal(Plane.STORAGE, UP, source="csi-addons")
    assert seen.values.storage == "up"


# --- power ----------------------------------------------------------------------------------------


def test_one_bmc_that_says_on_outweighs_another_that_says_off():
    seen = Seen()
    seen.die()
    seen.run(15)
    seen.signal(Plane.POWER, DOWN, source="redfish a")
    assert seen.values.power == "off"
    seen.signal(Plane.POWER, UP, source="ipmi b")
    assert seen.values.power == "on"
    seen.run(16)
    assert seen.values.power == "off", "what it said then says nothing about now"


def test_off_makes_the_lease_quiet_until_the_node_is_heard_again():
    seen = Seen()
    seen.signal(Plane.LEASE, UP)
    seen.signal(Plane.POWER, DOWN)
    assert seen.values.lease == "quiet"
    seen.run(4)
    seen.signal(Plane.LEASE, UP)
    assert seen.values.lease == "up"


# --- machine --------------------------------------------------------------------------------------


def test_an_instance_that_is_gone_stays_gone_until_the_node_is_heard():
    seen = Seen()
    seen.die()
    seen.run(20)
    seen.signal(Plane.MACHINE, DOWN, INSTANCE_GONE, source="Machine ns/m1")
    seen.run(300)
    assert seen.values.machine == "gone"
    seen.alive = True
    seen.run(10)
    assert seen.values.machine == "unknown"


def test_an_instance_that_is_back_is_not_gone():
    seen = Seen()
    seen.die()
    seen.run(20)
    seen.signal(Plane.MACHINE, DOWN, INSTANCE_GONE, source="Machine ns/m1")
    seen.signal(Plane.MACHINE, UP, INSTANCE_GONE, source="Machine ns/m1", at=seen.now + 1)
    assert seen.values.machine == "unknown"


def test_one_health_check_that_says_sick_is_enough_to_say_so():
    seen = Seen()
    seen.signal(Plane.MACHINE, UP, "Healthy", source="Machine ns/m1")
    assert seen.values.machine == "up"
    seen.signal(Plane.MACHINE, DOWN, "HealthCheckSucceeded", source="MachineHealthCheck ns/mhc")
    assert seen.values.machine == "down"


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", [Plane.STORAGE, Plane.POWER, Plane.MACHINE])
def test_an_overtaken_signal_takes_nothing_back(plane):
    seen = Seen()
    seen.signal(plane, DOWN, at=100.0)
    before = seen.values
    assert not seen.signal(plane, UP, at=99.0)
    assert seen.values == before


@pytest.mark.parametrize("plane", [Plane.STORAGE, Plane.POWER, Plane.MACHINE])
def test_a_source_whose_clock_was_set_back_ten_minutes_is_heard(plane):
    seen = Seen()
    seen.signal(plane, DOWN, at=10_000.0)
    seen.signal(plane, UP, at=9_400.0)
    assert getattr(seen.values, plane.value) in ("up", "on")


@given(st.floats(-1e12, 1e12), st.sampled_from([Plane.STORAGE, Plane.POWER, Plane.MACHINE]))
def test_a_clock_that_says_anything_is_never_compared_with_ours(at, plane):
    seen = Seen()
    seen.signal(plane, DOWN, at=at)
    seen.run(6)
    seen.signal(plane, UP, at=at - 7.0)
    assert getattr(seen.values, plane.value) in ("up", "on")


def test_the_sources_of_one_plane_are_bounded():
    seen = Seen()
    for number in range(500):
        seen.signal(Plane.MACHINE, DOWN, source=f"Machine ns/m{number}")
    assert len(list(seen.evidence.said.machine.of("n1"))) == SAID_MAX


def test_nodes_that_nobody_knows_are_bounded():
    evidence = Evidence(DetectionSettings())
    for number in range(10_050):
        signal = Signal(
            plane=Plane.POWER,
            source="t",
            subject=node_subject(f"stranger-{number}"),
            reading=DOWN,
            at=1.0,
        )
        evidence.signal(signal, 1.0, known=False)
    assert list(evidence.said.power.of("stranger-0")) == []
    assert list(evidence.said.power.of("stranger-10049")) != []
    evidence.made_known("stranger-10049")


def test_a_forgotten_node_leaves_nothing_behind():
    seen = Seen()
    for plane in Plane:
        seen.signal(plane, DOWN, "pod" if plane is Plane.HANDLER else "")
    seen.evidence.forget("n1")
    assert seen.values == PlaneValues()
    assert seen.evidence.holding() == []


readings = st.sampled_from(Reading)
signals = st.builds(
    Signal,
    plane=st.sampled_from(Plane),
    source=st.sampled_from(["a", "b", ""]),
    subject=st.just(node_subject("n1")),
    reading=readings,
    at=st.floats(allow_nan=False) | st.floats(990.0, 1100.0),
    aspect=st.sampled_from(["", "Ready", "pod", "KernelDeadlock", INSTANCE_GONE, "else"]),
    zone=st.sampled_from(["", "z"]),
    detail=st.text(max_size=5),
    first=st.booleans(),
)


@given(st.lists(st.tuples(signals, st.integers(0, 20)), max_size=60))
def test_no_sequence_of_signals_is_more_than_the_table_and_a_record_can_take(steps):
    """Fuzzed sources and clocks: values stay within their words, rows within their number."""
    seen = Seen()
    for zone in range(10):
        life = Signal(
            plane=Plane.NETWORK,
            source=f"v{zone}",
            subject=vantage_subject(f"v{zone}"),
            reading=UP,
            at=1.0,
            zone=f"zone-{zone}",
        )
        seen.evidence.network.life(life, seen.now)
    for signal, seconds in steps:
        seen.evidence.signal(signal, seen.now)
        seen.run(seconds)
        values = seen.values
        assert values.lease in ("up", "quiet", "silent", "lost", "unknown")
        assert values.machine in ("up", "down", "gone", "unknown")
        rows = seen.evidence.rows(NODE, seen.now)
        assert len(rows) <= 24
        assert all(len(row.detail) <= 240 for row in rows)
        assert 0.0 <= seen.evidence.suspicion("n1") <= 300.0


# --- rows -----------------------------------------------------------------------------------------


def told(seen: Seen) -> list[tuple[str, str, str, str]]:
    rows = seen.evidence.rows(NODE, seen.now)
    return [(row.plane, row.value, row.source, row.aspect) for row in rows]


def test_a_quiet_node_has_the_four_rows_that_always_stand():
    seen = Seen()
    assert told(seen) == [
        ("lease", "up", "t", ""),
        ("handler", "unknown", "", ""),
        ("power", "unknown", "", ""),
        ("kubelet", "unknown", "", ""),
    ]


def test_the_row_of_the_lease_tells_suspicion_rhythm_and_limit():
    seen = Seen()
    seen.run(200)
    seen.die()
    seen.run(12)
    (lease, *_) = seen.evidence.rows(NODE, seen.now)
    assert lease.value == "silent"
    assert "renews every 10.0 s; silent after 11.8 s" in lease.detail
    assert lease.since_s == seen.evidence.silence_s("n1")


def test_every_plane_that_has_something_to_say_has_its_rows_in_the_order_of_the_planes():
    seen = Seen()
    for zone in ("a", "b"):
        name = f"prober-{zone}"
        life = Signal(
            plane=Plane.NETWORK, source=name, subject=vantage_subject(name), reading=UP, at=1.0,
            zone=zone,
        )  # fmt: skip
        seen.evidence.network.life(life, seen.now)
        sight = Signal(
            plane=Plane.NETWORK, source=name, subject=node_subject("n1"), reading=DOWN, at=1.0,
            zone=zone, detail="icmp: timeout",
        )  # fmt: skip
        seen.evidence.signal(sight, seen.now)
    seen.signal(Plane.HANDLER, UP, source="node watch")
    seen.signal(Plane.HANDLER, DOWN, "pod", source="virt-handler pod")
    seen.signal(Plane.STORAGE, DOWN, "n1", source="longhorn")
    seen.signal(Plane.POWER, DOWN, source="redfish bmc")
    seen.signal(Plane.KUBELET, UP, source="node watch")
    seen.signal(Plane.KUBELET, DOWN, "KernelDeadlock", source="node watch")
    seen.signal(Plane.KUBELET, UP, "MemoryPressure", source="node watch")
    seen.signal(Plane.MACHINE, UP, "phase", source="Machine ns/m1")
    seen.signal(Plane.MACHINE, DOWN, "Healthy", source="NodeHealthCheck nhc")
    assert told(seen) == [
        ("lease", "quiet", "t", ""),
        ("network", "down", "2 vantage points in 2 zones", ""),
        ("network", "down", "zone a", "zone"),
        ("network", "down", "zone b", "zone"),
        ("handler", "up", "node watch", ""),
        ("handler", "down", "virt-handler pod", "pod"),
        ("storage", "down", "longhorn", "n1"),
        ("power", "off", "redfish bmc", ""),
        ("kubelet", "up", "node watch", ""),
        ("kubelet", "down", "node watch", "KernelDeadlock"),
        ("machine", "down", "NodeHealthCheck nhc", "Healthy"),
        ("machine", "up", "Machine ns/m1", "phase"),
    ]
