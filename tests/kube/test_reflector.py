"""Lists, watches, and what a reflector does when they break. All on virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest
import structlog

from remediator.clock import Clock
from remediator.kube.objects import LAUNCHER_PODS, NODES
from remediator.kube.reflector import Reflector, ReflectorSettings
from tests.kube.reflecting import EPOCH, RecordingSink, Server, reflecting
from tests.kube.scripted import (
    Hang,
    Lines,
    Reset,
    Wait,
    answer,
    bookmark,
    error_event,
    event,
    node,
    on_virtual_time,
    page,
    status,
)

QUIET = Lines([Hang()])


def names(reflector):
    return sorted(name for _, name in reflector.store)


@on_virtual_time
async def test_the_first_list_is_reported_page_by_page_and_then_synced_once():
    def lists(call):
        if "continue" in call.query:
            return page(node("c", 3), version=9)
        return page(node("a", 1), node("b", 2), version=9, token="t")

    server = Server(lists=lists, watches=[QUIET])
    async with reflecting(server.transport, page_limit=2) as (reflector, sink):
        await asyncio.sleep(1)
        assert sink.take() == [
            ("seen", "a", None, "1", True),
            ("seen", "b", None, "2", True),
            ("seen", "c", None, "3", True),
            ("synced",),
        ]
        assert reflector.synced
        assert reflector.store["", "a"].resource_version == "1"
    assert [call.query.get("limit") for call in server.calls("LIST")] == ["2", "2"]
    assert all("resourceVersion" not in call.query for call in server.calls("LIST"))


@on_virtual_time
async def test_a_watch_begins_at_the_lists_version_with_bookmarks_and_a_jittered_end():
    server = Server(lists=[page(version=9)], watches=[QUIET])
    async with reflecting(server.transport, resource=LAUNCHER_PODS):
        await asyncio.sleep(1)
    query = server.calls("WATCH")[0].query
    assert 240 <= int(query.pop("timeoutSeconds")) <= 300
    assert query == {
        "watch": "true",
        "resourceVersion": "9",
        "allowWatchBookmarks": "true",
        "labelSelector": "kubevirt.io=virt-launcher",
    }
    assert server.calls("LIST")[0].query["labelSelector"] == "kubevirt.io=virt-launcher"
    assert server.calls("PROBE")[0].query == {"limit": "1"}, "cheap, whatever the selector"


@on_virtual_time
async def test_changes_are_reported_with_what_was_before():
    changes = [
        event("ADDED", node("b", 10)),
        event("MODIFIED", node("a", 11)),
        event("MODIFIED", node("a", 11)),
        event("DELETED", node("b", 12)),
        event("DELETED", node("never-seen", 13)),
    ]
    server = Server(lists=[page(node("a", 1), version=9)], watches=[Lines([*changes, Hang()])])
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(1)
        assert sink.take()[2:] == [
            ("seen", "b", None, "10", False),
            ("seen", "a", "1", "11", False),
            ("gone", "b", "12"),
        ]
        assert names(reflector) == ["a"]


@on_virtual_time
async def test_a_broken_watch_goes_on_where_it_broke_without_a_new_list():
    first = Lines([event("MODIFIED", node("a", 10)), bookmark(20), Wait(1), Reset()])
    server = Server(lists=[page(node("a", 1), version=9)], watches=[first, QUIET])
    async with reflecting(server.transport):
        await asyncio.sleep(10)
    assert [call.query["resourceVersion"] for call in server.calls("WATCH")] == ["9", "20"]
    assert len(server.calls("LIST")) == 1


@on_virtual_time
async def test_a_watch_that_ends_in_order_after_its_time_goes_on_at_once():
    long = Lines([Wait(240), bookmark(10)])
    server = Server(lists=[page(version=9)], watches=[long, QUIET])
    async with reflecting(server.transport, inactivity_timeout_s=300):
        await asyncio.sleep(241)
    assert [round(call.at) for call in server.calls("WATCH")] == [0, 240]


@pytest.mark.parametrize(
    "end",
    [
        Lines([error_event(410, "Expired")]),
        Lines([event("MODIFIED", node("a", 10)), error_event(410, "Gone")]),
        Lines([error_event(500, "InternalError")]),
        status(410, "Expired"),
        status(400, "BadRequest"),
        status(404, "NotFound"),
    ],
    ids=["in-stream", "after events", "any error", "http 410", "http 400", "http 404"],
)
@on_virtual_time
async def test_a_version_that_no_longer_works_means_a_new_list_never_the_same_version(end):
    server = Server(lists=[page(version=9), page(version=30)], watches=[end, QUIET])
    async with reflecting(server.transport):
        await asyncio.sleep(30)
    assert len(server.calls("LIST")) == 2
    assert [call.query["resourceVersion"] for call in server.calls("WATCH")] == ["9", "30"]


@on_virtual_time
async def test_a_relist_reports_only_what_changed_and_what_is_gone():
    before = page(node("same", 1), node("changed", 2), node("gone", 3), node("again", 4), version=9)
    after = page(
        node("same", 1),
        node("changed", 22),
        node("again", 24, uid="other"),
        node("new", 25),
        version=30,
    )
    server = Server(lists=[before, after], watches=[Lines([error_event(410, "Expired")]), QUIET])
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(30)
        told = sink.take()
        assert told[told.index(("synced",)) + 1 :] == [
            ("seen", "changed", "2", "22", False),
            ("gone", "again", "4"),
            ("seen", "again", None, "24", False),
            ("seen", "new", None, "25", False),
            ("gone", "gone", "3"),
        ]
        assert names(reflector) == ["again", "changed", "new", "same"]


@on_virtual_time
async def test_a_snapshot_that_expires_between_pages_is_read_anew_in_one_piece():
    def lists(call):
        if "continue" in call.query:
            return status(410, "Expired")
        if "limit" in call.query:
            return page(node("deleted-meanwhile", 1), version=9, token="t")
        return page(node("a", 12), version=15)

    server = Server(lists=lists, watches=[QUIET])
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(1)
        assert names(reflector) == ["a"]
        assert ("gone", "deleted-meanwhile", "1") in sink.told
        assert sink.told[-1] == ("synced",)
    assert server.calls("WATCH")[0].query["resourceVersion"] == "15"


@on_virtual_time
async def test_a_list_that_breaks_midway_deletes_nothing_and_does_not_sync():
    answers = iter([page(node("a", 1), version=9, token="t"), Reset()])

    server = Server(lists=lambda _: next(answers, Hang()))
    async with reflecting(server.transport, backoff_cap_s=0.1) as (reflector, sink):
        await asyncio.sleep(10)
        assert sink.told == [("seen", "a", None, "1", True)]
        assert not reflector.synced
        assert reflector.last_progress_at == 0.0


# --- trouble: nothing is asked for in a hot loop --------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        Lines([]),
        Lines([bookmark(10)]),
        Lines([b"<html>"]),
        Lines(
            [b'{"type":"ADDED","object":{"metadata":'],
        ),
        answer(b"<html><title>503</title></html>", 503),
        Reset(),
        status(500, "InternalError"),
        Lines([error_event(410, "Expired")]),
    ],
    ids=["empty", "one bookmark", "html", "half", "html 503", "reset", "500", "410 for ever"],
)
@on_virtual_time
async def test_a_watch_that_fails_for_ever_is_asked_for_ever_more_rarely(end):
    server = Server(lists=[page(node("a", 1), version=9)], watches=[end])
    async with reflecting(server.transport):
        await asyncio.sleep(600)
        calls = server.calls("WATCH")
        assert 60 < len(calls) < 180, "ten seconds at most, five on average"
        assert len([call for call in calls if call.at < 1]) < 10
        # and it comes back by itself
        server.watches = [Lines([event("MODIFIED", node("a", 99)), Hang()])]
        await asyncio.sleep(11)
        assert server.transport.open_streams == 1


@on_virtual_time
async def test_lists_that_fail_for_ever_are_asked_for_ever_more_rarely():
    server = Server(lists=[answer(b"<html>", 503)])
    async with reflecting(server.transport) as (reflector, _):
        await asyncio.sleep(600)
        assert 60 < len(server.calls("LIST")) < 180
        assert not reflector.synced


@on_virtual_time
async def test_an_html_503_keeps_the_version():
    html = answer(b"<html><title>Bad Gateway</title></html>", 503)
    server = Server(lists=[page(version=9)], watches=[html, html, QUIET])
    async with reflecting(server.transport):
        await asyncio.sleep(30)
    assert {call.query["resourceVersion"] for call in server.calls("WATCH")} == {"9"}
    assert len(server.calls("LIST")) == 1


@pytest.mark.parametrize(
    ("asked", "waited"), [("17", 17.0), ("100000", 60.0)], ids=["honoured", "capped"]
)
@on_virtual_time
async def test_retry_after_is_honoured_up_to_a_minute(asked, waited):
    busy = status(429, "TooManyRequests", "storage is (re)initializing", retry_after=asked)
    server = Server(lists=[busy, page(version=9)], watches=[busy, QUIET])
    async with reflecting(server.transport):
        await asyncio.sleep(125)
    assert server.calls("LIST")[1].at == pytest.approx(waited, abs=0.01)
    first, second = server.calls("WATCH")[:2]
    assert second.at - first.at == pytest.approx(waited, abs=0.01)


@on_virtual_time
async def test_a_silent_watch_is_taken_for_dead_and_goes_on():
    hung = Lines(
        [event("MODIFIED", node("a", 10)), Wait(80), event("MODIFIED", node("a", 11)), Hang()]
    )
    server = Server(lists=[page(version=9)], watches=[hung, QUIET])
    async with reflecting(server.transport, inactivity_timeout_s=90):
        await asyncio.sleep(172)
    second = server.calls("WATCH")[1]
    assert 170 <= second.at <= 171
    assert second.query["resourceVersion"] == "11"
    assert len(server.calls("LIST")) == 1


@on_virtual_time
async def test_a_server_that_forgets_to_end_a_watch_is_left():
    chatty = Lines([step for i in range(100) for step in (bookmark(10 + i), Wait(10))])
    server = Server(lists=[page(version=9)], watches=[chatty, QUIET])
    async with reflecting(server.transport):
        await asyncio.sleep(400)
    first, second = server.calls("WATCH")[:2]
    assert second.at == pytest.approx(int(first.query["timeoutSeconds"]) + 30, abs=1.5)


@on_virtual_time
async def test_a_connection_that_is_never_answered_is_given_up():
    server = Server(lists=[Hang(), page(version=9)], watches=[Hang(), QUIET])
    async with reflecting(server.transport, list_timeout_s=20, connect_timeout_s=5):
        await asyncio.sleep(60)
    assert 20 <= server.calls("LIST")[1].at <= 20.5
    first, second = server.calls("WATCH")
    assert 5 <= second.at - first.at <= 6


@on_virtual_time
async def test_failures_are_forgotten_after_a_watch_that_lived():
    def watches(call):
        if call.at < 100:
            return Reset()
        if call.at < 200:
            return Lines([Wait(6), bookmark(10), Reset()])
        return QUIET

    server = Server(lists=[page(version=9)], watches=watches)
    async with reflecting(server.transport):
        await asyncio.sleep(250)
    gaps = [
        later.at - earlier.at
        for earlier, later in zip(server.calls("WATCH"), server.calls("WATCH")[1:], strict=False)
        if earlier.at > 110
    ]
    assert gaps
    assert max(gaps) <= 6.51, "six seconds of life, half a second of backoff"


# --- a resource that is not there -----------------------------------------------------------------


@on_virtual_time
async def test_an_absent_resource_is_looked_for_every_minute_at_most_until_it_appears():
    server = Server(lists=[status(404, "NotFound")])
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(3600)
        assert reflector.absent
        assert not reflector.synced
        calls = server.calls("LIST")
        assert 60 <= len(calls) < 240
        server.lists, server.watches = [page(node("a", 1), version=9)], [QUIET]
        await asyncio.sleep(60)
        assert not reflector.absent
        assert reflector.synced
        assert ("seen", "a", None, "1", True) in sink.told


@on_virtual_time
async def test_a_resource_that_vanishes_keeps_its_objects_until_a_list_says_otherwise():
    server = Server(
        lists=[page(node("a", 1), version=9), status(404, "NotFound")],
        watches=[status(404, "NotFound")],
    )
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(300)
        assert reflector.absent
        assert names(reflector) == ["a"], "an API server that starts up says 404 for CRDs, too"
        server.lists, server.watches = [page(version=20)], [QUIET]
        await asyncio.sleep(61)
        assert sink.told[-1] == ("gone", "a", "1")


# --- objects that do not decode -------------------------------------------------------------------


@on_virtual_time
async def test_an_odd_object_is_left_out_and_the_others_are_kept():
    odd = {"metadata": {"name": "odd", "resourceVersion": "3"}, "spec": {"taints": "many"}}
    watch = Lines([event("ADDED", {**odd}), event("ADDED", node("c", 11)), Hang()])
    server = Server(lists=[page(node("a", 1), odd, node("b", 2), version=9)], watches=[watch])
    async with reflecting(server.transport) as (reflector, _):
        await asyncio.sleep(1)
        assert reflector.synced
        assert names(reflector) == ["a", "b", "c"]
        assert reflector.unreadable == 2
        assert len(server.calls("WATCH")) == 1


@on_virtual_time
async def test_a_delete_of_an_object_that_does_not_decode_still_deletes():
    odd = {"metadata": {"name": "a", "resourceVersion": "12"}, "spec": {"taints": "many"}}
    server = Server(
        lists=[page(node("a", 1), version=9)], watches=[Lines([event("DELETED", odd), Hang()])]
    )
    async with reflecting(server.transport) as (reflector, sink):
        await asyncio.sleep(1)
        assert names(reflector) == []
        assert sink.told[-1] == ("gone", "a", "1")


# --- watch-list -----------------------------------------------------------------------------------


def initial(*steps):
    return Lines([*steps, bookmark(20, initial_end=True), Hang()])


@on_virtual_time
async def test_a_watch_list_syncs_without_any_list():
    stream = initial(event("ADDED", node("a", 1)), event("ADDED", node("b", 2)))
    server = Server(watches=[stream])
    async with reflecting(server.transport, watch_list=True) as (reflector, sink):
        await asyncio.sleep(1)
        assert sink.take() == [
            ("seen", "a", None, "1", True),
            ("seen", "b", None, "2", True),
            ("synced",),
        ]
        assert reflector.synced
    query = server.calls("WATCH")[0].query
    assert query["sendInitialEvents"] == "true"
    assert query["resourceVersionMatch"] == "NotOlderThan"
    assert query["allowWatchBookmarks"] == "true"
    assert "resourceVersion" not in query
    assert server.calls("LIST") == []


@on_virtual_time
async def test_after_a_watch_list_the_watch_goes_on_from_its_version():
    stream = Lines(
        [bookmark(20, initial_end=True), event("ADDED", node("a", 21)), Wait(6), Reset()]
    )
    server = Server(watches=[stream, QUIET])
    async with reflecting(server.transport, watch_list=True) as (_, sink):
        await asyncio.sleep(10)
        assert sink.told == [("synced",), ("seen", "a", None, "21", False)]
    assert server.calls("WATCH")[1].query["resourceVersion"] == "21"
    assert server.calls("LIST") == []


@on_virtual_time
async def test_a_watch_list_after_410_reports_what_is_gone():
    server = Server(
        watches=[
            Lines(
                [
                    event("ADDED", node("a", 1)),
                    bookmark(2, initial_end=True),
                    error_event(410, "Expired"),
                ]
            ),
            initial(event("ADDED", node("b", 15))),
        ]
    )
    async with reflecting(server.transport, watch_list=True) as (reflector, sink):
        await asyncio.sleep(10)
        assert names(reflector) == ["b"]
        assert sink.told[-2:] == [("seen", "b", None, "15", False), ("gone", "a", "1")]
    assert server.calls("LIST") == []


@pytest.mark.parametrize(
    "refusal",
    [
        status(422, "Invalid", "sendInitialEvents is forbidden"),
        status(400, "BadRequest"),
        Lines([error_event(500, "InternalError", "RequestWatchProgress is disabled")]),
        Lines([event("ADDED", node("a", 1)), Hang()]),
        Lines([]),
    ],
    ids=["422", "400", "200 and an in-stream error", "unknown parameter", "empty"],
)
@on_virtual_time
async def test_a_refused_watch_list_is_tried_once_and_remembered(refusal):
    def watches(call):
        if "sendInitialEvents" in call.query:
            return refusal
        return Lines([Wait(10), error_event(410, "Expired")])

    server = Server(lists=[page(node("a", 1), version=9)], watches=watches)
    async with reflecting(server.transport, watch_list=True) as (reflector, _):
        await asyncio.sleep(6)
        assert reflector.synced
        await asyncio.sleep(100)
    tried = [call for call in server.calls("WATCH") if "sendInitialEvents" in call.query]
    assert len(tried) == 1
    assert len(server.calls("LIST")) > 5


@pytest.mark.parametrize(
    "trouble",
    [
        Reset(),
        answer(b"<html>", 503),
        status(429, "TooManyRequests"),
        Lines([event("ADDED", node("a", 1)), Reset()]),
        Lines([error_event(429, "TooManyRequests")]),
    ],
    ids=["reset", "503", "429", "reset midway", "in-stream 429"],
)
@on_virtual_time
async def test_trouble_during_a_watch_list_is_no_refusal_but_the_next_list_goes_by_pages(trouble):
    later = initial(event("ADDED", node("a", 1)))
    server = Server(
        lists=[page(node("a", 1), version=9)],
        watches=[trouble, Lines([Wait(10), error_event(410, "Expired")]), later],
    )
    async with reflecting(server.transport, watch_list=True) as (reflector, _):
        await asyncio.sleep(60)
        assert reflector.synced
    assert len(server.calls("LIST")) == 1
    tried = [call for call in server.calls("WATCH") if "sendInitialEvents" in call.query]
    assert len(tried) == 2


# --- ending ---------------------------------------------------------------------------------------


@on_virtual_time
async def test_cancelling_closes_the_watch():
    server = Server(lists=[page(version=9)], watches=[QUIET])
    async with reflecting(server.transport):
        await asyncio.sleep(1)
        assert server.transport.open_streams == 1
    assert server.transport.open_streams == 0


@on_virtual_time
async def test_a_sink_that_fails_ends_the_reflector_loudly():
    class Broken(RecordingSink):
        def synced(self):
            raise ZeroDivisionError

    server = Server(lists=[page(node("a", 1), version=9)])
    with pytest.raises(ZeroDivisionError):
        async with reflecting(server.transport, sink=Broken()):
            await asyncio.sleep(1)


@on_virtual_time
async def test_a_refusal_is_said_once_and_tried_again_until_it_is_granted():
    allowed_at = 300.0

    def lists(call):
        return page(node("n1", 3), version=3) if call.at >= allowed_at else status(403, "Forbidden")

    server = Server(lists=lists, watches=[Lines([Hang()])])
    with structlog.testing.capture_logs() as logs:
        async with reflecting(server.transport, forbidden_cap_s=60.0) as (reflector, _):
            await asyncio.sleep(200)
            assert (reflector.forbidden, reflector.synced) == (True, False)
            asked = len(server.calls("LIST"))
            await asyncio.sleep(170)
            assert (reflector.forbidden, reflector.synced) == (False, True)
        said = [each for each in logs if each["event"] == "watch_forbidden"]
    assert len(said) == 1
    assert 3 < asked < 30


@pytest.mark.parametrize(("code", "flag"), [(404, "absent"), (403, "forbidden")])
@on_virtual_time
async def test_whoever_asks_hears_of_each_refusal(code, flag):
    asked = []
    server = Server(lists=[status(code, "No")])
    sink = RecordingSink()
    reflector = Reflector(
        server.transport,
        NODES,
        sink,
        clock=Clock(epoch_at_start=EPOCH),
        rng=random.Random(1),
        settings=ReflectorSettings(watch_list=False),
        on_refused=lambda: asked.append(1),
    )
    task = asyncio.create_task(reflector.run())
    await asyncio.sleep(30)
    task.cancel()
    assert getattr(reflector, flag)
    assert len(asked) == len(server.calls("LIST")) > 2
