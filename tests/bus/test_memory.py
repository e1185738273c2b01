"""The bus of the simulations, on the simulations' own loop: hours pass in no time."""

from __future__ import annotations

import asyncio

import pytest

from remediator.bus import subjects
from remediator.bus.memory import MemoryBus, MemoryJournal
from remediator.bus.protocols import AppendRefusedError, BusUnavailableError
from remediator.sim.virtual_time import VirtualTimeLoop

SUBJECT = "remediator.decision.node.n1"


@pytest.fixture
def virtual():
    """Run a coroutine on virtual time and return what it returned."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(coroutine)

    return run


async def listen(bus: MemoryBus) -> tuple[list[tuple[float, str, bytes]], asyncio.Task[None]]:
    got: list[tuple[float, str, bytes]] = []
    now = asyncio.get_running_loop().time
    task = asyncio.create_task(bus.run(lambda s, p: got.append((now(), s, p))))
    await bus.attached(1)
    return got, task


def test_messages_arrive_in_order_after_their_delay(virtual):
    async def story():
        bus = MemoryBus(delay_s=2.0)
        bus.offer("a", b"before anybody listens")
        got, _ = await listen(bus)
        bus.offer("a", b"1")
        await asyncio.sleep(1)
        bus.offer("b", b"2")
        bus.offer("a", b"3")
        await asyncio.sleep(10)
        return got

    assert virtual(story()) == [(2.0, "a", b"1"), (3.0, "b", b"2"), (3.0, "a", b"3")]


def test_in_an_outage_the_newest_per_subject_waits_and_markers_move_to_the_end(virtual):
    async def story():
        bus = MemoryBus()
        synced = subjects.inventory_synced("Node")
        got, _ = await listen(bus)
        bus.outage = True
        for payload in (b"1", b"2"):
            bus.offer("a", payload)
            bus.offer(synced, payload)
            bus.offer("b", payload)
        flushed = [bus.pending, await bus.flush(60)]
        assert not got
        bus.outage = False
        flushed.append(await bus.flush(60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return flushed, [(s, p) for _, s, p in got], synced

    flushed, got, synced = virtual(story())
    assert flushed == [3, False, True]
    assert got[-2:] in ([("b", b"2"), (synced, b"2")], [(synced, b"2"), ("b", b"2")])
    assert got.index((synced, b"2")) > got.index(("a", b"2"))


def test_the_same_id_is_delivered_once(virtual):
    async def story():
        bus = MemoryBus()
        got, _ = await listen(bus)
        for _ in range(3):
            bus.offer("a", b"x", message_id="one")
        await asyncio.sleep(1)
        return len(got), bus.duplicates

    assert virtual(story()) == (1, 2)


def test_every_running_source_gets_every_message(virtual):
    async def story():
        bus = MemoryBus()
        (first, _), (second, task) = await listen(bus), await listen(bus)
        await asyncio.sleep(0)
        bus.offer("a", b"1")
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        bus.offer("a", b"2")
        await asyncio.sleep(1)
        return len(first), len(second), task.cancelled()

    assert virtual(story()) == (2, 1, True)


def test_an_append_waits_out_a_short_outage_and_gives_up_on_a_long_one(virtual):
    async def story():
        journal = MemoryJournal(append_deadline_s=10.0)
        loop = asyncio.get_running_loop()
        journal.outage = True
        loop.call_later(4.0, setattr, journal, "outage", False)
        seq = await journal.append(SUBJECT, b"1", expected_last_seq=0, message_id="1")
        journal.outage = True
        with pytest.raises(BusUnavailableError):
            await journal.last_seq()
        with pytest.raises(BusUnavailableError):
            await journal.append(SUBJECT, b"2", expected_last_seq=1, message_id="2")
        return seq, loop.time(), len(journal.records)

    assert virtual(story()) == (1, 14.0, 1)


def test_a_lost_acknowledgement_leaves_the_record_stored(virtual):
    async def story():
        journal = MemoryJournal()
        journal.lose_acks = 1
        with pytest.raises(BusUnavailableError, match="unknown"):
            await journal.append(SUBJECT, b"1", expected_last_seq=0, message_id="1")
        return await journal.append(SUBJECT, b"1", expected_last_seq=0, message_id="1")

    assert virtual(story()) == 1


def test_a_refusal_can_be_injected_and_a_twin_deposes_for_real(virtual):
    async def story():
        journal = MemoryJournal()
        journal.refuse = 1
        with pytest.raises(AppendRefusedError, match="injected"):
            await journal.append(SUBJECT, b"1", expected_last_seq=0, message_id="1")
        other = journal.twin()
        journal.outage = True
        await other.append(SUBJECT, b"theirs", expected_last_seq=0, message_id="t")
        journal.outage = False
        with pytest.raises(AppendRefusedError, match="ends at 1"):
            await journal.append(SUBJECT, b"1", expected_last_seq=0, message_id="1")

    virtual(story())


def test_an_append_takes_as_long_as_it_is_told(virtual):
    async def story():
        journal = MemoryJournal(append_delay_s=0.25)
        for n in range(4):
            await journal.append(SUBJECT, b"x", expected_last_seq=n, message_id=str(n))
        return asyncio.get_running_loop().time()

    assert virtual(story()) == 1.0
