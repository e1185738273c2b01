"""Patches over the API: JSON, merge, strategic merge and apply."""

from __future__ import annotations

import pytest

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@pytest.fixture
async def path(api):
    await api.made(api.config_maps, api.config_map("a", {"tier": "x"}, one="1", two="2"))
    return f"{api.config_maps}/a"


@pytest.fixture
async def node(api):
    name = api.unique("node")
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    obj = {
        "metadata": {"name": name},
        "spec": {"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}]},
        "status": {"conditions": [condition, {"type": "DiskPressure", "status": "False"}]},
    }
    await api.made("/api/v1/nodes", obj)
    yield f"/api/v1/nodes/{name}"
    await api.delete(f"/api/v1/nodes/{name}")


async def test_a_merge_patch_adds_changes_and_removes(api, path):
    reply = await api.patch(path, {"data": {"one": None, "two": "22", "three": "3"}}, MERGE_PATCH)
    assert (reply.status, reply.body["data"]) == (200, {"two": "22", "three": "3"})
    assert reply.body["metadata"]["labels"] == {"tier": "x"}


async def test_a_patch_that_changes_nothing_keeps_the_version(api, path):
    before = await api.get(path)
    reply = await api.patch(path, {"data": {"one": "1"}})
    assert (reply.status, reply.version) == (200, before.version)


async def test_a_merge_patch_may_demand_a_version(api, path):
    version = (await api.get(path)).version
    demand = {"metadata": {"resourceVersion": version}, "data": {"one": "new"}}
    assert (await api.patch(path, demand)).status == 200
    reply = await api.patch(path, demand | {"data": {"one": "newer"}})
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")


async def test_a_patch_with_another_uid_is_invalid(api, path):
    reply = await api.patch(path, {"metadata": {"uid": "another"}})
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")


async def test_a_patch_of_an_absent_object_is_not_found(api):
    assert (await api.patch(f"{api.config_maps}/none", {"data": {}})).status == 404


async def test_a_json_patch_applies_its_operations_in_order(api, path):
    operations = [
        {"op": "test", "path": "/data/one", "value": "1"},
        {"op": "replace", "path": "/data/one", "value": "11"},
        {"op": "remove", "path": "/data/two"},
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/example.com~1key", "value": "v"},
    ]
    reply = await api.patch(path, operations, JSON_PATCH)
    assert (reply.status, reply.body["data"]) == (200, {"one": "11"})
    assert reply.body["metadata"]["annotations"] == {"example.com/key": "v"}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/data/one", "value": "2"},
        {"op": "test", "path": "/metadata/uid", "value": "another"},
        {"op": "replace", "path": "/none/deep", "value": "2"},
        {"op": "remove", "path": "/data/none"},
        {"op": "add", "path": "/none/deep", "value": "2"},
    ],
)
async def test_a_json_patch_that_does_not_fit_changes_nothing(api, path, operation):
    before = await api.get(path)
    operations = [{"op": "add", "path": "/data/new", "value": "v"}, operation]
    reply = await api.patch(path, operations, JSON_PATCH)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert (await api.get(path)).body == before.body


async def test_a_json_patch_replaces_an_absent_value_too(api, path):
    operations = [{"op": "replace", "path": "/data/none", "value": "2"}]
    reply = await api.patch(path, operations, JSON_PATCH)
    assert (reply.status, reply.body["data"]["none"]) == (200, "2")


async def test_a_json_patch_that_is_no_list_is_a_bad_request(api, path):
    reply = await api.patch(path, {"op": "remove", "path": "/data/one"}, JSON_PATCH)
    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")


async def test_a_patch_of_no_known_type_is_refused(api, path):
    for content_type in ("application/json", "text/plain"):
        reply = await api.patch(path, {"data": {}}, content_type)
        assert (reply.status, reply.body["reason"]) == (415, "UnsupportedMediaType")
        assert reply.body["message"] == "415: Unsupported Media Type"


async def test_a_strategic_patch_merges_conditions_by_type(api, node):
    change = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    reply = await api.patch(f"{node}/status", change, STRATEGIC_PATCH)
    conditions = {c["type"]: c for c in reply.body["status"]["conditions"]}
    assert set(conditions) == {"Ready", "DiskPressure"}
    assert conditions["Ready"]["status"] == "Unknown"
    assert conditions["Ready"]["reason"] == "KubeletReady"


async def test_a_strategic_patch_removes_an_element_by_its_key(api, node):
    change = {"status": {"conditions": [{"type": "DiskPressure", "$patch": "delete"}]}}
    reply = await api.patch(f"{node}/status", change, STRATEGIC_PATCH)
    assert [c["type"] for c in reply.body["status"]["conditions"]] == ["Ready"]


async def test_a_strategic_patch_replaces_taints_as_a_whole(api, node):
    taints = [{"key": "b", "effect": "NoExecute"}]
    reply = await api.patch(node, {"spec": {"taints": taints}}, STRATEGIC_PATCH)
    assert [taint["key"] for taint in reply.body["spec"]["taints"]] == ["b"]


async def test_a_strategic_patch_merges_finalizers_as_a_set(api, path):
    for finalizer in ("example.com/a", "example.com/b", "example.com/a"):
        change = {"metadata": {"finalizers": [finalizer]}}
        reply = await api.patch(path, change, STRATEGIC_PATCH)
    # the newest first, and known ones where they were
    assert reply.body["metadata"]["finalizers"] == ["example.com/b", "example.com/a"]
    change = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]}}
    reply = await api.patch(path, change, STRATEGIC_PATCH)
    assert reply.body["metadata"]["finalizers"] == ["example.com/b"]
    await api.patch(path, {"metadata": {"finalizers": None}})


async def test_an_apply_patch_creates_then_merges(api):
    path = f"{api.config_maps}/applied"
    obj = {"apiVersion": "v1", "kind": "ConfigMap", **api.config_map("applied", one="1")}
    reply = await api.patch(path, obj, APPLY_PATCH, fieldManager="suite")
    assert reply.status == 201
    obj["data"] = {"one": "2"}
    reply = await api.patch(path, obj, APPLY_PATCH, fieldManager="suite")
    assert (reply.status, reply.body["data"]) == (200, {"one": "2"})


async def test_an_apply_patch_may_be_yaml(api):
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  one: '1'\n"
    path = f"{api.config_maps}/applied"
    reply = await api.patch(path, body, APPLY_PATCH, fieldManager="suite")
    assert (reply.status, reply.body["data"]) == (201, {"one": "1"})


async def test_an_apply_patch_needs_a_field_manager(api, path):
    obj = {"apiVersion": "v1", "kind": "ConfigMap", **api.config_map("a")}
    reply = await api.patch(path, obj, APPLY_PATCH)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert "fieldManager" in reply.body["message"]
