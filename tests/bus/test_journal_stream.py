from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

import pytest

from remediator.bus.connection import JetStreamError, connect
from remediator.bus.journal_stream import JournalGapError, JournalSettings, NatsJournal
from remediator.bus.protocols import AppendRefusedError, BusUnavailableError
from remediator.bus.streams import desired_streams, ensure

SUBJECT = "remediator.decision.node.n1"
FAST = JournalSettings(append_deadline_s=15.0, attempt_s=0.4)


async def append(journal: NatsJournal, n: int, text: str = "record") -> int:
    return await journal.append(
        SUBJECT, f"{text} {n}".encode(), expected_last_seq=n - 1, message_id=f"{text}-{n}"
    )


async def seqs(records) -> list[int]:
    return [record.seq async for record in records]


async def test_of_two_writers_exactly_one_wins_each_record(server, connection):
    second = await connect(server.settings, "second")
    writers = [NatsJournal(connection), NatsJournal(second)]
    for n in range(1, 51):
        results = await asyncio.gather(
            *(append(writer, n, f"w{i}") for i, writer in enumerate(writers)),
            return_exceptions=True,
        )
        assert sorted(map(str, map(type, results))) == sorted(map(str, (int, AppendRefusedError)))
    assert await writers[0].last_seq() == 50
    await second.close()


async def test_no_acknowledged_record_is_lost_when_the_server_is_killed(watched, connection):
    journal, rng = NatsJournal(connection, settings=FAST), random.Random(1)
    kills = {rng.randrange(20, 300) for _ in range(4)}
    for n in range(1, 301):
        if n in kills:  # so that the blow falls into an append, sooner or later
            asyncio.get_running_loop().call_later(
                rng.uniform(0, 0.002), os.kill, watched.pid, signal.SIGKILL
            )
        assert await append(journal, n) == n
    assert connection.reconnects >= 3
    assert journal.retried >= 1  # some blows fell into an append
    records = [record async for record in journal.read(1)]
    assert [record.payload for record in records] == [f"record {n}".encode() for n in range(1, 301)]


async def test_an_append_whose_answer_is_lost_returns_where_it_was_stored(server, proxied):
    journal = NatsJournal(proxied, settings=FAST)
    assert await append(journal, 1) == 1
    direct = await connect(server.settings, "direct")
    # The request passes, the answer does not: the fate of the first attempt is unknown.
    client = proxied.client
    real = client._request_sub_callback

    async def deaf(message) -> None:
        del message

    for subscription in client._subs.values():
        if subscription._cb == real:
            subscription._cb = deaf
    assert await append(journal, 2) == 2
    assert journal.retried >= 1
    assert await NatsJournal(direct).last_seq() == 2
    await direct.close()


async def test_a_half_open_link_only_delays_an_append(proxied, proxy):
    journal = NatsJournal(proxied, settings=FAST)
    assert await append(journal, 1) == 1
    proxy.half_open()
    assert await append(journal, 2) == 2
    assert await seqs(journal.read(1)) == [1, 2]


async def test_jetstream_looks_at_the_sequence_before_the_id(connection):
    """What ``append`` rests on; a server that looks at the id first is handled too (below)."""
    headers = {"Nats-Msg-Id": "a", "Nats-Expected-Last-Sequence": "0"}
    await connection.request(SUBJECT, b"x", headers=headers)
    reply = await connection.request(SUBJECT, b"x", headers=headers)
    assert b"10071" in reply.data


async def test_a_duplicate_that_is_not_ours_is_a_refusal(connection):
    """As from a server that looks at the id first: "duplicate", under a foreign payload's id."""
    journal = NatsJournal(connection)
    await journal.append(SUBJECT, b"one", expected_last_seq=0, message_id="same")
    with pytest.raises(AppendRefusedError, match="taken by another record"):
        await journal.append(SUBJECT, b"two", expected_last_seq=1, message_id="same")


async def test_while_nats_is_away_an_append_ends_at_its_deadline(server, connection, until):
    journal = NatsJournal(connection, settings=JournalSettings(append_deadline_s=0.5))
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not connection.connected)
    async with asyncio.timeout(2):
        with pytest.raises(BusUnavailableError, match="unknown"):
            await append(journal, 1)
    with pytest.raises(BusUnavailableError):
        await journal.last_seq()


async def test_a_stopped_server_ends_an_append_at_its_deadline(server, connection, pause):
    settings = JournalSettings(append_deadline_s=0.6, attempt_s=0.2)
    journal = NatsJournal(connection, settings=settings)
    pause(server.pid)
    async with asyncio.timeout(2):
        with pytest.raises(BusUnavailableError, match="unknown"):
            await append(journal, 1)


async def test_an_append_of_unknown_fate_is_stored_once_or_never(server, connection, pause):
    settings = JournalSettings(append_deadline_s=0.6, attempt_s=0.2)
    pause(server.pid)
    with pytest.raises(BusUnavailableError):
        await append(NatsJournal(connection, settings=settings), 1)
    os.kill(server.pid, signal.SIGCONT)
    journal = NatsJournal(connection, settings=FAST)
    assert await append(journal, 1) == 1  # asked again: the same record, whatever happened before
    assert await seqs(journal.read(1)) == [1]


