"""Custom kinds come and go, change their versions, may not be read, and are discovered."""

from __future__ import annotations

import json

import pytest

from remediator.sim.custom_kinds import CustomKinds, as_stored
from remediator.sim.discovery import AGGREGATED
from remediator.sim.resources import ResourceType

MACHINES = ResourceType("cluster.x-k8s.io", "v1beta2", "machines", "Machine")
NEW = "/apis/cluster.x-k8s.io/v1beta2/machines"
OLD = "/apis/cluster.x-k8s.io/v1beta1/machines"


def older(obj):
    status = {"v1beta2": obj["status"]} if "status" in obj else {}
    return {**obj, "apiVersion": "cluster.x-k8s.io/v1beta1", "status": status}


def machine(name="m", **metadata):
    return {"metadata": {"name": name, "namespace": "default", **metadata}, "status": {"a": 1}}


@pytest.fixture
def kinds(simulated):
    return CustomKinds(simulated.server)


async def test_a_kind_that_is_removed_ends_its_watches_after_the_last_deletion(simulated, kinds):
    kinds.install(MACHINES)
    simulated.store.create(MACHINES, machine(finalizers=["x/y"]))
    api = await simulated.client("c")
    async with api.watch(NEW) as watch:
        assert await watch.seen() == ("ADDED", "m")
        kinds.remove(MACHINES)
        seen = [await watch.seen()]
        while seen[-1][0] != "DELETED":
            seen.append(await watch.seen())
        await watch.end()
    assert (await api.get(NEW)).status == 404
    assert (await api.get("/apis/cluster.x-k8s.io/v1beta2")).status == 404


async def test_one_kind_in_two_versions_is_the_same_objects_in_two_shapes(simulated, kinds):
    kinds.install(MACHINES, also={"v1beta1": older})
    simulated.store.create(MACHINES, machine())
    api = await simulated.client("c")
    new, old = (await api.get(NEW)).body["items"][0], (await api.get(OLD)).body["items"][0]
    assert (new["apiVersion"], old["apiVersion"]) == (
        "cluster.x-k8s.io/v1beta2",
        "cluster.x-k8s.io/v1beta1",
    )
    assert new["metadata"] == old["metadata"]
    assert old["status"] == {"v1beta2": {"a": 1}}
    one = (await api.get(f"{OLD[: -len('machines')]}namespaces/default/machines/m")).body
    assert one["status"] == {"v1beta2": {"a": 1}}
    async with api.watch(OLD, resourceVersion=new["metadata"]["resourceVersion"]) as watch:
        simulated.store.create(MACHINES, machine("late"))
        kind, obj = await watch.event()
    assert (kind, obj["apiVersion"]) == ("ADDED", "cluster.x-k8s.io/v1beta1")
    refused = await api.post(OLD.replace("machines", "namespaces/default/machines"), old)
    assert refused.status == 400


async def test_a_version_that_is_served_no_longer_is_gone_and_the_objects_stay(simulated, kinds):
    kinds.install(MACHINES)
    made = simulated.store.create(MACHINES, machine())
    api = await simulated.client("c")
    async with api.watch(NEW, resourceVersion=made["metadata"]["resourceVersion"]) as watch:
        kinds.serve(MACHINES, only={"v1beta1": older})
        await watch.end()
    assert (await api.get(NEW)).status == 404
    listed = (await api.get(OLD)).body["items"]
    assert [item["metadata"]["uid"] for item in listed] == [made["metadata"]["uid"]]


async def test_discovery_tells_of_all_kinds_in_one_document_to_who_accepts_it(simulated, kinds):
    kinds.install(MACHINES, also={"v1beta1": as_stored})

    def ask(accept):
        headers = {"accept": accept}
        return simulated.server.answer("GET", "/apis", (), headers, None)

    plain = json.loads(ask("application/json").body)
    assert plain["kind"] == "APIGroupList"
    answer = ask(f"{AGGREGATED},application/json")
    assert answer.headers["content-type"] == AGGREGATED
    found = json.loads(answer.body)
    assert found["kind"] == "APIGroupDiscoveryList"
    (group,) = [each for each in found["items"] if each["metadata"]["name"] == "cluster.x-k8s.io"]
    assert [version["version"] for version in group["versions"]] == ["v1beta2", "v1beta1"]
    assert group["versions"][0]["resources"][0]["resource"] == "machines"
    simulated.server.aggregated_discovery = False
    assert json.loads(ask(f"{AGGREGATED},application/json").body) == plain


async def test_who_may_not_read_a_kind_is_refused(simulated, kinds):
    kinds.install(MACHINES)
    simulated.server.may_read = lambda user, verb, res: (
        (user, verb, res.plural)
        != (
            "blind",
            "list",
            "machines",
        )
    )
    blind, other = await simulated.client("blind"), await simulated.client("other")
    refused = await blind.get(NEW)
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert (await other.get(NEW)).status == 200


async def test_a_kind_whose_storage_is_being_made_asks_for_patience(simulated, kinds):
    kinds.install(MACHINES)
    simulated.server.initializing.add("machines.cluster.x-k8s.io")
    api = await simulated.client("c")
    refused = await api.get(NEW)
    assert (refused.status, refused.body["message"]) == (429, "storage is (re)initializing")
