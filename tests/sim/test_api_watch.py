"""Watches over the API: where they start, what they show, how they end."""

from __future__ import annotations

import pytest


async def test_a_watch_from_a_list_shows_what_comes_after_it(api):
    await api.made(api.config_maps, api.config_map("before"))
    version = (await api.get(api.config_maps)).version
    await api.made(api.config_maps, api.config_map("between"))
    async with api.watch(api.config_maps, resourceVersion=version, labelSelector="!x") as watch:
        assert watch.status == 200
        assert await watch.seen() == ("ADDED", "between")
        await api.patch(f"{api.config_maps}/before", {"data": {"a": "b"}})
        kind, obj = await watch.event()
        assert (kind, obj["data"]) == ("MODIFIED", {"a": "b"})
        assert (obj["kind"], obj["apiVersion"]) == ("ConfigMap", "v1")
        await api.delete(f"{api.config_maps}/before")
        kind, obj = await watch.event()
        assert (kind, obj["data"]) == ("DELETED", {"a": "b"})
        assert int(obj["metadata"]["resourceVersion"]) > int(version)


@pytest.mark.parametrize("version", [None, "0"])
async def test_a_watch_without_a_version_first_shows_what_is_there(api, version):
    for name in ("a", "b"):
        await api.made(api.config_maps, api.config_map(name, {"ours": "yes"}))
    query = {} if version is None else {"resourceVersion": version}
    async with api.watch(api.config_maps, labelSelector="ours=yes", **query) as watch:
        assert {await watch.seen(), await watch.seen()} == {("ADDED", "a"), ("ADDED", "b")}
        await api.made(api.config_maps, api.config_map("c", {"ours": "yes"}))
        assert await watch.seen() == ("ADDED", "c")


