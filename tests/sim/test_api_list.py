"""Lists over the API: selectors, versions, and pages of one snapshot."""

from __future__ import annotations

import base64
import json

import pytest


@pytest.fixture
async def many(api):
    """Seven config maps, m0 to m6, of the tiers x and y in turn."""
    for number in range(7):
        tier = "xy"[number % 2]
        labels = {"tier": tier, "number": str(number)}
        await api.made(api.config_maps, api.config_map(f"m{number}", labels))
    return api.config_maps


OURS = {"fieldSelector": "metadata.name!=kube-root-ca.crt"}  # a real cluster adds this one


async def test_a_list_names_its_kind_and_version_and_keeps_the_order_of_names(api, many):
    reply = await api.get(many, **OURS)
    assert (reply.status, reply.body["kind"], reply.body["apiVersion"]) == (
        200,
        "ConfigMapList",
        "v1",
    )
    assert reply.names == [f"m{number}" for number in range(7)]
    newest = max(int(item["metadata"]["resourceVersion"]) for item in reply.body["items"])
    assert int(reply.version) >= newest


async def test_items_of_built_in_lists_carry_no_kind(api, many):
    items = (await api.get(many)).body["items"]
    assert all("kind" not in item and "apiVersion" not in item for item in items)


@pytest.mark.usefixtures("many")
async def test_a_list_over_all_namespaces_holds_this_one(api):
    reply = await api.get("/api/v1/configmaps", labelSelector="number=3")
    assert ("m3", api.namespace) in [
        (item["metadata"]["name"], item["metadata"]["namespace"]) for item in reply.body["items"]
    ]


@pytest.mark.parametrize(
    ("selector", "numbers"),
    [
        ("tier=x", "0246"),
        ("tier==x,number!=2", "046"),
        ("tier in (x, z),number notin (0,2)", "46"),
        ("tier,!absent,number>4", "56"),
        ("number<2", "01"),
        ("absent", ""),
        ("tier!=x,number", "135"),
    ],
)
async def test_label_selectors(api, many, selector, numbers):
    reply = await api.get(many, labelSelector=selector)
    assert reply.names == [f"m{number}" for number in numbers]


@pytest.mark.parametrize(
    "query",
    [
        {"labelSelector": "tier in x"},
        {"labelSelector": "a b"},
        {"fieldSelector": "spec.nobody=1"},
        {"fieldSelector": "metadata.name"},
        {"limit": "many"},
        {"continue": "no token"},
    ],
)
async def test_options_that_cannot_be_read_are_a_bad_request(api, query):
    reply = await api.get(api.config_maps, **query)
    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")


async def test_field_selectors(api):
    await api.bound_pod("a", node="n1")
    await api.bound_pod("b", node="n2")
    await api.made(api.pods, api.pod("c"))
    await api.patch(f"{api.pods}/b/status", {"status": {"phase": "Running"}})
    for selector, names in (
        ("spec.nodeName=n1", ["a"]),
        ("spec.nodeName=", ["c"]),
        ("status.phase!=Running", ["a", "c"]),
        ("metadata.name=b,status.phase=Running", ["b"]),
    ):
        assert (await api.get(api.pods, fieldSelector=selector)).names == names


# --- pages ---


async def test_pages_are_one_snapshot_whatever_happens_between_them(api, many):
    first = await api.get(many, limit="3", labelSelector="tier")
    assert first.names == ["m0", "m1", "m2"]
    await api.delete(f"{many}/m4")
    await api.made(many, api.config_map("m5a", {"tier": "x"}))
    await api.patch(f"{many}/m6", {"metadata": {"labels": {"tier": None}}})
    second = await api.get(
        many, limit="3", labelSelector="tier", **{"continue": first.body["metadata"]["continue"]}
    )
    third = await api.get(
        many, limit="3", labelSelector="tier", **{"continue": second.body["metadata"]["continue"]}
    )
    assert second.names + third.names == ["m3", "m4", "m5", "m6"]
    assert first.version == second.version == third.version
    assert "continue" not in third.body["metadata"]