async def test_cancelling_an_append_raises_cancellederror(server, connection, pause):
    pause(server.pid)
    task = asyncio.create_task(append(NatsJournal(connection), 1))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait({task}, timeout=2)
    assert task.cancelled()


async def test_reading_ends_at_what_was_stored_when_it_began(connection):
    journal = NatsJournal(connection)
    for n in range(1, 11):
        await append(journal, n)
    found = []
    async for record in journal.read(4):
        found.append(record.seq)
        if len(found) == 1:
            await append(journal, 11)
    assert found == [4, 5, 6, 7, 8, 9, 10]


async def fill(connection, stream: str, count: int) -> None:
    """Store many records quickly: this is about reading."""
    client = connection.client
    for n in range(1, count):
        await client.publish(f"{stream.lower()}.x", b"%d" % n + b"." * 300)
        if n % 500 == 0:
            await asyncio.sleep(0)
    await connection.request(f"{stream.lower()}.x", b"%d" % count, timeout_s=60)


async def test_a_hundred_thousand_records_are_read_whole_in_seconds(connection):
    spec = next(spec for spec in desired_streams() if spec.name == "HEARTBEATS")
    await ensure(connection, _renamed(spec, "BIG", max_msgs_per_subject=-1))
    await fill(connection, "BIG", 100_000)
    journal = NatsJournal(connection, stream="BIG")
    expected = 1
    async with asyncio.timeout(20):
        async for record in journal.read(1):
            assert record.seq == expected
            expected += 1
    assert expected == 100_001


async def test_a_missing_record_is_told(connection):
    spec = next(spec for spec in desired_streams() if spec.name == "SIGNALS")
    await ensure(connection, _renamed(spec, "GAP"))
    await fill(connection, "GAP", 10)
    await connection.api("STREAM.MSG.DELETE.GAP", {"seq": 5})
    journal = NatsJournal(connection, stream="GAP")
    with pytest.raises(JournalGapError, match="from record 4 to 6"):
        await seqs(journal.read(1))
    assert await seqs(journal.read(6)) == [6, 7, 8, 9, 10]


async def test_a_read_goes_on_over_a_restart(watched, connection):
    journal = NatsJournal(connection, settings=FAST)
    for n in range(1, 101):
        await append(journal, n)
    found = []
    async for record in journal.read(1):
        found.append(record.seq)
        if record.seq == 50:
            os.kill(watched.pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
    assert found == list(range(1, 101))


async def test_a_read_ends_when_nats_stays_away(server, connection, pause):
    journal = NatsJournal(connection, settings=JournalSettings(read_stall_s=1.0))
    for n in range(1, 4):
        await append(journal, n)
    feed = journal.read(1)
    pause(server.pid)
    with pytest.raises(BusUnavailableError):
        async with asyncio.timeout(10):
            await seqs(feed)


async def test_tail_follows_over_kill_and_stop_without_gap_or_repeat(watched, connection, until):
    journal = NatsJournal(connection, settings=FAST)
    found: list[int] = []

    async def follow() -> None:
        async with contextlib.aclosing(journal.tail(3)) as records:
            async for record in records:
                found.append(record.seq)  # noqa: PERF401 - looked at while it grows

    task = asyncio.create_task(follow())
    for n in range(1, 121):
        await append(journal, n)
        if n == 40:
            os.kill(watched.pid, signal.SIGKILL)
        if n == 80:
            pid = watched.pid
            os.kill(pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(1.0, os.kill, pid, signal.SIGCONT)
    await until(lambda: len(found) >= 118, 10)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert found == list(range(3, 121))


async def test_a_journal_that_was_made_anew_is_not_taken_for_the_old_one(connection):
    spec = next(spec for spec in desired_streams() if spec.name == "SIGNALS")
    await ensure(connection, _renamed(spec, "LOST"))
    await fill(connection, "LOST", 10)
    journal = NatsJournal(connection, stream="LOST")
    records = journal.tail(1)
    for _ in range(10):
        await anext(records)
    await connection.api("STREAM.DELETE.LOST")
    await ensure(connection, _renamed(spec, "LOST"))
    await fill(connection, "LOST", 20)
    async with asyncio.timeout(10):
        with pytest.raises(JournalGapError):
            await anext(records)


async def test_a_journal_without_a_stream_is_unavailable(connection):
    journal = NatsJournal(connection, stream="NOPE")
    with pytest.raises(BusUnavailableError, match="NOPE"):
        await journal.last_seq()
    with pytest.raises(JetStreamError):
        await connection.api("STREAM.INFO.NOPE")


def _renamed(spec, name: str, **changes):
    import msgspec  # noqa: PLC0415 - only here

    return msgspec.structs.replace(
        spec, name=name, subjects=(f"{name.lower()}.>",), vital=(), max_bytes=-1, **changes
    )
