"""Objects over the API: create, read, replace, and what is refused how."""

from __future__ import annotations

import pytest


async def test_a_created_object_gets_uid_version_and_creation_time(api):
    reply = await api.post(api.config_maps, api.config_map("a", key="value"))
    assert reply.status == 201
    metadata = reply.body["metadata"]
    assert metadata["namespace"] == api.namespace
    assert len(metadata["uid"]) == 36
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["creationTimestamp"].endswith("Z")
    assert (reply.body["kind"], reply.body["apiVersion"]) == ("ConfigMap", "v1")
    assert (await api.get(f"{api.config_maps}/a")).body == reply.body


async def test_a_name_can_be_taken_once(api):
    await api.made(api.config_maps, api.config_map("a"))
    reply = await api.post(api.config_maps, api.config_map("a"))
    assert (reply.status, reply.body["reason"]) == (409, "AlreadyExists")
    assert reply.body["message"] == 'configmaps "a" already exists'
    assert reply.body["details"] == {"name": "a", "kind": "configmaps"}


async def test_generate_name_adds_five_characters(api):
    first = await api.made(api.config_maps, {"metadata": {"generateName": "virt-launcher-"}})
    second = await api.made(api.config_maps, {"metadata": {"generateName": "virt-launcher-"}})
    names = {first["metadata"]["name"], second["metadata"]["name"]}
    assert len(names) == 2
    assert all(name.startswith("virt-launcher-") and len(name) == 19 for name in names)


@pytest.mark.parametrize("metadata", [{}, {"name": "Upper_Case"}])
async def test_an_object_without_a_valid_name_is_invalid(api, metadata):
    reply = await api.post(api.config_maps, {"metadata": metadata})
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert reply.body["details"]["causes"][0]["field"] == "metadata.name"


async def test_an_absent_object_is_not_found(api):
    reply = await api.get(f"{api.leases}/none")
    assert (reply.status, reply.body["reason"]) == (404, "NotFound")
    assert reply.body["message"] == 'leases.coordination.k8s.io "none" not found'
    assert reply.body["details"] == {
        "name": "none",
        "group": "coordination.k8s.io",
        "kind": "leases",
    }


async def test_an_unknown_kind_has_no_page(api):
    reply = await api.get("/apis/nobody.example.com/v1/things")
    assert (reply.status, reply.raw) == (404, b"404 page not found\n")


async def test_nothing_is_created_in_an_absent_namespace(api):
    reply = await api.post("/api/v1/namespaces/nowhere-at-all/configmaps", api.config_map("a"))
    assert (reply.status, reply.body["reason"]) == (404, "NotFound")
    assert reply.body["message"] == 'namespaces "nowhere-at-all" not found'


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}']
)
async def test_a_body_that_is_no_such_object_is_a_bad_request(api, body):
    reply = await api.post(api.config_maps, body)
    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")


async def test_a_body_of_an_unknown_type_is_refused(api):
    reply = await api.call("POST", api.config_maps, b"<xml/>", content_type="text/xml")
    assert (reply.status, reply.body["reason"]) == (415, "UnsupportedMediaType")


async def test_a_collection_cannot_be_put(api):
    reply = await api.put(api.config_maps, api.config_map("a"))
    assert (reply.status, reply.body["reason"]) == (405, "MethodNotAllowed")


async def test_a_create_cannot_carry_a_version(api):
    obj = api.config_map("a")
    obj["metadata"]["resourceVersion"] = "5"
    reply = await api.post(api.config_maps, obj)
    assert reply.status == 500
    assert reply.body["message"] == "resourceVersion should not be set on objects to be created"


# --- replace ---


async def test_a_replace_based_on_an_old_version_conflicts(api):
    made = await api.made(api.config_maps, api.config_map("a", key="1"))
    newer = await api.patch(f"{api.config_maps}/a", {"data": {"key": "2"}})
    assert int(newer.version) > int(made["metadata"]["resourceVersion"])
    reply = await api.put(f"{api.config_maps}/a", made)
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in reply.body["message"]
    assert (await api.get(f"{api.config_maps}/a")).body["data"] == {"key": "2"}


