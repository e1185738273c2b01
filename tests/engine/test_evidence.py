"""Silence: counted only while the watch proves that it hears."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from remediator.engine.accrual import Tempo
from remediator.engine.evidence import Evidence
from remediator.engine.model import NodeFacts, Plane, Reading, Signal, node_subject
from remediator.engine.settings import DetectionSettings
from remediator.engine.silence import BeatPlane, ProvenTime

NODE = NodeFacts(name="n1", uid="u", boot_id="b1", kubevirt=True)


def plane() -> BeatPlane:
    return BeatPlane(5.0, Tempo(10.6, 12.0))


def signal(at: float, which: Plane, reading: Reading = Reading.UP, *, first=False) -> Signal:
    return Signal(
        plane=which,
        source="t",
        subject=node_subject("n1"),
        reading=reading,
        at=at,
        first=first,
    )


def test_silence_does_not_grow_while_nothing_at_all_is_heard():
    leases = plane()
    leases.beat("n1", 0.0, 0.0, first=False)
    assert leases.silence_s("n1") == 0.0  # however late it is by the clock


def test_silence_grows_with_the_progress_of_the_watch():
    leases = plane()
    leases.beat("n1", 0.0, 0.0, first=False)
    for at in range(14):
        leases.time.progress(float(at))
    assert leases.silence_s("n1") == 13.0
    assert leases.newly_due() == ["n1"]


def test_a_beat_is_no_proof_that_everything_before_it_has_arrived():
    leases = plane()
    leases.time.progress(0.0)
    leases.beat("n1", 0.0, 0.0, first=False)
    leases.beat("n2", 3.0, 3.0, first=False)
    assert leases.silence_s("n1") == 0.0, "the watch has proven nothing since"
    leases.time.progress(3.0)
    assert leases.silence_s("n1") == 3.0
    assert leases.silence_s("n2") == 0.0


def test_a_deaf_stretch_gives_every_node_a_fresh_period():
    leases = plane()
    leases.beat("n1", 0.0, 0.0, first=False)
    for at in range(1, 10):
        leases.time.progress(float(at))
    leases.time.progress(300.0)
    assert leases.silence_s("n1") == 0.0
    leases.time.progress(303.0)
    assert leases.silence_s("n1") == 3.0


def test_a_node_found_at_the_start_is_not_known_to_live_but_can_fall_silent():
    evidence = Evidence(DetectionSettings())
    evidence.signal(signal(0.0, Plane.LEASE, first=True), 0.0)
    assert evidence.values(NODE, 0.0).lease == "unknown"
    for at in range(1, 14):
        evidence.leases.time.progress(float(at))
    assert evidence.values(NODE, 13.0).lease == "silent"


def test_a_heartbeat_of_virt_handler_from_before_the_silence_says_nothing():
    evidence = Evidence(DetectionSettings())
    evidence.signal(signal(0.0, Plane.HANDLER), 0.0)
    evidence.signal(signal(1.0, Plane.LEASE), 1.0)
    for at in range(2, 20):
        evidence.leases.time.progress(float(at))
    assert evidence.values(NODE, 20.0).handler == "unknown"
    evidence.signal(signal(21.0, Plane.HANDLER), 21.0)
    assert evidence.values(NODE, 21.0).handler == "unknown", "its lease may follow in a moment"
    assert evidence.values(NODE, 34.0).handler == "up"


def test_the_kubelets_own_word_about_readiness_is_a_sign_of_life():
    evidence = Evidence(DetectionSettings())
    evidence.signal(signal(0.0, Plane.LEASE), 0.0)
    evidence.signal(signal(0.0, Plane.KUBELET, Reading.UP, first=True), 0.0)
    for at in range(1, 60):
        evidence.leases.time.progress(float(at))
    evidence.signal(signal(50.0, Plane.KUBELET, Reading.UNKNOWN), 50.0)
    assert evidence.values(NODE, 60.0).lease == "lost", "Unknown is the node controller's word"
    evidence.signal(signal(60.0, Plane.KUBELET, Reading.UP), 60.0)
    assert evidence.values(NODE, 60.0).lease == "up"


def test_a_host_that_is_heard_again_gives_virt_handler_a_fresh_period():
    evidence = Evidence(DetectionSettings())
    evidence.signal(signal(0.0, Plane.LEASE), 0.0)
    evidence.signal(signal(0.0, Plane.HANDLER), 0.0)
    for at in range(1, 200):
        evidence.leases.time.progress(float(at))
        evidence.handlers.time.progress(float(at))
    assert evidence.values(NODE, 200.0).handler == "silent"
    evidence.signal(signal(200.0, Plane.LEASE), 200.0)
    assert evidence.values(NODE, 200.0).handler == "unknown"


def test_no_answer_from_the_bmc_takes_no_earlier_answer_back():
    evidence = Evidence(DetectionSettings())
    evidence.signal(signal(0.0, Plane.POWER, Reading.DOWN), 0.0)
    evidence.signal(signal(2.0, Plane.POWER, Reading.UNKNOWN), 2.0)
    assert evidence.values(NODE, 100.0).power == "off"


def test_off_is_forgotten_once_the_node_was_heard_later():
    evidence = Evidence(DetectionSettings())
    evidence.signal(signal(0.0, Plane.POWER, Reading.DOWN), 0.0)
    evidence.signal(signal(60.0, Plane.LEASE), 60.0)
    assert evidence.values(NODE, 61.0).power == "unknown"


def test_on_grows_stale():
    evidence = Evidence(DetectionSettings())
    evidence.signal(signal(0.0, Plane.POWER, Reading.UP), 0.0)
    assert evidence.values(NODE, 5.0).power == "on"
    assert evidence.values(NODE, 30.0).power == "unknown"


@given(st.lists(st.floats(min_value=0.0, max_value=1000.0), max_size=200), st.floats(0.1, 20.0))
def test_proven_time_never_exceeds_the_time_that_passed(ats, gap_s):
    stopwatch = ProvenTime(gap_s)
    for at in ats:
        stopwatch.progress(at)
    forward_s = sum(max(0.0, later - at) for at, later in itertools.pairwise(ats))
    assert 0.0 <= stopwatch.proven_s <= forward_s + 1e-6
    assert 0.0 <= stopwatch.floor_s <= stopwatch.proven_s


@given(
    st.lists(
        st.tuples(st.sampled_from(["n1", "n2", "n3"]), st.floats(0.01, 4.9)),
        min_size=1,
        max_size=100,
    )
)
def test_a_node_that_reaches_the_limit_is_reported_at_that_very_progress(beats):
    leases = plane()
    now = 0.0
    due: set[str] = set()
    for node in ("n1", "n2", "n3"):
        leases.beat(node, now, now, first=False)
    for node, passed_s in beats:
        now += passed_s
        leases.beat(node, now, now, first=False)
        due.discard(node)
        due.update(leases.newly_due())
        silent = {name for name in leases.beats if leases.silence_s(name) >= 12.0}
        assert silent <= due
