from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter

import nats.errors
import nats.js.errors
import pytest

from remediator.bus import subjects
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.publisher import Publisher, PublisherSettings
from remediator.bus.streams import ensure_all


def beat(n: int) -> str:
    return subjects.heartbeat("lease", "node", f"n{n}")


def go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # killed meanwhile
        os.kill(pid, signal.SIGCONT)


async def stored(connection, stream: str) -> list[tuple[str, bytes]]:
    """Return what the stream holds, in its order."""
    client, found = connection.client, []
    subscription = await client.subscribe(client.new_inbox())
    state = (await connection.api(f"STREAM.INFO.{stream}"))["state"]
    if state["messages"]:
        await connection.api(
            f"CONSUMER.CREATE.{stream}",
            {
                "stream_name": stream,
                "config": {"deliver_subject": subscription.subject, "ack_policy": "none"},
            },
        )
        while len(found) < state["messages"]:
            message = await subscription.next_msg(timeout=5)
            found.append((message.subject, message.data))
    await subscription.unsubscribe()
    return found


async def test_what_is_offered_is_stored_newest_per_subject(connection, run):
    publisher = Publisher(connection)
    for value in range(3):
        for n in range(1000):
            publisher.offer(beat(n), b"%d" % value)
    assert publisher.pending == 1000
    async with run(publisher.run()):
        assert await publisher.flush(10)
    assert await stored(connection, "HEARTBEATS") == [(beat(n), b"2") for n in range(1000)]
    assert (publisher.published, publisher.pending, publisher.dropped) == (1000, 0, 0)


async def test_the_window_is_never_exceeded(connection, run):
    publisher = Publisher(connection, settings=PublisherSettings(window=16))
    peak = 0
    send = connection.client.publish

    async def publish(*args, **kwargs):
        nonlocal peak
        await send(*args, **kwargs)
        peak = max(peak, publisher.in_flight)

    connection.client.publish = publish
    for n in range(500):
        publisher.offer(beat(n), b"x")
    async with run(publisher.run()):
        assert await publisher.flush(10)
    assert peak == 16


async def test_the_same_id_is_stored_once(connection, run):
    publisher = Publisher(connection)
    subject = subjects.signal("power", "node", "n1")
    async with run(publisher.run()):
        for _ in range(3):
            publisher.offer(subject, b"off", message_id="fixed")
            assert await publisher.flush(5)
        publisher.offer(subject, b"off")  # without an id each offer is a message of its own
        assert await publisher.flush(5)
    assert len(await stored(connection, "SIGNALS")) == 2
    assert publisher.duplicates == 2


async def test_acks_that_die_with_the_server_leak_nothing(watched, connection, run, until, pause):
    """nats-py's publish_async loses a permit for each of them, for ever."""
    subject = [subjects.decision("node", f"n{n}") for n in range(200)]
    publisher = Publisher(connection, settings=PublisherSettings(window=32))
    async with run(publisher.run()):
        for round_ in range(3):
            reconnects, pid = connection.reconnects, watched.pid
            pause(pid)
            for n in range(200):
                publisher.offer(subject[n], b"%d" % round_)
            await until(lambda: publisher.in_flight == 32, 5)
            os.kill(pid, signal.SIGKILL)
            await until(lambda r=reconnects: connection.reconnects > r, 15)
            assert await publisher.flush(15)
        assert publisher.in_flight == 0
        assert publisher.retried >= 32
    assert Counter(await stored(connection, "DECISIONS")) == Counter(
        (subject[n], b"%d" % round_) for n in range(200) for round_ in range(3)
    )


async def test_an_overdue_message_is_repeated_and_stored_once(
    server, connection, run, until, pause
):
    settings = PublisherSettings(ack_timeout_s=0.3)
    publisher = Publisher(connection, settings=settings)
    subject = subjects.signal("power", "node", "n1")
    async with run(publisher.run()):
        publisher.offer(subject, b"warm up")
        assert await publisher.flush(5)
        pause(server.pid)
        publisher.offer(subject, b"off")
        await until(lambda: publisher.retried >= 2, 5)
        os.kill(server.pid, signal.SIGCONT)  # both copies arrive now
        assert await publisher.flush(10)
    assert await stored(connection, "SIGNALS") == [(subject, b"warm up"), (subject, b"off")]