async def test_a_replace_that_changes_nothing_keeps_the_version(api):
    made = await api.made(api.config_maps, api.config_map("a", key="1"))
    reply = await api.put(f"{api.config_maps}/a", made)
    assert (reply.status, reply.version) == (200, made["metadata"]["resourceVersion"])


async def test_a_replace_without_version_is_unconditional_where_the_kind_allows_it(api):
    await api.made(api.config_maps, api.config_map("a", key="1"))
    reply = await api.put(f"{api.config_maps}/a", api.config_map("a", key="2"))
    assert (reply.status, reply.body["data"]) == (200, {"key": "2"})


async def test_a_lease_is_not_replaced_without_its_version(api):
    lease = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "one"}}
    await api.made(api.leases, lease)
    reply = await api.put(f"{api.leases}/leader", lease)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert "must be specified for an update" in reply.body["message"]


async def test_two_holders_of_one_lease_version_cannot_both_win(api):
    made = await api.made(api.leases, {"metadata": {"name": "leader"}, "spec": {}})
    one = {**made, "spec": {"holderIdentity": "one"}}
    two = {**made, "spec": {"holderIdentity": "two"}}
    replies = [await api.put(f"{api.leases}/leader", each) for each in (one, two)]
    assert [reply.status for reply in replies] == [200, 409]
    spec = (await api.get(f"{api.leases}/leader")).body["spec"]
    assert spec["holderIdentity"] == "one"


async def test_a_put_creates_an_absent_lease_but_no_absent_config_map(api):
    lease = {"metadata": {"name": "fresh"}, "spec": {"holderIdentity": "one"}}
    assert (await api.put(f"{api.leases}/fresh", lease)).status == 201
    reply = await api.put(f"{api.config_maps}/fresh", api.config_map("fresh"))
    assert (reply.status, reply.body["reason"]) == (404, "NotFound")


async def test_a_replace_means_the_object_of_its_uid(api):
    made = await api.made(api.config_maps, api.config_map("a"))
    await api.delete(f"{api.config_maps}/a")
    await api.made(api.config_maps, api.config_map("a"))
    del made["metadata"]["resourceVersion"]
    reply = await api.put(f"{api.config_maps}/a", made)
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")


