from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from remediator.bus.protocols import AppendRefusedError, BusUnavailableError
from remediator.engine.chain import ChainError
from remediator.engine.model import Subject, vm_subject
from remediator.journal.replay import replay
from remediator.journal.writer import JournalWriter, message_id, subject_of
from remediator.metrics import Metrics


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


async def test_appends_the_very_bytes_under_the_subject_of_what_it_is_about(stream, book, metrics):
    writer = JournalWriter(stream, metrics=metrics)
    await writer.append(*book.write(subject=vm_subject("shop", "db.blue")))
    (record,) = stream.records
    assert record.subject == "remediator.decision.vm.shop/db_blue"
    assert record.payload == book.written[0][1]
    assert record.seq == 1


async def test_logs_and_counts_only_what_was_acknowledged(stream, book, metrics):
    writer = JournalWriter(stream, metrics=metrics)
    stream.down = True
    decision, payload = book.write()
    with capture_logs() as lines:
        with pytest.raises(BusUnavailableError):
            await writer.append(decision, payload)
        assert lines == []
        stream.down = False
        await writer.append(decision, payload)
    assert [line["event"] for line in lines] == ["decision"]
    assert b"remediator_journal_head_seq 1.0" in metrics.render()


async def test_a_second_writer_is_refused(stream, book, metrics):
    writer = JournalWriter(stream, metrics=metrics)
    await writer.append(*book.write())
    stream.put(b"somebody else's record")
    with pytest.raises(AppendRefusedError):
        await writer.append(*book.write())


async def test_a_repeat_succeeds_even_after_nats_forgot_the_message_id(stream, book, metrics):
    writer = JournalWriter(stream, metrics=metrics)
    decision, payload = book.write()
    await writer.append(decision, payload)
    stream.ids.clear()
    await writer.append(decision, payload)
    assert len(stream.records) == 1


async def test_a_bus_that_never_answers_is_given_up_at_the_deadline(stream, book, metrics):
    stream.hang = True
    writer = JournalWriter(stream, deadline_s=0.02, metrics=metrics)
    with pytest.raises(
        BusUnavailableError, match=r"decision 1 was not acknowledged within 0\.02 s"
    ):
        await writer.append(*book.write())


async def test_cancelling_an_append_is_cancelling(stream, book, metrics):
    stream.hang = True
    task = asyncio.create_task(JournalWriter(stream, metrics=metrics).append(*book.write()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_message_ids_tell_records_of_one_sequence_apart(book):
    decision, payload = book.write()
    assert message_id(decision, payload) == message_id(decision, payload)
    assert message_id(decision, payload) != message_id(decision, payload + b" ")
    assert message_id(decision, payload).startswith("dec-1-")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vm_1", "vm-1"), ("host.domain", "host_domain"), ("", "unnamed"), ("a b*>", "a-b--")],
)
def test_any_identity_of_a_daemon_makes_a_legal_subject(book, name, expected):
    decision, _ = book.write(subject=Subject("daemon", name))
    assert subject_of(decision) == f"remediator.decision.daemon.{expected}"


async def test_replay_yields_what_was_appended(stream, book):
    for _ in range(3):
        stream.put(book.write()[1])
    assert [pair async for pair in replay(stream)] == book.written
    head = book.head
    assert [pair async for pair in replay(stream, head)] == []


async def test_replay_names_the_first_bad_record(stream, book):
    for _ in range(4):
        stream.put(book.write()[1])
    altered = stream.records[1].payload.replace(b"because", b"becauze")
    stream.records[1] = type(stream.records[1])(2, "x", altered)
    with pytest.raises(ChainError) as caught:
        [pair async for pair in replay(stream)]
    assert caught.value.seq == 3  # record 3 is the first that does not follow what stands before it


async def test_replay_calls_bytes_that_are_not_text_a_broken_chain(stream, book):
    stream.put(book.write()[1])
    stream.put(b'{"why":"\xff"}')
    with pytest.raises(ChainError, match="record 2: not a decision record"):
        [pair async for pair in replay(stream)]