async def test_a_half_open_link_costs_no_message(proxied, proxy, run):
    publisher = Publisher(proxied, settings=PublisherSettings(ack_timeout_s=0.5))
    async with run(publisher.run()):
        publisher.offer(beat(0), b"before")
        assert await publisher.flush(5)
        proxy.half_open()
        for n in range(1000):
            publisher.offer(beat(n), b"after")
        assert await publisher.flush(15)
    assert proxied.reconnects >= 1
    assert Counter(await stored(proxied, "HEARTBEATS")) == Counter(
        (beat(n), b"after") for n in range(1000)
    )


async def test_away_the_newest_per_subject_waits_and_no_buffer_overflows(
    watched, connection, run, until
):
    """nats-py would buffer 2 MB and then raise OutboundBufferLimitError."""
    publisher = Publisher(connection)
    async with run(publisher.run()):
        os.kill(watched.pid, signal.SIGSTOP)
        os.kill(watched.pid, signal.SIGKILL)
        await until(lambda: not connection.connected)
        for value in range(5):
            for n in range(500):
                publisher.offer(beat(n), b"%d" % value + b"x" * 4000)  # 10 MB in all
        assert publisher.pending == 500
        assert await publisher.flush(15)
    assert dict(await stored(connection, "HEARTBEATS")) == {
        beat(n): b"4" + b"x" * 4000 for n in range(500)
    }
    assert publisher.dropped == 0


async def test_natspy_still_overflows_offline(server, connection, until):
    """What the test above is about: if this fails, nats-py was changed."""
    client = connection.client
    client._max_pending_size = 2 * 1024 * 1024
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not connection.connected)
    for _ in range(2):
        await client.publish(beat(0), b"x" * 900_000)
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        await client.publish(beat(0), b"x" * 900_000)


async def test_a_missing_stream_is_waited_for(connection, run, until):
    await connection.api("STREAM.DELETE.HEARTBEATS")
    publisher = Publisher(connection, settings=PublisherSettings(retry_s=0.05))
    async with run(publisher.run()):
        for n in range(10):
            publisher.offer(beat(n), b"x")
        await until(lambda: publisher.retried >= 20)
        assert publisher.published == 0
        await ensure_all(connection)
        assert await publisher.flush(5)
    assert publisher.published == 10


async def test_a_message_that_nats_will_never_take_is_refused_and_does_not_block(connection, run):
    publisher = Publisher(connection)
    async with run(publisher.run()):
        publisher.offer(beat(0), b"x" * 2_000_000)
        publisher.offer(beat(1), b"x")
        assert await publisher.flush(5)
    assert (publisher.refused, publisher.published, publisher.in_flight) == (1, 1, 0)


async def test_cancelling_raises_cancellederror_in_every_state(server, connection, until, pause):
    """nats-py's publish_async turns it into TooManyStalledMsgsError."""
    publisher = Publisher(connection, settings=PublisherSettings(window=4))
    for state in ("idle", "window full", "away"):
        task = asyncio.create_task(publisher.run())
        if state == "window full":
            pause(server.pid)
            for n in range(50):
                publisher.offer(beat(n), b"x")
            await until(lambda: publisher.in_flight == 4)
        elif state == "away":
            os.kill(server.pid, signal.SIGKILL)
            await until(lambda: not connection.connected)
        else:
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task}, timeout=2)
        assert task.cancelled(), state
    assert publisher.pending == 50  # nothing is lost by it: another run may go on


