"""Everything beside plain objects: discovery, subresources, admission, custom kinds, HTTP's own."""

from __future__ import annotations

import json
import stat

import pytest

from remediator.kube.transport import TransportError
from remediator.sim.apiserver import SubresourceCall
from remediator.sim.http_server import serve, write_kubeconfig
from remediator.sim.problems import Problem, forbidden
from remediator.sim.resources import PODS, VIRTUAL_MACHINES, ResourceType

MACHINES = ResourceType(
    "machine.openshift.io", "v1beta1", "machines", "Machine", status_subresource=True
)


async def test_discovery_names_groups_versions_and_kinds(api):
    assert (await api.get("/version")).body["major"] == "1"
    for path in ("/readyz", "/livez"):
        assert (await api.get(path)).raw == b"ok"
    assert "v1" in (await api.get("/api")).body["versions"]
    listed = (await api.get("/apis")).body  # in one document to who accepts it, else by group
    if listed["kind"] == "APIGroupDiscoveryList":
        groups = {group["metadata"]["name"] for group in listed["items"]}
    else:
        groups = {group["name"] for group in listed["groups"]}
    assert {"coordination.k8s.io", "storage.k8s.io", "policy", "apps"} <= groups
    listed = (await api.get("/api/v1")).body["resources"]
    kinds = {resource["name"]: resource for resource in listed}
    assert (kinds["pods"]["kind"], kinds["pods"]["namespaced"]) == ("Pod", True)
    assert kinds["nodes"]["namespaced"] is False
    assert "pods/status" in kinds


async def test_a_kind_is_served_once_it_is_registered(simulated):
    api = await simulated.client("c")
    path = "/apis/machine.openshift.io/v1beta1/namespaces/default/machines"
    assert (await api.get(path)).raw == b"404 page not found\n"
    simulated.registry.register(MACHINES)
    machine = {
        "apiVersion": "machine.openshift.io/v1beta1",
        "kind": "Machine",
        "metadata": {"name": "m"},
    }
    made = await api.made(path, machine)
    assert made["metadata"]["generation"] == 1
    assert (await api.get(path)).names == ["m"]
    assert (await api.get("/apis/machine.openshift.io/v1beta1")).status == 200
    with pytest.raises(ValueError, match="other traits"):
        simulated.registry.register(
            ResourceType("machine.openshift.io", "v1beta1", "machines", "Machine")
        )


async def test_custom_kinds_take_no_strategic_patch_and_no_unconditional_replace(simulated):
    api = await simulated.client("c")
    vm = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", **api.config_map("vm")}
    await api.made(api.vms, vm)
    reply = await api.patch(f"{api.vms}/vm", {"spec": {}}, "application/strategic-merge-patch+json")
    assert reply.status == 415
    assert "strategic" not in reply.body["message"]
    reply = await api.put(f"{api.vms}/vm", vm)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    reply = await api.post(api.vms, {"metadata": {"name": "other"}})
    assert reply.status == 400
    assert "Object 'Kind' is missing" in reply.body["message"]


async def test_a_vm_has_a_status_subresource_and_a_vmi_has_none(simulated):
    api = await simulated.client("c")
    for path, kind in ((api.vms, "VirtualMachine"), (api.vmis, "VirtualMachineInstance")):
        await api.made(
            path, {"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": {"name": "x"}}
        )
    status = {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}
    vm = (await api.patch(f"{api.vms}/x", status)).body
    assert "status" not in vm
    vm = (await api.patch(f"{api.vms}/x/status", status | {"spec": {"running": True}})).body
    assert (vm["status"], "spec" in vm) == ({"phase": "Running"}, False)
    assert vm["metadata"]["generation"] == 1
    vmi = (await api.patch(f"{api.vmis}/x", status)).body
    assert vmi["status"] == {"phase": "Running"}
    assert vmi["metadata"]["generation"] == 2  # without the subresource, status counts
    reply = await api.patch(f"{api.vmis}/x/status", status)
    assert reply.raw == b"404 page not found\n"


