"""The power probe: slow in peace, at once when asked, and doubt is never "off"."""

from __future__ import annotations

import asyncio

import msgspec

from remediator.engine.model import Plane, Reading


async def test_in_peace_each_node_is_polled_about_once_a_minute_and_spread_out(lab):
    lab.nodes = [f"n{i}" for i in range(60)]
    lab.start()
    await asyncio.sleep(600)
    assert 560 <= len(lab.bmcs.polls) <= 680
    per_second = [0] * 601
    for at, _ in lab.bmcs.polls:
        per_second[int(at)] += 1
    assert max(per_second) <= 8


async def test_in_peace_an_unchanged_reading_is_published_once_and_refreshed(lab):
    lab.start()
    await asyncio.sleep(280)
    assert len(lab.published.of("n1")) == 1
    signal = lab.published.of("n1")[0]
    assert (signal.plane, signal.reading, signal.source) == (Plane.POWER, Reading.UP, "bmc n1")
    await asyncio.sleep(180)
    assert len(lab.published.of("n1")) == 2


async def test_in_peace_a_change_is_published(lab):
    lab.start()
    await asyncio.sleep(100)
    lab.bmcs.reading = Reading.DOWN
    await asyncio.sleep(100)
    assert [s.reading for s in lab.published.of("n1")] == [Reading.UP, Reading.DOWN]


async def test_an_asked_node_is_polled_at_once_then_every_two_seconds_for_a_minute(lab):
    probe = lab.start()
    await asyncio.sleep(100)
    lab.bmcs.polls.clear()
    lab.published.offers.clear()
    asked_at = asyncio.get_running_loop().time()
    probe.ask("n1")
    await asyncio.sleep(0.2)
    assert len(lab.published.of("n1")) == 1
    assert lab.bmcs.polls[0][0] == asked_at
    await asyncio.sleep(58)
    assert 28 <= len(lab.bmcs.polls) <= 31
    # Every reading that was asked for is published, changed or not.
    assert len(lab.published.of("n1")) >= len(lab.bmcs.polls) - 1
    before = len(lab.bmcs.polls)
    await asyncio.sleep(120)
    assert len(lab.bmcs.polls) - before <= 5


async def test_asking_again_prolongs_it_and_asks_no_faster(lab):
    probe = lab.start()
    for _ in range(600):
        probe.ask("n1")
        await asyncio.sleep(0.1)
    assert 28 <= len(lab.bmcs.polls) <= 32
    before = len(lab.bmcs.polls)
    await asyncio.sleep(50)
    assert 23 <= len(lab.bmcs.polls) - before <= 27


async def test_a_node_may_be_asked_before_it_is_known(lab):
    lab.nodes = []
    probe = lab.start()
    probe.ask("n9")
    await asyncio.sleep(1)
    assert len(lab.published.of("n9")) == 1


async def test_a_timeout_is_unknown_and_never_off(lab):
    lab.bmcs.reading = Reading.DOWN
    lab.bmcs.delay_s = 1000.0
    probe = lab.start()
    probe.ask("n1")
    await asyncio.sleep(9)
    signal = lab.published.of("n1")[0]
    assert (signal.reading, signal.detail) == (Reading.UNKNOWN, "no answer in 8 s")


async def test_an_error_is_unknown_and_ends_nothing(lab):
    lab.bmcs.error = RuntimeError("lost")
    probe = lab.start()
    probe.ask("n1")
    await asyncio.sleep(1)
    signal = lab.published.of("n1")[0]
    assert (signal.reading, signal.detail) == (Reading.UNKNOWN, "RuntimeError: lost")
    lab.bmcs.error = None
    await asyncio.sleep(2)
    assert lab.published.of("n1")[-1].reading is Reading.UP


async def test_polls_in_flight_are_bounded(lab):
    lab.nodes = [f"n{i}" for i in range(200)]
    lab.bmcs.delay_s = 1000.0
    lab.start()
    await asyncio.sleep(300)
    assert lab.bmcs.most_in_flight == lab.settings.in_flight_peace
    assert len({node for _, node in lab.bmcs.polls}) == 200  # each gets its turn


async def test_a_dead_rack_does_not_delay_an_asked_node(lab):
    lab.nodes = [f"n{i}" for i in range(200)]
    lab.bmcs.delay_s = 1000.0
    probe = lab.start()
    await asyncio.sleep(100)
    lab.bmcs.polls.clear()
    asked_at = asyncio.get_running_loop().time()
    idle = next(n for n in lab.nodes if not probe._watches[n].polling)
    probe.ask(idle)
    await asyncio.sleep(0.01)
    assert (asked_at, idle) in lab.bmcs.polls


async def test_asked_polls_in_flight_are_bounded_too(lab):
    lab.settings = msgspec.structs.replace(lab.settings, in_flight_asked=4)
    lab.bmcs.delay_s = 1000.0
    lab.nodes = []
    probe = lab.start()
    for i in range(50):
        probe.ask(f"n{i}")
    await asyncio.sleep(50)
    assert lab.bmcs.most_in_flight == 4


async def test_a_deleted_node_is_polled_no_more_and_a_new_one_is(lab):
    lab.start()
    await asyncio.sleep(100)
    lab.nodes = ["n2"]
    await asyncio.sleep(70)
    lab.bmcs.polls.clear()
    await asyncio.sleep(120)
    assert {node for _, node in lab.bmcs.polls} == {"n2"}


async def test_an_answer_to_a_poll_in_flight_counts_as_asked(lab):
    lab.bmcs.delay_s = 3.0
    probe = lab.start()
    await asyncio.sleep(100)
    before = len(lab.published.of("n1"))
    while not probe._watches["n1"].polling:
        await asyncio.sleep(0.1)
    probe.ask("n1")
    await asyncio.sleep(3.2)
    assert len(lab.published.of("n1")) == before + 1