async def test_natspy_still_swallows_the_cancellation(server, connection, pause):
    """What the test above is about: if this fails, nats-py was repaired."""
    js = connection.client.jetstream(publish_async_max_pending=1)
    await (await js.publish_async(beat(0), b"x"))
    pause(server.pid)
    await js.publish_async(beat(1), b"x")
    task = asyncio.create_task(js.publish_async(beat(2), b"x"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(nats.js.errors.TooManyStalledMsgsError):
        await task


async def test_a_marker_never_overtakes_through_kills_and_stops(watched, connection, run):
    """Each marker carries how many beats were offered before it; all must be stored by then.

    DECISIONS keeps every message, through kills too, so its order shows what overtook what.
    """
    rng = random.Random(7)
    publisher = Publisher(connection, settings=PublisherSettings(window=32, ack_timeout_s=0.4))
    offered = 0
    marker = subjects.decision("watch", "w")
    async with run(publisher.run()):
        for round_ in range(30):
            for _ in range(rng.randrange(1, 80)):
                publisher.offer(subjects.decision("node", f"n{offered}"), b"%d" % offered)
                offered += 1
            publisher.offer(marker, b"%d" % offered, barrier=True)
            if round_ in (8, 20):
                os.kill(watched.pid, signal.SIGKILL)
            elif round_ == 14:
                pid = watched.pid
                os.kill(pid, signal.SIGSTOP)
                asyncio.get_running_loop().call_later(1.0, go_on, pid)
            await asyncio.sleep(rng.uniform(0, 0.1))
        assert await publisher.flush(30)
    assert connection.reconnects >= 2
    beats, markers = set(), 0
    for subject, payload in await stored(connection, "DECISIONS"):
        if subject == marker:
            markers += 1
            assert beats >= set(range(int(payload)))
        else:
            assert int(payload) not in beats, "stored twice"
            beats.add(int(payload))
    assert beats == set(range(offered))
    assert markers >= 2


async def test_a_marker_offered_again_moves_behind_what_came_between(connection, run):
    publisher = Publisher(connection)
    synced = subjects.inventory_synced("Node")
    publisher.offer(subjects.inventory("Node", "a"), b"1")
    publisher.offer(synced, b"first")
    publisher.offer(subjects.inventory("Node", "b"), b"2")
    publisher.offer(synced, b"second")
    publisher.offer(subjects.inventory("Node", "c"), b"3")
    async with run(publisher.run()):
        assert await publisher.flush(5)
    names = [subject.rpartition(".")[2] for subject, _ in await stored(connection, "INVENTORY")]
    assert names.index("a") < names.index("Node")
    assert names.index("b") < names.index("Node")
    assert (synced, b"second") in await stored(connection, "INVENTORY")


async def test_a_marker_offered_over_and_over_is_not_put_off_for_ever(connection, run):
    """Progress is told once a second; a queue that takes longer must not silence it."""
    publisher = Publisher(connection)
    marker = subjects.decision("watch", "w")
    for n in range(10):
        publisher.offer(subjects.decision("node", f"n{n}"), b"x")
        publisher.offer(marker, b"%d" % n, barrier=True)
    assert publisher.pending == 12
    async with run(publisher.run()):
        assert await publisher.flush(5)
    order = [
        payload.decode() if subject == marker else "x"
        for subject, payload in await stored(connection, "DECISIONS")
    ]
    assert order == ["x", "0", *["x"] * 9, "9"]


async def test_a_newer_message_of_a_subject_is_never_stored_before_the_older(
    watched, connection, run
):
    publisher = Publisher(connection, settings=PublisherSettings(window=16, ack_timeout_s=0.3))
    rng = random.Random(3)
    async with run(publisher.run()):
        for value in range(400):
            publisher.offer(subjects.decision("node", f"n{value % 5}"), b"%d" % value)
            if value in (100, 250):
                os.kill(watched.pid, signal.SIGKILL)
            if value % 10 == 0:
                await asyncio.sleep(rng.uniform(0, 0.05))
        assert await publisher.flush(20)
    last: dict[str, int] = {}
    for subject, payload in await stored(connection, "DECISIONS"):
        assert last.get(subject, -1) < int(payload)
        last[subject] = int(payload)
    assert sorted(last.values()) == [395, 396, 397, 398, 399]


async def test_an_overflow_is_counted_and_withholds_markers_until_all_is_offered_again(
    server, connection, run, until, pause
):
    pause(server.pid)
    publisher = Publisher(connection, settings=PublisherSettings(waiting_max=100))
    synced = subjects.inventory_synced("Node")

    def offer_all() -> None:
        for n in range(40):
            publisher.offer(subjects.inventory("Node", f"n{n}"), b"again")
        publisher.offer(synced, b"all 40 are there")

    publisher.on_loss.append(offer_all)
    for n in range(150):
        publisher.offer(subjects.inventory("Node", f"n{n}"), b"first")
    assert (publisher.dropped, publisher.lossy) == (50, True)
    publisher.offer(synced, b"a lie")
    assert publisher.withheld == 1
    os.kill(server.pid, signal.SIGCONT)
    async with run(publisher.run()):
        await until(lambda: not publisher.lossy)
        assert await publisher.flush(5)
    messages = await stored(connection, "INVENTORY")
    assert (synced, b"all 40 are there") in messages
    assert (subjects.inventory("Node", "n39"), b"again") in messages


async def test_bytes_are_bounded_too(connection):
    publisher = Publisher(connection, settings=PublisherSettings(waiting_bytes_max=10_000))
    for n in range(20):
        publisher.offer(beat(n), b"x" * 1000)
    assert (publisher.pending, publisher.dropped) == (10, 10)


async def test_flush_tells_when_it_did_not_come_true(connection):
    publisher = Publisher(connection)
    assert await publisher.flush(0.01)
    publisher.offer(beat(0), b"x")
    assert not await publisher.flush(0.05)


async def test_a_timed_out_publish_of_natspy_is_sent_after_reconnect(watched, connection, until):
    """Why a timeout means "unknown", and why the ids must stay the same."""
    client, subject = connection.client, subjects.signal("power", "node", "n1")
    headers = {"Nats-Msg-Id": "one"}
    os.kill(watched.pid, signal.SIGSTOP)
    with pytest.raises(nats.errors.TimeoutError):
        await client.request(subject, b"off", timeout=0.2, headers=headers)
    os.kill(watched.pid, signal.SIGKILL)
    await until(lambda: not connection.connected)
    with pytest.raises(nats.errors.TimeoutError):
        await client.request(subject, b"off", timeout=0.05, headers=headers)
    await connection.wait_connected(10)
    with pytest.raises(BusUnavailableError):
        await connection.request("nobody.listens", timeout_s=0.5)
    await connection.request(subject, b"off", headers=headers)
    assert await stored(connection, "SIGNALS") == [(subject, b"off")]


# --- dead letters ---------------------------------------------------------------------------------


async def test_no_dead_letter_takes_the_place_of_another(connection, run):
    publisher = Publisher(connection)
    subject = subjects.dead_letter("not-json", beat(1))
    for n in range(100):
        publisher.bury(subject, b"%d" % n, {"Remediator-Reason": "not-json"})
    async with run(publisher.run()):
        assert await publisher.flush(10)
    assert await stored(connection, "DEAD_LETTERS") == [(subject, b"%d" % n) for n in range(100)]
    message = await connection.client.jetstream().get_msg("DEAD_LETTERS", 1)
    assert message.headers["Remediator-Reason"] == "not-json"


async def test_dead_letters_without_a_stream_hold_back_neither_beats_nor_marks(connection, run):
    await connection.api("STREAM.DELETE.DEAD_LETTERS")
    publisher = Publisher(connection)
    for n in range(600):  # more than fit into the window
        publisher.bury(subjects.dead_letter("not-json", "remediator.signal.x"), b"x", {"a": "b"})
        publisher.offer(beat(n), b"x")
    publisher.offer(subjects.watch_progress("leases"), b"mark")
    async with run(publisher.run()):
        assert await publisher.flush(10)
    assert (publisher.published, publisher.unburied, publisher.lossy) == (601, 600, False)
    assert (await stored(connection, "HEARTBEATS"))[-1][1] == b"mark"


async def test_dead_letters_leave_half_of_the_room_to_observations(connection):
    publisher = Publisher(connection, settings=PublisherSettings(waiting_max=10))
    for _ in range(50):
        publisher.bury(subjects.dead_letter("not-json", "remediator.signal.x"), b"x", {"a": "b"})
    assert (publisher.pending, publisher.unburied) == (6, 44)
    for n in range(4):
        publisher.offer(beat(n), b"x")
    assert (publisher.dropped, publisher.lossy) == (0, False)
