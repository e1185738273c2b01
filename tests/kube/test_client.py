from __future__ import annotations

from typing import Any

import pytest

from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.errors import ConflictError, NotFoundError, UnreadableAnswerError
from remediator.kube.objects import NODES, PODS, Node
from remediator.kube.transport import TransportError
from tests.kube.scripted import Hang, ScriptedTransport, answer, node, on_virtual_time, page, status


def client_of(script):
    transport = ScriptedTransport(script)
    return KubeClient(transport), transport.calls


@on_virtual_time
async def test_an_object_is_read_into_the_type_asked_for():
    client, calls = client_of(lambda _: answer(node("n1", 5)))
    read = await client.get(NODES.object_path("n1"), Node)
    assert (read.name, read.resource_version) == ("n1", "5")
    assert await client.get("/x", dict[str, Any]) == node("n1", 5)
    assert [(call.method, call.path, call.body) for call in calls] == [
        ("GET", "/api/v1/nodes/n1", None),
        ("GET", "/x", None),
    ]


@on_virtual_time
@pytest.mark.parametrize("kind", list(PatchKind))
async def test_a_patch_names_its_content_type(kind):
    client, calls = client_of(lambda _: answer(node("n1", 6)))
    patch = [{"op": "test"}] if kind is PatchKind.JSON else {"spec": {"unschedulable": True}}
    changed = await client.patch("/n", patch, kind=kind, result=Node, query=[("a", "b")])
    assert changed.resource_version == "6"
    assert calls[0].content_type == kind.value
    assert (calls[0].body, calls[0].query) == (patch, {"a": "b"})


@on_virtual_time
async def test_writes_are_json_and_a_subresource_needs_no_body():
    client, calls = client_of(lambda _: answer({}, 202))
    await client.create("/c", {"a": 1})
    await client.replace("/r", {"b": 2})
    await client.replace("/start", None)
    assert [(call.method, call.body, call.content_type) for call in calls] == [
        ("POST", {"a": 1}, "application/json"),
        ("PUT", {"b": 2}, "application/json"),
        ("PUT", None, "application/json"),
    ]


@on_virtual_time
async def test_a_delete_carries_its_preconditions_and_grace():
    client, calls = client_of(lambda _: answer({}))
    await client.delete("/p", uid="u1", resource_version="7", grace_s=0)
    await client.delete("/p")
    assert calls[0].method == "DELETE"
    assert calls[0].body == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "preconditions": {"uid": "u1", "resourceVersion": "7"},
        "gracePeriodSeconds": 0,
    }
    assert calls[1].body == {"kind": "DeleteOptions", "apiVersion": "v1"}


@on_virtual_time
async def test_refusals_are_raised_by_meaning():
    client, _ = client_of(lambda call: status(404 if call.method == "DELETE" else 409, "No"))
    with pytest.raises(NotFoundError):
        await client.delete("/p", uid="u1")
    with pytest.raises(ConflictError):
        await client.create("/p", {}, dict)


@on_virtual_time
async def test_a_success_that_is_a_proxys_page_is_an_error_and_not_an_object():
    client, _ = client_of(lambda _: answer(b"<html><title>Login</title>"))
    with pytest.raises(UnreadableAnswerError, match="Login"):
        await client.get("/x", Node)


@on_virtual_time
async def test_no_answer_within_the_timeout_is_a_transport_error():
    client, calls = client_of(lambda _: Hang())
    with pytest.raises(TransportError):
        await client.get("/x", Node, timeout_s=2.5)
    assert len(calls) == 1, "nothing is retried here"


@on_virtual_time
async def test_a_collection_is_read_page_by_page_with_its_selectors():
    def script(call):
        if "continue" not in call.query:
            return page(node("a", 1), version=9, token="next")
        return page(node("b", 2), version=9)

    client, calls = client_of(script)
    pods = await client.list_all(
        PODS, namespace="pay", query=[("fieldSelector", "spec.nodeName=n1")]
    )
    assert [pod.name for pod in pods] == ["a", "b"]
    assert {call.path for call in calls} == {"/api/v1/namespaces/pay/pods"}
    assert calls[1].query == {
        "fieldSelector": "spec.nodeName=n1",
        "limit": "500",
        "continue": "next",
    }


@on_virtual_time
async def test_a_collection_whose_snapshot_expires_is_read_anew_in_one_piece():
    def script(call):
        if "continue" in call.query:
            return status(410, "Expired")
        if "limit" in call.query:
            return page(node("deleted", 1), version=9, token="next")
        return page(node("a", 3), node("b", 2), version=12)

    client, calls = client_of(script)
    assert [item.name for item in await client.list_all(NODES)] == ["a", "b"]
    assert len(calls) == 3