async def test_a_replace_must_name_the_object_of_its_path(api):
    await api.made(api.config_maps, api.config_map("a"))
    reply = await api.put(f"{api.config_maps}/a", api.config_map("b"))
    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize("time", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123Z", "now"])
async def test_lease_times_have_exactly_six_decimals(api, time):
    lease = {"metadata": {"name": "leader"}, "spec": {"renewTime": time}}
    reply = await api.post(api.leases, lease)
    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")
    lease["spec"]["renewTime"] = "2026-01-02T03:04:05.123000Z"
    assert (await api.post(api.leases, lease)).status == 201


# --- status and specification ---


async def test_a_node_registers_with_its_status_and_keeps_it_apart(api):
    name = api.unique("node")
    path = f"/api/v1/nodes/{name}"
    ready = {"type": "Ready", "status": "True"}
    made = await api.made(
        "/api/v1/nodes", {"metadata": {"name": name}, "status": {"conditions": [ready]}}
    )
    try:
        assert made["status"]["conditions"][0]["status"] == "True"
        cordon = {"spec": {"unschedulable": True}, "status": {"conditions": []}}
        changed = (await api.patch(path, cordon)).body
        assert changed["spec"]["unschedulable"] is True
        assert changed["status"]["conditions"][0]["status"] == "True"
        lost = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
        changed = (
            await api.patch(f"{path}/status", {"spec": {"unschedulable": False}, "status": lost})
        ).body
        assert changed["spec"]["unschedulable"] is True
        assert changed["status"]["conditions"][0]["status"] == "Unknown"
        labelled = {"metadata": {"labels": {"by": "status"}}}
        changed = (await api.patch(f"{path}/status", labelled)).body
        assert changed["metadata"]["labels"]["by"] == "status"
    finally:
        await api.delete(path)


async def test_a_new_pod_is_pending_whatever_status_it_brings(api):
    made = await api.made(api.pods, {**api.pod("p"), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    assert made["spec"]["terminationGracePeriodSeconds"] == 30
    waits = {t["key"]: t["tolerationSeconds"] for t in made["spec"]["tolerations"]}
    assert waits == {
        "node.kubernetes.io/not-ready": 300,
        "node.kubernetes.io/unreachable": 300,
    }


async def test_generation_counts_changes_of_the_specification_only(api):
    made = await api.made(api.pods, api.pod("p"))
    assert made["metadata"]["generation"] == 1
    path = f"{api.pods}/p"
    labelled = await api.patch(path, {"metadata": {"labels": {"a": "b"}}})
    assert labelled.body["metadata"]["generation"] == 1
    status = await api.patch(f"{path}/status", {"status": {"phase": "Running"}})
    assert status.body["metadata"]["generation"] == 1
    changed = await api.patch(path, {"spec": {"activeDeadlineSeconds": 100}})
    assert changed.body["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    "change",
    [{"nodeName": "n2"}, {"terminationGracePeriodSeconds": 5}, {"nodeSelector": {"a": "b"}}],
)
async def test_a_pods_specification_is_fixed(api, change):
    await api.made(api.pods, api.pod("p"))
    reply = await api.patch(f"{api.pods}/p", {"spec": change})
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert reply.body["details"]["causes"][0]["field"] == "spec"
    assert "pod updates may not change fields other than" in reply.body["message"]


async def test_a_taint_is_refused_when_its_effect_is_none_or_it_is_there_twice(api):
    name = api.unique("node")
    path = f"/api/v1/nodes/{name}"
    await api.made("/api/v1/nodes", {"metadata": {"name": name}})
    try:
        for taints in (
            [{"key": "a", "effect": "Never"}],
            [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}],
        ):
            reply = await api.patch(path, {"spec": {"taints": taints}})
            assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    finally:
        await api.delete(path)


# --- pods: binding and gates ---


def binding(pod, node):
    return {"metadata": {"name": pod}, "target": {"name": node}}


async def test_a_pod_is_bound_once(api):
    pod = await api.bound_pod("p", node="n1")
    assert pod["spec"]["nodeName"] == "n1"
    scheduled = [c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"]
    assert [c["status"] for c in scheduled] == ["True"]
    reply = await api.post(f"{api.pods}/p/binding", {"target": {"name": "n2"}})
    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")  # a Binding names its pod
    reply = await api.post(f"{api.pods}/p/binding", binding("p", "n2"))
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")
    assert 'pod p is already assigned to node "n1"' in reply.body["message"]


async def test_a_gated_pod_is_bound_only_when_its_gates_are_gone(api):
    gates = [{"name": "remediator/pace"}, {"name": "other"}]
    made = await api.made(api.pods, api.pod("p", schedulingGates=gates))
    assert made["status"]["conditions"][0]["reason"] == "SchedulingGated"
    path = f"{api.pods}/p"
    reply = await api.post(f"{path}/binding", binding("p", "n1"))
    assert reply.status == 409
    assert "non-empty .spec.schedulingGates" in reply.body["message"]
    assert (await api.patch(path, {"spec": {"schedulingGates": gates[:1]}})).status == 200
    reply = await api.patch(path, {"spec": {"schedulingGates": gates}})
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert "only deletion is allowed" in reply.body["message"]
    assert (await api.patch(path, {"spec": {"schedulingGates": None}})).status == 200
    reply = await api.post(f"{path}/binding", binding("p", "n1"))
    assert reply.status == 201