async def test_kubevirt_subresources_reach_their_handlers(simulated):
    api = await simulated.client("operator")
    calls: list[SubresourceCall] = []

    def start(call: SubresourceCall):
        calls.append(call)
        if call.name == "busy":
            raise Problem(409, "Conflict", "VM is already running")
        return 202, None

    simulated.server.register_subresource("VirtualMachine", "start", start)
    simulated.server.register_subresource("VirtualMachineInstance", "evacuate/cancel", start)
    root = "/apis/subresources.kubevirt.io/v1/namespaces/default"
    reply = await api.put(f"{root}/virtualmachines/db/start", {"paused": True})
    assert (reply.status, reply.raw) == (202, b"")
    assert (calls[0].name, calls[0].method, calls[0].body) == ("db", "PUT", {"paused": True})
    assert (calls[0].res, calls[0].user) == (VIRTUAL_MACHINES, "operator")
    reply = await api.put(f"{root}/virtualmachines/busy/start", None)
    assert (reply.status, reply.body["reason"]) == (409, "Conflict")
    assert (await api.put(f"{root}/virtualmachineinstances/x/evacuate/cancel", {})).status == 202
    for path in ("virtualmachines/db/fly", "virtualmachines/db"):
        assert (await api.put(f"{root}/{path}", {})).raw == b"404 page not found\n"


async def test_admission_sees_who_changes_what_and_may_edit_or_refuse(simulated):
    api = await simulated.client("webhook-test")
    seen = []

    def hook(request):
        seen.append((request.operation, request.res.kind, request.user))
        if request.operation == "CREATE" and request.res == PODS:
            request.obj["spec"]["schedulingGates"] = [{"name": "remediator/pace"}]
        if request.operation == "DELETE":
            raise forbidden(request.res, request.obj["metadata"]["name"], "not today")

    simulated.server.add_admission(hook)
    made = await api.made(api.pods, api.pod("p"))
    assert made["spec"]["schedulingGates"] == [{"name": "remediator/pace"}]
    in_process = simulated.store.create(PODS, api.pod("q"))
    assert in_process["spec"]["schedulingGates"] == [{"name": "remediator/pace"}]
    await api.patch(f"{api.pods}/p", {"metadata": {"labels": {"a": "b"}}})
    reply = await api.delete(f"{api.pods}/p")
    assert (reply.status, reply.body["reason"]) == (403, "Forbidden")
    assert (await api.get(f"{api.pods}/p")).status == 200
    assert seen == [
        ("CREATE", "Pod", "webhook-test"),
        ("CREATE", "Pod", ""),
        ("UPDATE", "Pod", "webhook-test"),
        ("DELETE", "Pod", "webhook-test"),
    ]


async def test_an_access_review_answers_what_the_scenario_grants(simulated):
    api = await simulated.client("daemon")
    simulated.server.access = lambda user, attributes: (
        user == "daemon" and attributes["verb"] != "delete"
    )
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for verb, allowed in (("get", True), ("delete", False)):
        review = {"spec": {"resourceAttributes": {"verb": verb, "resource": "pods"}}}
        reply = await api.post(path, review)
        assert (reply.status, reply.body["status"]) == (201, {"allowed": allowed})


async def test_a_dry_run_is_refused_rather_than_carried_out(simulated):
    api = await simulated.client("c")
    reply = await api.post(api.config_maps, api.config_map("a"), dryRun="All")
    assert reply.status == 400
    assert (await api.get(f"{api.config_maps}/a")).status == 404


# --- HTTP's own ---


@pytest.mark.parametrize("simulated", ["http"], indirect=True)
async def test_a_token_is_demanded_where_one_is_set(simulated, connect, tmp_path):
    url, close = await serve(simulated.server, token="secret")
    try:
        for token, status in (("secret", 200), ("wrong", 401), (None, 401)):
            api = connect(url, "c", token)
            assert (await api.get(api.config_maps)).status == status
            await api.transport.close()
    finally:
        await close()
    config = tmp_path / "kubeconfig"
    write_kubeconfig(config, url, "secret")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    written = json.loads(config.read_text())
    assert written["clusters"][0]["cluster"]["server"] == url
    assert written["users"][0]["user"] == {"token": "secret"}


@pytest.mark.parametrize("simulated", ["http"], indirect=True)
async def test_closing_the_server_ends_open_watches(simulated, connect):
    url, close = await serve(simulated.server)
    api = connect(url, "c")
    async with api.watch(api.config_maps, resourceVersion="1") as watch:
        await close()
        with pytest.raises((TransportError, StopAsyncIteration)):
            await watch.line()
    with pytest.raises(TransportError):
        await api.get(api.config_maps)
    await api.transport.close()
