"""One journal contract, held to the journal on NATS and to the one of the simulations."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from remediator.bus.journal_stream import NatsJournal
from remediator.bus.memory import MemoryJournal
from remediator.bus.protocols import AppendRefusedError, StoredRecord

SUBJECT = "remediator.decision.node.n1"


@pytest.fixture(params=["memory", "nats"])
def journal(request):
    if request.param == "memory":
        return MemoryJournal()
    return NatsJournal(request.getfixturevalue("connection"))


async def write(journal, n: int) -> int:
    return await journal.append(SUBJECT, b"r%d" % n, expected_last_seq=n - 1, message_id=f"m{n}")


async def test_an_empty_journal(journal):
    assert await journal.last_seq() == 0
    assert [record async for record in journal.read(1)] == []


async def test_records_come_back_as_they_were_written(journal):
    assert [await write(journal, n) for n in (1, 2, 3)] == [1, 2, 3]
    assert await journal.last_seq() == 3
    assert [record async for record in journal.read(2)] == [
        StoredRecord(2, SUBJECT, b"r2"),
        StoredRecord(3, SUBJECT, b"r3"),
    ]
    assert len([record async for record in journal.read(0)]) == 3
    assert [record async for record in journal.read(4)] == []


@pytest.mark.parametrize("expected", [0, 1, 3, 7])
async def test_another_last_sequence_is_refused_and_nothing_is_stored(journal, expected):
    await write(journal, 1)
    await write(journal, 2)
    with pytest.raises(AppendRefusedError):
        await journal.append(SUBJECT, b"x", expected_last_seq=expected, message_id="x")
    assert await journal.last_seq() == 2


async def test_a_repeat_returns_where_it_was_stored(journal):
    for n in (1, 2, 3):
        await write(journal, n)
    assert await write(journal, 2) == 2
    assert await write(journal, 3) == 3
    assert await journal.last_seq() == 3


async def test_the_same_bytes_under_another_id_are_no_repeat(journal):
    await write(journal, 1)
    with pytest.raises(AppendRefusedError):
        await journal.append(SUBJECT, b"r1", expected_last_seq=0, message_id="other")


async def test_the_same_id_with_other_bytes_is_refused(journal):
    await write(journal, 1)
    for expected in (0, 1):
        with pytest.raises(AppendRefusedError):
            await journal.append(SUBJECT, b"no", expected_last_seq=expected, message_id="m1")
    assert await journal.last_seq() == 1


async def test_a_repeat_at_a_later_end_returns_the_first_place(journal):
    await write(journal, 1)
    await write(journal, 2)
    seq = await journal.append(SUBJECT, b"r1", expected_last_seq=2, message_id="m1")
    assert (seq, await journal.last_seq()) == (1, 2)


async def test_tail_yields_what_is_there_and_then_what_comes(journal):
    await write(journal, 1)
    await write(journal, 2)
    async with asyncio.timeout(10), contextlib.aclosing(journal.tail(2)) as records:
        assert (await anext(records)).seq == 2
        coming = asyncio.ensure_future(anext(records))
        await asyncio.sleep(0.02)
        assert not coming.done()
        await write(journal, 3)
        assert (await coming).payload == b"r3"


async def test_of_many_appends_at_once_one_wins(journal):
    results = await asyncio.gather(
        *(
            journal.append(SUBJECT, b"%d" % n, expected_last_seq=0, message_id=f"{n}")
            for n in range(20)
        ),
        return_exceptions=True,
    )
    assert [result for result in results if not isinstance(result, AppendRefusedError)] == [1]