async def test_a_watch_list_marks_the_end_of_what_was_there(api):
    await api.made(api.config_maps, api.config_map("a", {"ours": "yes"}))
    query = {
        "labelSelector": "ours=yes",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with api.watch(api.config_maps, **query) as watch:
        assert await watch.seen() == ("ADDED", "a")
        kind, obj = await watch.event()
        assert kind == "BOOKMARK"
        assert obj["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert (obj["kind"], obj["apiVersion"]) == ("ConfigMap", "v1")
        version = obj["metadata"]["resourceVersion"]
        made = await api.made(api.config_maps, api.config_map("b", {"ours": "yes"}))
        assert await watch.seen() == ("ADDED", "b")
        assert int(made["metadata"]["resourceVersion"]) > int(version)


@pytest.mark.parametrize(
    "query",
    [
        {"sendInitialEvents": "true"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "NotOlderThan"},
    ],
)
async def test_a_watch_list_needs_its_options(api, query):
    reply = await api.get(api.config_maps, watch="true", **query)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")


async def test_an_object_that_leaves_the_selector_is_deleted_for_the_watch(api):
    made = await api.made(api.config_maps, api.config_map("a", {"tier": "x"}, key="1"))
    version = made["metadata"]["resourceVersion"]
    path = f"{api.config_maps}/a"
    async with api.watch(api.config_maps, resourceVersion=version, labelSelector="tier=x") as watch:
        moved = await api.patch(path, {"metadata": {"labels": {"tier": "y"}}, "data": {"key": "2"}})
        kind, obj = await watch.event()
        assert (kind, obj["metadata"]["labels"], obj["data"]) == (
            "DELETED",
            {"tier": "x"},
            {"key": "1"},
        )
        assert obj["metadata"]["resourceVersion"] == moved.version
        await api.patch(path, {"data": {"key": "3"}})  # not seen: still outside
        await api.patch(path, {"metadata": {"labels": {"tier": "x"}}})
        kind, obj = await watch.event()
        assert (kind, obj["data"]) == ("ADDED", {"key": "3"})


async def test_a_kubelet_sees_the_pods_of_its_node(api):
    node = api.unique("n")
    version = (await api.get(api.pods)).version
    async with api.watch(
        "/api/v1/pods", resourceVersion=version, fieldSelector=f"spec.nodeName={node}"
    ) as watch:
        await api.bound_pod("elsewhere", node="another")
        await api.bound_pod("here", node=node)
        assert await watch.seen() == ("ADDED", "here")
        await api.delete(f"{api.pods}/here")
        kind, obj = await watch.event()
        assert kind == "MODIFIED"
        assert obj["metadata"]["deletionGracePeriodSeconds"] == 30
        await api.delete(f"{api.pods}/here", {"gracePeriodSeconds": 0})
        assert await watch.seen() == ("MODIFIED", "here")
        assert await watch.seen() == ("DELETED", "here")


async def test_a_scheduler_sees_a_pod_leave_when_it_is_bound(api):
    version = (await api.get(api.pods)).version
    async with api.watch(
        api.pods, resourceVersion=version, fieldSelector="spec.nodeName="
    ) as watch:
        await api.bound_pod("p", node="n1")
        assert await watch.seen() == ("ADDED", "p")
        assert await watch.seen() == ("DELETED", "p")


async def test_the_last_finalizer_of_a_deleted_object_shows_as_deleted(api):
    obj = api.config_map("a")
    obj["metadata"]["finalizers"] = ["example.com/hold"]
    made = await api.made(api.config_maps, obj)
    version = made["metadata"]["resourceVersion"]
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        await api.delete(f"{api.config_maps}/a")
        assert await watch.seen() == ("MODIFIED", "a")
        await api.patch(f"{api.config_maps}/a", {"metadata": {"finalizers": None}})
        assert await watch.seen() == ("DELETED", "a")


async def test_a_watch_of_one_object_by_name(api):
    made = await api.made(api.config_maps, api.config_map("a"))
    version = made["metadata"]["resourceVersion"]
    async with api.watch(
        api.config_maps, resourceVersion=version, fieldSelector="metadata.name=a"
    ) as watch:
        await api.made(api.config_maps, api.config_map("b"))
        await api.patch(f"{api.config_maps}/a", {"data": {"k": "v"}})
        assert await watch.seen() == ("MODIFIED", "a")


async def test_a_change_that_changes_nothing_is_not_seen(api):
    made = await api.made(api.config_maps, api.config_map("a", key="1"))
    version = made["metadata"]["resourceVersion"]
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        await api.patch(f"{api.config_maps}/a", {"data": {"key": "1"}})
        await api.patch(f"{api.config_maps}/a", {"data": {"key": "2"}})
        _, obj = await watch.event()
        assert obj["data"] == {"key": "2"}


async def test_a_watch_ends_when_its_time_is_up(api):
    version = (await api.get(api.config_maps)).version
    async with api.watch(api.config_maps, resourceVersion=version, timeoutSeconds="1") as watch:
        await watch.end()


async def test_every_watcher_sees_the_same_versions_in_the_same_order(api):
    version = (await api.get(api.config_maps)).version
    async with (
        api.watch(api.config_maps, resourceVersion=version) as one,
        api.watch(api.config_maps, resourceVersion=version) as two,
    ):
        for number in range(20):
            await api.patch(
                f"{api.config_maps}/a",
                {"apiVersion": "v1", "kind": "ConfigMap", **api.config_map("a", n=str(number))},
                "application/apply-patch+yaml",
                fieldManager="suite",
            )
        seen = [[await watch.line() for _ in range(20)] for watch in (one, two)]
    assert seen[0] == seen[1]


# --- what only a simulated server can be made to do at will ---


async def test_a_watch_from_before_the_window_gets_an_error_event_with_410(simulated):
    api = await simulated.client("c")
    for number in range(102):  # the window of this server holds 100 events
        await api.made(api.config_maps, api.config_map(f"m{number}"))
    async with api.watch(api.config_maps, resourceVersion="5") as watch:
        assert watch.status == 200
        kind, status = await watch.event()
        assert (kind, status["kind"], status["code"], status["reason"]) == (
            "ERROR",
            "Status",
            410,
            "Expired",
        )
        assert status["message"].startswith("too old resource version: 5 (")
        await watch.end()


async def test_compaction_ends_open_watches_with_410_and_a_new_list_helps(simulated):
    api = await simulated.client("c")
    await api.made(api.config_maps, api.config_map("a"))
    version = (await api.get(api.config_maps)).version
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        await api.made(api.config_maps, api.config_map("b"))
        simulated.faults.gone()
        assert await watch.seen() == ("ADDED", "b")
        kind, status = await watch.event()
        assert (kind, status["code"]) == ("ERROR", 410)
        await watch.end()
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        assert (await watch.event())[1]["code"] == 410
    version = (await api.get(api.config_maps)).version
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        await api.made(api.config_maps, api.config_map("c"))
        assert await watch.seen() == ("ADDED", "c")


async def test_a_server_without_watch_list_refuses_it(simulated):
    simulated.server.watch_list = False
    api = await simulated.client("c")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    reply = await api.get(api.config_maps, watch="true", **query)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert "WatchList feature gate" in reply.body["message"]


async def test_a_watcher_that_does_not_read_is_cut(simulated):
    api = await simulated.client("c")
    version = (await api.get(api.config_maps)).version
    await api.made(api.config_maps, api.config_map("a", pad="x" * 10_000))
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        simulated.faults.partition("c")  # over HTTP too, nothing is taken from the buffer now
        store, kind = simulated.store, simulated.registry.find("", "v1", "configmaps")
        for number in range(1100):
            store.mutate(kind, "default", "a", lambda obj, n=number: obj["data"].update(n=str(n)))
        simulated.faults.heal("c")
        assert 1000 <= await watch.rest() < 1101
