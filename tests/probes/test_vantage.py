"""A vantage point: slow in peace, fast in doubt, silent about what may be its own fault."""

from __future__ import annotations

import asyncio
import errno

import pytest
import structlog

from remediator.engine.model import Plane, Reading, vantage_subject
from remediator.probes.targets import Target

UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN
NINE = tuple(f"n{number}" for number in range(1, 10))  # three in each of the zones a, b and c


# --- pace -----------------------------------------------------------------------------------------


async def test_in_peace_each_node_is_probed_about_every_five_seconds_and_by_one_means(lookout):
    lookout.nodes(*(f"n{number}" for number in range(1, 101)))
    lookout.start(life_s=1000.0)
    await lookout.settled()
    began = lookout.now()
    await asyncio.sleep(100.0)
    assert 1900 <= len(lookout.network.dials) <= 2200
    means = {(what, address) for _, what, address in lookout.network.dials}
    assert len(means) == 100  # for each node the one that answered first
    per_second = [0] * 101
    for at, _, _ in lookout.network.dials:
        per_second[int(at - began)] += 1
    assert max(per_second) <= 40


async def test_in_peace_hardly_anything_travels(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    await asyncio.sleep(1200.0)
    lives = len(lookout.life())
    assert 220 <= lives <= 245  # one every five seconds
    others = len(lookout.published.offers) - lives
    assert 81 <= others <= 90  # one refresh every two minutes for each of nine nodes


async def test_refreshes_do_not_come_in_bursts_though_all_nodes_were_met_at_once(lookout):
    lookout.nodes(*(f"n{number}" for number in range(1, 201)))
    lookout.start(life_s=1000.0)
    await lookout.settled()
    began, per_ten_seconds = lookout.now(), [0] * 24
    for step in range(24):
        await asyncio.sleep(10.0)
        per_ten_seconds[step] = len(lookout.published.offers) - sum(per_ten_seconds)
    assert lookout.now() - began == pytest.approx(240.0)
    assert min(per_ten_seconds) >= 5
    assert max(per_ten_seconds) <= 35  # 200 in two minutes are 17 in ten seconds


async def test_what_is_found_at_the_start_and_refreshes_are_kept_apart_from_changes(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await asyncio.sleep(10.0)
    lookout.network.silent.add("10.0.0.2")
    await lookout.until_said("n2", DOWN)
    subjects = [s for s, e in lookout.published.offers if e.subject.name == "n2"]
    assert subjects == [
        "remediator.heartbeat.network.node.n2.v1",
        "remediator.signal.network.node.n2.v1",
    ]


async def test_an_asked_node_is_probed_at_once_and_every_second_for_half_a_minute(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start(life_s=1000.0)
    await lookout.settled()
    asked_at = lookout.now()
    vantage.ask("n2")
    await asyncio.sleep(40.0)
    at = [at for at, what in lookout.network.of("10.0.0.2", asked_at) if what == "tcp 10250"]
    assert at[0] - asked_at < 0.02
    asked = [one for one in at if one < asked_at + 30.0]
    assert 29 <= len(asked) <= 31
    assert len(at) - len(asked) <= 3
    assert 29 <= len(lookout.said("n2")) <= 31  # every answer, and each was the same
    assert {signal.reading for signal in lookout.said("n2")} == {UP}
    assert not lookout.said("n3")


async def test_asking_again_prolongs_it_and_asks_no_faster(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start(life_s=1000.0)
    await lookout.settled()
    for _ in range(600):
        vantage.ask("n2")
        await asyncio.sleep(0.1)
    assert 58 <= len([one for one in lookout.network.of("10.0.0.2") if one[1] != "icmp"]) <= 62


async def test_an_answer_to_a_round_in_flight_counts_as_asked(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start(deadline_s=3.0)
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    while not vantage._watches["n2"].probing:
        await asyncio.sleep(0.01)
    vantage.ask("n2")
    await asyncio.sleep(3.1)
    assert lookout.readings("n2") == [UNKNOWN]


async def test_asks_for_unknown_nodes_are_ignored(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start()
    await lookout.settled()
    for number in range(1000):
        vantage.ask(f"nobody-{number}")
    await asyncio.sleep(10.0)
    assert vantage.nodes == 9
    assert not [s for s, _ in lookout.published.offers if "nobody" in s]


async def test_rounds_in_flight_are_bounded_and_each_node_gets_its_turn(lookout):
    lookout.nodes(*(f"n{number}" for number in range(1, 201)))
    lookout.start(in_flight_peace=8, icmp=False, life_s=1000.0)
    lookout.network.cut = True
    await asyncio.sleep(100.0)
    assert lookout.network.most_in_flight == 8
    assert len({address for _, _, address in lookout.network.dials}) == 200


async def test_a_dead_zone_does_not_delay_a_node_that_is_asked_for(lookout):
    lookout.nodes(*(f"n{number}" for number in range(1, 201)))
    vantage = lookout.start(in_flight_peace=4)
    await lookout.settled()
    lookout.network.silent |= {f"10.0.0.{number}" for number in range(1, 201, 3)}
    await asyncio.sleep(60.0)
    asked_at = lookout.now()
    idle = next(n for n in ("n2", "n3", "n5") if not vantage._watches[n].probing)
    vantage.ask(idle)
    await asyncio.sleep(0.05)
    assert lookout.network.of(f"10.0.0.{idle[1:]}", asked_at)


async def test_asked_rounds_in_flight_are_bounded_too(lookout):
    lookout.nodes(*(f"n{number}" for number in range(1, 201)))
    vantage = lookout.start(in_flight_asked=4, in_flight_peace=1, icmp=False, life_s=1000.0)
    lookout.network.cut = True
    await asyncio.sleep(1.0)
    for number in range(1, 201):
        vantage.ask(f"n{number}")
    await asyncio.sleep(20.0)
    assert lookout.network.most_in_flight == 5


# --- a host dies ----------------------------------------------------------------------------------


async def test_a_host_that_dies_is_said_to_be_down_about_two_seconds_after_the_first_failure(
    lookout,
):
    lookout.nodes(*NINE)
    lookout.start(life_s=1000.0)  # the reference that this node may be is no probe of it
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    died_at = lookout.now()
    down_at = await lookout.until_said("n2", DOWN)
    probed_at = lookout.network.of("10.0.0.2", died_at)[0][0]
    failed_at = probed_at + 1.0
    assert 1.9 <= down_at - failed_at <= 3.0
    assert lookout.readings("n2") == [DOWN]
    signal = lookout.said("n2")[0]
    assert signal.detail == "icmp: timeout; tcp 10250: timeout"
    assert (signal.plane, signal.source, signal.zone) == (Plane.NETWORK, "v1", "a")


async def test_an_asked_host_is_said_to_be_down_three_seconds_after_the_ask(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start()
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    asked_at = lookout.now()
    vantage.ask("n2")
    down_at = await lookout.until_said("n2", DOWN)
    assert 2.9 <= down_at - asked_at <= 3.3
    assert lookout.readings("n2") == [UNKNOWN, UNKNOWN, DOWN]  # doubt is told to whoever asks
    assert lookout.said("n2")[0].detail.startswith("round 1 of 3: ")


async def test_a_host_that_is_down_is_probed_slowly_by_all_means_until_it_answers(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    await lookout.until_said("n2", DOWN)
    lookout.network.dials.clear()
    await asyncio.sleep(50.0)
    assert 7 <= len(lookout.network.of("10.0.0.2")) / 2 <= 11
    lookout.network.silent.clear()
    back_at = lookout.now()
    assert await lookout.until_said("n2", UP) - back_at <= 5.6
    assert lookout.readings("n2") == [DOWN, UP]


async def test_a_host_that_refuses_lives(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start(icmp=False)
    lookout.network.refusing.add("10.0.0.2")
    await asyncio.sleep(10.0)
    vantage.ask("n2")
    await asyncio.sleep(10.0)
    assert set(lookout.readings("n2")) == {UP}
    assert lookout.said("n2")[0].detail == "tcp 10250: refused"


async def test_one_kind_of_answer_is_enough_and_is_the_one_tried_in_peace(lookout):
    lookout.nodes(*NINE)
    lookout.network.filtered.add("10.0.0.2")  # a firewall between us and the kubelet
    lookout.start()
    await lookout.settled()
    await asyncio.sleep(60.0)
    assert {what for _, what in lookout.network.of("10.0.0.2")} == {"icmp"}
    assert set(lookout.readings("n2")) <= {UP}
    lookout.network.silent.add("10.0.0.2")
    await lookout.until_said("n2", DOWN)


async def test_every_kind_of_probe_that_is_configured_is_tried_and_named(lookout):
    lookout.nodes(*NINE)
    lookout.start(ports=(22,), https=("https://{address}:9443/healthz",))
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    await lookout.until_said("n2", DOWN)
    assert lookout.said("n2")[-1].detail == (
        "https :9443/healthz: timeout; icmp: timeout; tcp 10250: timeout; tcp 22: timeout"
    )


async def test_a_lost_packet_is_repeated_and_nothing_is_said(lookout):
    lookout.nodes(*NINE)
    lookout.start(life_s=1000.0)
    await lookout.settled()
    for _ in range(100):
        lookout.network.lose_next = 1
        await asyncio.sleep(1.0)
    assert lookout.network.lose_next <= 1
    assert not [e for s, e in lookout.published.offers if s.startswith("remediator.signal")]


async def test_a_node_that_was_never_reached_is_never_said_to_be_down(lookout):
    lookout.nodes(*NINE)
    lookout.network.silent.add("10.0.0.2")
    vantage = lookout.start()
    await asyncio.sleep(20.0)
    vantage.ask("n2")
    await asyncio.sleep(20.0)
    assert set(lookout.readings("n2")) == {UNKNOWN}
    assert lookout.said("n2")[-1].detail.startswith("never reached from here: ")


# --- our own fault --------------------------------------------------------------------------------


async def test_a_prober_that_is_cut_off_says_so_of_itself_and_nothing_of_nodes(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    lookout.network.cut = True
    cut_at = lookout.now()
    await lookout.until_said("v1", UNKNOWN)
    assert lookout.now() - cut_at <= 7.0
    assert lookout.life()[-1].detail.startswith("0 of 3 zones answer")
    await asyncio.sleep(60.0)
    assert not [e for _, e in lookout.published.offers if e.subject.kind == "node"]
    assert set(lookout.readings("v1")[-10:]) == {UNKNOWN}
    lookout.network.cut = False
    await lookout.until_said("v1", UP)
    await asyncio.sleep(60.0)
    assert {e.reading for _, e in lookout.published.offers if e.subject.kind == "node"} <= {UP}


async def test_a_prober_that_is_cut_off_answers_that_it_does_not_know(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start()
    await lookout.settled()
    lookout.network.cut = True
    vantage.ask("n2")
    await asyncio.sleep(20.0)
    assert len(lookout.said("n2")) >= 9  # each round waits for the references as well
    assert set(lookout.readings("n2")) == {UNKNOWN}
    assert lookout.said("n2")[-1].detail.startswith("other hosts are silent too: ")


async def test_a_prober_that_is_cut_off_takes_back_that_a_node_is_down(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    await lookout.until_said("n2", DOWN)
    lookout.network.cut = True
    await lookout.until_said("n2", UNKNOWN)
    lookout.network.cut = False
    mended_at = lookout.now()
    assert await lookout.until_said("n2", DOWN) - mended_at > 2.0  # it must be proven anew


async def test_the_loss_of_one_zone_of_three_is_told(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    zone_b = ("n2", "n5", "n8")
    lookout.network.silent |= {lookout.targets[node].address for node in zone_b}
    for node in zone_b:
        await lookout.until_said(node, DOWN)
    assert {signal.reading for signal in lookout.life()} == {UP}


async def test_the_loss_of_one_zone_of_two_is_told(lookout):
    lookout.nodes(*NINE, zones="ab")
    lookout.start()
    await lookout.settled()
    lookout.network.silent |= {t.address for t in lookout.targets.values() if t.zone == "b"}
    await lookout.until_said("n2", DOWN)
    assert {signal.reading for signal in lookout.life()} == {UP}


async def test_a_zone_that_is_cut_off_from_the_others_judges_nobody(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    lookout.network.silent |= {t.address for t in lookout.targets.values() if t.zone != "a"}
    await lookout.until_said("v1", UNKNOWN)
    await asyncio.sleep(60.0)
    assert not [e for _, e in lookout.published.offers if e.reading is DOWN]


async def test_zones_lost_one_after_the_other_are_told_while_half_of_them_answer(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    lookout.network.silent |= {t.address for t in lookout.targets.values() if t.zone == "b"}
    for node in ("n2", "n5", "n8"):
        await lookout.until_said(node, DOWN)
    lookout.published.offers.clear()
    lookout.network.silent |= {t.address for t in lookout.targets.values() if t.zone == "c"}
    await lookout.until_said("v1", UNKNOWN)
    await asyncio.sleep(60.0)
    assert not [e for _, e in lookout.published.offers if e.reading is DOWN]
    assert lookout.life()[-1].detail.startswith("1 of 3 zones answer")


async def test_references_that_are_configured_must_answer_too(lookout):
    lookout.nodes(*NINE)
    lookout.start(references=("192.0.2.1:6443", "192.0.2.2:6443"))
    await lookout.settled()
    lookout.network.silent |= {"192.0.2.1", "10.0.0.2"}
    await lookout.until_said("n2", DOWN)  # one of two references is enough
    lookout.network.silent |= {"192.0.2.2", "10.0.0.3"}
    await lookout.until_said("v1", UNKNOWN)
    await asyncio.sleep(60.0)
    assert DOWN not in lookout.readings("n3")
    assert "no configured reference does" in lookout.life()[-1].detail


async def test_with_nothing_to_refer_to_nobody_is_said_to_be_down(lookout):
    lookout.nodes("n1", "n2", zones="a")
    lookout.start(node="n1")  # our own host reaches itself also without a cable
    await lookout.settled()
    assert lookout.vantage.life[0] is UP
    lookout.network.silent.add("10.0.0.2")
    await asyncio.sleep(60.0)
    assert DOWN not in lookout.readings("n2")
    assert set(lookout.readings("v1")[-5:]) == {UNKNOWN}


async def test_a_configured_reference_lets_a_cluster_of_two_be_judged(lookout):
    lookout.nodes("n1", "n2", zones="a")
    lookout.start(node="n1", references=("192.0.2.1:6443",))
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    await asyncio.sleep(5.0)
    assert DOWN not in lookout.readings("n2")  # the only other node is its own reference
    lookout.nodes("n3", zones="b")
    await asyncio.sleep(30.0)
    assert lookout.readings("n2")[-1] is DOWN


async def test_a_machine_that_stood_still_convicts_nobody(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start()
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    lookout.network.late_s = 0.7  # the deadline's timer ran so late
    vantage.ask("n2")
    await asyncio.sleep(20.0)
    assert set(lookout.readings("n2")) == {UNKNOWN}
    assert "we were 0.7 s late" in lookout.said("n2")[-1].detail
    assert "our own timers 0.7 s late" in lookout.life()[-1].detail
    lookout.network.late_s = 0.0
    await lookout.until_said("n2", DOWN)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES, errno.ENOBUFS]
)
async def test_our_own_faults_convict_nobody(lookout, number):
    lookout.nodes(*NINE)
    vantage = lookout.start(icmp=False)
    await lookout.settled()
    lookout.network.error = OSError(number, "our fault")
    vantage.ask("n2")
    await asyncio.sleep(30.0)
    assert set(lookout.readings("n2")) == {UNKNOWN}
    assert lookout.said("n2")[-1].detail == "not judged: tcp 10250: our fault"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENETUNREACH])
async def test_what_the_network_reports_of_one_host_is_silence(lookout, number):
    lookout.nodes(*NINE)
    vantage = lookout.start(icmp=False)
    await lookout.settled()
    tcp = lookout.network.tcp

    async def unreachable(address, port, timeout_s):
        if address == "10.0.0.2":
            raise OSError(number, "no way there")
        await tcp(address, port, timeout_s)

    lookout.network.tcp = unreachable
    asked_at = lookout.now()
    vantage.ask("n2")
    assert 2.0 <= await lookout.until_said("n2", DOWN) - asked_at <= 2.5


async def test_a_defect_of_a_probe_is_logged_and_ends_nothing(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start(icmp=False)
    await lookout.settled()
    lookout.network.error = RuntimeError("lost")
    with structlog.testing.capture_logs() as logs:
        vantage.ask("n2")
        await asyncio.sleep(5.0)
    assert {"probe_failed"} <= {line["event"] for line in logs}
    lookout.network.error = None
    await lookout.until_said("n2", UP)


async def test_without_permission_to_ping_it_says_so_once_and_goes_on_with_tcp(lookout):
    lookout.nodes(*NINE)
    lookout.network.icmp_allowed = False
    with structlog.testing.capture_logs() as logs:
        lookout.start()
        await lookout.settled()
        lookout.network.silent.add("10.0.0.2")
        await lookout.until_said("n2", DOWN)
    assert [line["event"] for line in logs].count("icmp_not_permitted") == 1
    assert lookout.said("n2")[-1].detail == "tcp 10250: timeout"


# --- its own life, and the nodes it knows ---------------------------------------------------------


async def test_its_life_is_told_every_five_seconds_with_what_it_rests_on(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    await asyncio.sleep(100.0)
    assert 19 <= len(lookout.life()) <= 21
    signal = lookout.life()[-1]
    assert (signal.subject, signal.reading, signal.source) == (vantage_subject("v1"), UP, "v1")
    assert signal.detail == "3 of 3 zones answer, 9 nodes known"
    assert lookout.published.offers[-1][0].startswith("remediator.heartbeat.network.")
    subjects = {s for s, e in lookout.published.offers if e.subject.kind == "vantage"}
    assert subjects == {"remediator.heartbeat.network.vantage.v1.v1"}
    assert lookout.metrics.registry.get_sample_value("remediator_vantage_up") == 1.0


async def test_before_it_has_reached_anybody_it_does_not_claim_to_see(lookout):
    lookout.start()
    await asyncio.sleep(20.0)
    assert set(lookout.readings("v1")) == {UNKNOWN}
    lookout.nodes(*NINE)
    await lookout.until_said("v1", UP, 15.0)


async def test_its_zone_is_that_of_the_node_it_runs_on_unless_it_is_told(lookout):
    lookout.nodes(*NINE)
    lookout.start(zone="", node="n2")
    await lookout.settled()
    await asyncio.sleep(10.0)
    assert lookout.life()[-1].zone == "b"


async def test_a_deleted_node_is_forgotten_and_a_new_one_adopted(lookout):
    lookout.nodes(*NINE)
    vantage = lookout.start()
    await lookout.settled()
    del lookout.targets["n9"]
    lookout.nodes("n10")
    await asyncio.sleep(12.0)
    assert lookout.readings("n10") == [UP]
    lookout.network.dials.clear()
    vantage.ask("n9")
    await asyncio.sleep(20.0)
    assert not lookout.network.of("10.0.0.9")
    assert vantage.nodes == 9


async def test_a_node_deleted_while_it_dies_is_not_spoken_of(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    lookout.network.silent.add("10.0.0.2")
    del lookout.targets["n2"]
    await asyncio.sleep(60.0)
    assert not lookout.said("n2")


async def test_another_address_must_be_reached_before_its_silence_counts(lookout):
    lookout.nodes(*NINE)
    lookout.start()
    await lookout.settled()
    lookout.targets["n2"] = Target("n2", "10.0.0.99", 10250, "b")
    lookout.network.silent.add("10.0.0.99")
    await asyncio.sleep(60.0)
    assert set(lookout.readings("n2")) == {UNKNOWN}


async def test_a_node_without_an_address_is_not_probed(lookout):
    lookout.nodes(*NINE)
    lookout.targets["bare"] = Target("bare", "")
    vantage = lookout.start()
    await lookout.settled()
    assert vantage.nodes == 9