async def test_a_page_tells_how_many_remain_unless_it_filters(api, many):
    whole = len((await api.get(many)).names)
    reply = await api.get(many, limit="3")
    assert reply.body["metadata"]["remainingItemCount"] == whole - 3
    reply = await api.get(many, limit="3", labelSelector="tier")
    assert "remainingItemCount" not in reply.body["metadata"]


async def test_a_list_at_version_zero_ignores_its_limit(api, many):
    reply = await api.get(many, limit="3", resourceVersion="0", labelSelector="tier")
    assert len(reply.names) == 7
    assert "continue" not in reply.body["metadata"]


async def test_an_exact_list_shows_the_past(api, many):
    version = (await api.get(many)).version
    await api.delete(f"{many}/m0")
    reply = await api.get(
        many, resourceVersion=version, resourceVersionMatch="Exact", labelSelector="tier"
    )
    assert (reply.version, len(reply.names)) == (version, 7)
    newer = await api.get(
        many, resourceVersion=version, resourceVersionMatch="NotOlderThan", labelSelector="tier"
    )
    assert len(newer.names) == 6


async def test_a_version_from_the_future_is_told_to_wait(api):
    version = str(int((await api.get(api.config_maps)).version) + 1_000_000)
    reply = await api.get(api.config_maps, resourceVersion=version)
    assert (reply.status, reply.body["reason"]) == (504, "Timeout")
    assert reply.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert reply.body["details"]["retryAfterSeconds"] == 1


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Nearly", "resourceVersion": "5"},
        {"sendInitialEvents": "true"},
    ],
)
async def test_options_that_exclude_each_other_are_invalid(api, query):
    reply = await api.get(api.config_maps, **query)
    assert (reply.status, reply.body["reason"]) == (422, "Invalid")
    assert reply.body["details"]["kind"] == "ListOptions"


# --- what only a simulated server can be made to do at will ---


async def test_an_expired_page_is_gone_and_offers_the_rest_as_it_is_now(simulated):
    api = await simulated.client("c")
    for number in range(4):
        await api.made(api.config_maps, api.config_map(f"m{number}"))
    first = await api.get(api.config_maps, limit="2")
    await api.made(api.config_maps, api.config_map("m9"))
    simulated.store.compact()
    token = first.body["metadata"]["continue"]
    gone = await api.get(api.config_maps, limit="2", **{"continue": token})
    assert (gone.status, gone.body["reason"]) == (410, "Expired")
    rest = gone.body["metadata"]["continue"]
    reply = await api.get(api.config_maps, **{"continue": rest})
    assert reply.names == ["m2", "m3", "m9"]


async def test_an_exact_list_older_than_the_window_is_gone(simulated):
    api = await simulated.client("c")
    version = (await api.get(api.config_maps)).version
    for number in range(101):  # the window of this server holds 100 events
        await api.made(api.config_maps, api.config_map(f"m{number}"))
    reply = await api.get(api.config_maps, resourceVersion=version, resourceVersionMatch="Exact")
    assert (reply.status, reply.body["reason"]) == (410, "Expired")


async def test_a_continue_token_says_what_it_is(simulated):
    api = await simulated.client("c")
    for name in ("a", "b"):
        await api.made(api.config_maps, api.config_map(name))
    reply = await api.get(api.config_maps, limit="1")
    token = reply.body["metadata"]["continue"]
    decoded = json.loads(base64.urlsafe_b64decode(token + "=="))
    assert decoded == {"rv": int(reply.version), "start": "default/a", "v": "meta.k8s.io/v1"}


async def test_items_of_custom_lists_carry_their_kind(simulated):
    api = await simulated.client("c")
    await api.made(
        api.vms, {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", **api.config_map("vm")}
    )
    (item,) = (await api.get(api.vms)).body["items"]
    assert (item["kind"], item["apiVersion"]) == ("VirtualMachine", "kubevirt.io/v1")
