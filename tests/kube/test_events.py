"""Events as they are decoded, and watches of them: the API server sends no bookmarks of Events."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from remediator.kube.objects import (
    ATTACH_FAILURES,
    EVENTS,
    GUEST_WARNINGS,
    MIGRATIONS,
    PROBE_FAILURES,
    ClusterEvent,
)
from tests.kube.reflecting import RecordingSink, Server, reflecting
from tests.kube.scripted import Hang, Lines, Wait, error_event, event, on_virtual_time, page

QUIET = {"bookmarks": False, "inactivity_timeout_s": 75.0}
SHORT = {"watch_timeout_min_s": 50.0, "watch_timeout_max_s": 60.0}


def decode(body):
    return msgspec.json.decode(msgspec.json.encode(body), type=ClusterEvent)


def about(name, *, kind="Pod", **more):
    return {
        "metadata": {"name": f"{name}.17", "namespace": "shop", "resourceVersion": "5", "uid": "u"},
        "involvedObject": {"kind": kind, "namespace": "shop", "name": name},
        **more,
    }


def names(told):
    return [entry[:2] for entry in told]


@pytest.mark.parametrize(
    ("more", "times"),
    [
        ({}, 1),
        ({"count": None, "series": None}, 1),
        ({"count": 3}, 3),
        ({"count": 0, "series": {"count": 7, "lastObservedTime": "2026-11-20T08:00:00Z"}}, 7),
        ({"deprecatedCount": 9}, 1),
    ],
)
def test_both_ways_of_counting_are_read(more, times):
    assert decode(about("virt-launcher-a-x", **more)).times == times


def test_a_long_text_with_line_breaks_is_kept_short_and_on_one_line():
    text = "Readiness probe failed: \n" + "x y\t" * 1000
    said = decode(about("p", message=text)).said
    assert said.startswith("Readiness probe failed: x y x y")
    assert len(said) == 200


def test_an_event_of_which_everything_is_missing_decodes():
    bare = decode({"metadata": {"name": "e"}})
    assert (bare.said, bare.times, bare.involved_object.kind) == ("", 1, "")


@on_virtual_time
async def test_of_pods_only_launchers_are_kept_in_memory():
    server = Server(
        lists=[page(about("virt-launcher-a-x"), about("web-1"), version=9)],
        watches=[Lines([event("ADDED", about("web-2")), Hang()])],
    )
    async with reflecting(server.transport, resource=PROBE_FAILURES, **QUIET) as (reflector, sink):
        await asyncio.sleep(5)
        assert names(sink.told) == [("seen", "virt-launcher-a-x.17"), ("synced",)]
        assert len(reflector.store) == 1
    assert server.calls("LIST")[0].query["fieldSelector"] == (
        "involvedObject.kind=Pod,reason=Unhealthy"
    )


@on_virtual_time
async def test_of_a_vmis_warnings_only_those_about_the_guest_are_kept():
    said = [
        about("a", kind="VirtualMachineInstance", reason=reason)
        for reason in ("SyncFailed", "GuestPanicked", "Migrated", "WatchdogFired")
    ]
    for number, one in enumerate(said):
        one["metadata"]["name"] += str(number)
    server = Server(lists=[page(*said, version=9)], watches=[Lines([Hang()])])
    async with reflecting(server.transport, resource=GUEST_WARNINGS, **QUIET) as (_, sink):
        await asyncio.sleep(5)
        assert names(sink.told) == [("seen", "a.171"), ("seen", "a.173"), ("synced",)]


@on_virtual_time
async def test_an_object_that_is_no_longer_wanted_is_gone_and_stays_gone():
    def migration(phase, version):
        return {
            "metadata": {
                "name": "m",
                "namespace": "shop",
                "uid": "u",
                "resourceVersion": str(version),
            },
            "spec": {"vmiName": "db"},
            "status": {"phase": phase},
        }

    ended = migration("Succeeded", 12)
    watch = Lines(
        [
            event("MODIFIED", migration("Running", 11)),
            event("MODIFIED", ended),
            event("DELETED", ended),
            Hang(),
        ]
    )
    server = Server(lists=[page(migration("Pending", 10), version=10)], watches=[watch])
    async with reflecting(server.transport, resource=MIGRATIONS) as (reflector, sink):
        await asyncio.sleep(5)
        assert [entry[0] for entry in sink.told] == ["seen", "synced", "seen", "gone"]
        assert reflector.store == {}


# --- watches without bookmarks -------------------------------------------------------------------


@on_virtual_time
async def test_a_quiet_watch_goes_on_from_the_version_that_stood_when_it_began():
    server = Server(
        lists=[page(version=9)],
        newest=[page(version=9), page(version=500), page(version=900), page(version=901)],
        watches=[Lines([Wait(55)])],
    )
    sink = RecordingSink()
    settings = {**QUIET, **SHORT}
    async with reflecting(server.transport, resource=EVENTS, sink=sink, **settings):
        await asyncio.sleep(170)
    watches = server.calls("WATCH")
    assert [call.query["resourceVersion"] for call in watches] == ["9", "9", "500", "900"]
    # Each end proves what its beginning asked for: never older than two watches.
    assert sink.progress == pytest.approx([0, 55, 110], abs=1)
    assert len(server.calls("LIST")) == 1


@on_virtual_time
async def test_what_it_did_hear_is_newer_than_what_it_asked_for():
    spoken = Lines([event("ADDED", about("virt-launcher-a-x")), Wait(55)])
    server = Server(lists=[page(version=2)], newest=[page(version=3)], watches=[spoken])
    async with reflecting(server.transport, resource=ATTACH_FAILURES, **QUIET, **SHORT):
        await asyncio.sleep(60)
    assert server.calls("WATCH")[1].query["resourceVersion"] == "5"


@pytest.mark.parametrize(
    ("end", "went_on"),
    [
        (Lines([Wait(1)]), "9"),  # ended at once: it may have handed on nothing
        (Lines([Hang()]), "9"),  # half open: silent beyond its own time
        (Lines([Wait(20), error_event(410, "Expired")]), "30"),  # a new list says where
    ],
    ids=["too-early", "half-open", "expired"],
)
@on_virtual_time
async def test_a_watch_that_did_not_live_for_its_time_proves_nothing(end, went_on):
    server = Server(
        lists=[page(version=9), page(version=30)],
        newest=[page(version=20)],
        watches=[end, Lines([Hang()])],
    )
    async with reflecting(server.transport, resource=EVENTS, **QUIET, **SHORT) as (_, sink):
        await asyncio.sleep(90)
        assert max(sink.progress) == 0 or went_on == "30"
    assert server.calls("WATCH")[1].query["resourceVersion"] == went_on
