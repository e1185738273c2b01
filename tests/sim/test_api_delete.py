"""Deletion over the API: preconditions, finalizers, grace."""

from __future__ import annotations

import datetime as dt

import pytest


def seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


async def test_a_delete_answers_with_what_is_gone(api):
    made = await api.made(api.config_maps, api.config_map("a"))
    reply = await api.delete(f"{api.config_maps}/a")
    assert (reply.status, reply.body["kind"], reply.body["status"]) == (200, "Status", "Success")
    assert reply.body["details"]["uid"] == made["metadata"]["uid"]
    assert (await api.get(f"{api.config_maps}/a")).status == 404
    assert (await api.delete(f"{api.config_maps}/a")).status == 404


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_a_precondition_that_does_not_hold_spares_the_object(api, field):
    made = await api.made(api.config_maps, api.config_map("a"))
    path = f"{api.config_maps}/a"
    wrong = {"preconditions": {field: "1"}}
    reply = await api.delete(path, wrong)
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")
    assert (await api.get(path)).status == 200
    right = {"preconditions": {field: made["metadata"][field]}}
    assert (await api.delete(path, right)).status == 200


async def test_finalizers_hold_a_deleted_object_until_the_last_is_gone(api):
    obj = api.config_map("a")
    obj["metadata"]["finalizers"] = ["example.com/one", "example.com/two"]
    made = await api.made(api.config_maps, obj)
    path = f"{api.config_maps}/a"
    reply = await api.delete(path)
    assert (reply.status, reply.body["kind"]) == (200, "ConfigMap")
    assert "deletionTimestamp" in reply.body["metadata"]
    assert reply.body["metadata"]["deletionGracePeriodSeconds"] == 0
    again = await api.post(api.config_maps, api.config_map("a"))
    assert again.body["message"] == 'object is being deleted: configmaps "a" already exists'
    one = await api.patch(path, {"metadata": {"finalizers": ["example.com/one"]}})
    assert one.body["metadata"]["uid"] == made["metadata"]["uid"]
    more = await api.patch(
        path, {"metadata": {"finalizers": ["example.com/one", "example.com/new"]}}
    )
    assert (more.status, more.body["reason"]) == (422, "Invalid")
    assert (await api.patch(path, {"metadata": {"finalizers": None}})).status == 200
    assert (await api.get(path)).status == 404


async def test_foreground_deletion_waits_for_the_garbage_collector(api):
    await api.made(api.config_maps, api.config_map("a"))
    reply = await api.delete(f"{api.config_maps}/a", {"propagationPolicy": "Foreground"})
    assert reply.body["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_a_bound_pod_waits_for_its_kubelet(api):
    await api.bound_pod("p", terminationGracePeriodSeconds=60)
    path = f"{api.pods}/p"
    reply = await api.delete(path)
    metadata = reply.body["metadata"]
    assert (reply.status, metadata["deletionGracePeriodSeconds"]) == (200, 60)
    assert metadata["generation"] == 2  # bound: not counted; deleted: counted
    again = await api.delete(path)
    assert again.body["metadata"]["deletionTimestamp"] == metadata["deletionTimestamp"]
    assert again.version == reply.version
    longer = await api.delete(path, {"gracePeriodSeconds": 600})
    assert longer.body["metadata"]["deletionTimestamp"] == metadata["deletionTimestamp"]
    shorter = await api.delete(path, {"gracePeriodSeconds": 20})
    moved = shorter.body["metadata"]
    assert moved["deletionGracePeriodSeconds"] == 20
    earlier_s = seconds(metadata["deletionTimestamp"]) - seconds(moved["deletionTimestamp"])
    assert earlier_s == 40
    gone = await api.delete(path, {"gracePeriodSeconds": 0})
    assert (gone.status, gone.body["kind"]) == (200, "Pod")
    assert (await api.get(path)).status == 404


async def test_a_forced_delete_removes_a_bound_pod_at_once(api):
    pod = await api.bound_pod("p")
    options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
    assert (await api.delete(f"{api.pods}/p", options)).status == 200
    assert (await api.get(f"{api.pods}/p")).status == 404


async def test_the_grace_may_come_in_the_query(api):
    await api.bound_pod("p")
    assert (await api.delete(f"{api.pods}/p", gracePeriodSeconds="0")).status == 200
    assert (await api.get(f"{api.pods}/p")).status == 404


async def test_a_forced_delete_does_not_override_finalizers(api):
    await api.bound_pod("p")
    path = f"{api.pods}/p"
    await api.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})
    reply = await api.delete(path, {"gracePeriodSeconds": 0})
    assert reply.body["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (await api.get(path)).status == 200
    await api.patch(path, {"metadata": {"finalizers": []}})
    assert (await api.get(path)).status == 404


async def test_a_pod_that_is_not_bound_goes_at_once(api):
    await api.made(api.pods, api.pod("p"))
    assert (await api.delete(f"{api.pods}/p")).status == 200
    assert (await api.get(f"{api.pods}/p")).status == 404


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_has_ended_goes_at_once(api, phase):
    await api.bound_pod("p")
    await api.patch(f"{api.pods}/p/status", {"status": {"phase": phase}})
    assert (await api.delete(f"{api.pods}/p")).status == 200
    assert (await api.get(f"{api.pods}/p")).status == 404


async def test_an_eviction_is_a_graceful_delete(api):
    await api.bound_pod("p")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "p", "namespace": api.namespace},
    }
    reply = await api.post(f"{api.pods}/p/eviction", eviction)
    assert (reply.status, reply.body["status"]) == (201, "Success")
    assert "deletionTimestamp" in (await api.get(f"{api.pods}/p")).body["metadata"]


async def test_a_collection_is_deleted_by_selector(api):
    for name, tier in (("a", "x"), ("b", "y"), ("c", "x")):
        await api.made(api.config_maps, api.config_map(name, {"tier": tier}))
    reply = await api.delete(api.config_maps, labelSelector="tier=x")
    assert reply.status == 200
    left = await api.get(api.config_maps, labelSelector="tier")
    assert [item["metadata"]["name"] for item in left.body["items"]] == ["b"]
