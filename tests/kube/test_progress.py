"""When a reflector may say that it hears the cluster: the proof that makes silence count."""

from __future__ import annotations

import asyncio

import pytest

from tests.kube.reflecting import EPOCH, RecordingSink, Server, reflecting
from tests.kube.scripted import (
    Hang,
    Lines,
    Reset,
    Wait,
    bookmark,
    error_event,
    event,
    node,
    on_virtual_time,
    page,
    status,
)


def beat(name, version):
    return event("MODIFIED", node(name, version))


async def late(seconds, what):
    await asyncio.sleep(seconds)
    return what


@on_virtual_time
async def test_a_list_proves_the_moment_at_which_it_was_asked_for():
    def lists(call):
        if "continue" in call.query:
            return late(7, page(version=9))
        return late(4, page(node("a", 1), version=9, token="t"))

    server = Server(lists=lists, watches=[Lines([Hang()])])
    async with reflecting(server.transport, backoff_cap_s=0.1) as (reflector, sink):
        await asyncio.sleep(10.9)
        assert reflector.last_progress_at == 0.0, "half a list proves nothing"
        await asyncio.sleep(1)
        assert sink.progress == [0.0]
        assert reflector.last_progress_at == EPOCH


@on_virtual_time
async def test_time_alone_proves_nothing():
    server = Server(lists=[page(version=9)], watches=[Lines([Hang()])])
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(3600)
        assert len(server.calls("WATCH")) > 20, "it reconnects, and opening a watch proves nothing"
        assert sink.progress == [0.0]
        assert reflector.last_heard_at == 0.0


@on_virtual_time
async def test_events_and_newer_bookmarks_prove_the_moment_at_which_they_came():
    stream = Lines(
        [Wait(10), beat("a", 10), Wait(10), bookmark(20), Wait(10), beat("b", 21), Hang()]
    )
    server = Server(lists=[page(version=9)], watches=[stream])
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(31)
        assert sink.progress == pytest.approx([0.0, 10.0, 20.0, 30.0])
        assert reflector.last_progress_at == pytest.approx(EPOCH + 30)


@on_virtual_time
async def test_a_bookmark_without_a_newer_version_proves_nothing():
    # An API server that lost its etcd sends these for ever.
    stream = Lines([Wait(10), beat("a", 10), *[Wait(30), bookmark(10)] * 8, Hang()])
    server = Server(lists=[page(version=9)], watches=[stream])
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(230)
        assert sink.progress == pytest.approx([0.0, 10.0])
        assert reflector.last_heard_at == pytest.approx(EPOCH + 220), "it is heard all the same"


@on_virtual_time
async def test_a_replayed_backlog_proves_nothing_until_it_reached_the_present():
    # Cut off for a minute, during which everybody beat; then a slow replay. If the first beat of it
    # counted, the nodes whose beats are still in the pipe would have been silent for a minute.
    first = Lines([Wait(5), beat("a", 10), Hang()])
    replay = [
        beat("a", 50),
        Wait(1),
        beat("b", 51),
        Wait(1),
        beat("c", 99),
        Wait(1),
        beat("a", 100),
    ]
    server = Server(
        lists=[page(version=9)],
        watches=[first, Lines([*replay, Hang()])],
        newest=[page(version=9), page(version=99)],
    )
    async with reflecting(server.transport, inactivity_timeout_s=60) as (_, sink):
        await asyncio.sleep(70)
        start = server.calls("WATCH")[1].at
        assert start >= 65
        assert sink.progress == pytest.approx([0.0, 5.0, start + 2, start + 3], abs=0.01)
        assert [told[1] for told in sink.told if told[0] == "seen"] == ["a", "a", "b", "c", "a"]


@on_virtual_time
async def test_what_happened_during_a_long_list_is_a_backlog_too():
    stream = Lines([Wait(1), beat("a", 30), Wait(1), beat("b", 41), Hang()])
    server = Server(
        lists=lambda _: late(20, page(version=9)), watches=[stream], newest=[page(version=40)]
    )
    async with reflecting(server.transport) as (_, sink):
        await asyncio.sleep(25)
        assert sink.progress == pytest.approx([0.0, 22.0]), "not at 21"


@on_virtual_time
async def test_a_bookmark_ends_a_backlog_where_versions_are_no_numbers():
    stream = Lines(
        [Wait(1), beat("a", "x2"), Wait(1), bookmark("x3"), Wait(1), beat("a", "x4"), Hang()]
    )
    server = Server(lists=[page(version="x1")], watches=[stream], newest=[page(version="x3")])
    async with reflecting(server.transport) as (_, sink):
        await asyncio.sleep(5)
        assert sink.progress == pytest.approx([0.0, 2.0, 3.0])


@on_virtual_time
async def test_a_burst_is_handed_on_before_its_progress():
    burst = [beat(f"n{i}", 10 + i) for i in range(1000)]
    server = Server(lists=[page(version=9)], watches=[Lines([Wait(30), *burst, Hang()])])

    class InOrder(RecordingSink):
        def progressed(self, at):
            self.told.append(("progressed", at - EPOCH))

    async with reflecting(server.transport, sink=InOrder()) as (_, sink):
        await asyncio.sleep(31)
        order = [told[0] for told in sink.told]
        assert order == ["synced", "progressed", *["seen"] * 1000, "progressed"]
        assert sink.told[-1][1] == pytest.approx(30.0)


@on_virtual_time
async def test_a_burst_that_breaks_off_proves_nothing():
    server = Server(
        lists=[page(version=9)],
        watches=[Lines([Wait(30), beat("a", 10), Reset()]), Lines([Hang()])],
    )
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(60)
        assert reflector.store["", "a"].resource_version == "10"
        assert sink.progress == [0.0]


@on_virtual_time
async def test_errors_in_the_stream_prove_nothing():
    server = Server(
        lists=[page(version=9), Hang()], watches=[Lines([Wait(30), error_event(500, "Internal")])]
    )
    async with reflecting(server.transport) as (_, sink):
        await asyncio.sleep(300)
        assert sink.progress == [0.0]


@on_virtual_time
async def test_a_watch_list_proves_the_moment_at_which_it_was_asked_for_once_it_is_complete():
    stream = Lines(
        [
            event("ADDED", node("a", 1)),
            Wait(3),
            event("ADDED", node("b", 2)),
            Wait(3),
            bookmark(20, initial_end=True),
            Wait(3),
            beat("a", 21),
            Hang(),
        ]
    )
    server = Server(watches=[stream])
    async with reflecting(server.transport, watch_list=True) as (reflector, sink):
        await asyncio.sleep(5.5)
        assert reflector.last_progress_at == 0.0
        await asyncio.sleep(5)
        assert sink.progress == pytest.approx([0.0, 9.0])


@on_virtual_time
async def test_progress_never_goes_back():
    stream = Lines([Wait(10), beat("a", 10), Wait(1), error_event(410, "Expired")])
    server = Server(lists=[page(version=9), page(version=30)], watches=[stream, Lines([Hang()])])
    async with reflecting(server.transport) as (_, sink):
        await asyncio.sleep(60)
        assert sink.progress == sorted(sink.progress)
        assert 11 <= sink.progress[-1] <= 12, "the new list"


@on_virtual_time
async def test_without_an_answer_about_the_newest_version_no_watch_is_opened():
    server = Server(lists=[page(version=9)], newest=[status(503, "ServiceUnavailable")])
    async with reflecting(server.transport) as (_, sink):
        await asyncio.sleep(60)
        assert server.calls("WATCH") == []
        assert sink.progress == [0.0]
