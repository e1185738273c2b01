"""What is served is found by one look for all; a look that fails takes nothing back."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

import msgspec
import pytest
import structlog

from remediator.clock import Clock
from remediator.kube import discovery as discovery_module
from remediator.kube.cluster import ClusterTransport
from remediator.kube.discovery import ApiDiscovery, DiscoverySettings
from remediator.kube.transport import Response, accepted
from remediator.sim.apiserver import ApiServer
from remediator.sim.custom_kinds import CustomKinds, as_stored
from remediator.sim.http_server import serve as serve_simulated
from remediator.sim.http_server import write_kubeconfig
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import Registry, ResourceType
from remediator.sim.store import Store
from tests.kube.reflecting import until
from tests.kube.scripted import Hang, Reset, ScriptedTransport, answer, on_virtual_time, status

MACHINES = ResourceType("cluster.x-k8s.io", "v1beta1", "machines", "Machine")
CHECKS = ResourceType("cluster.x-k8s.io", "v1beta1", "machinehealthchecks", "MachineHealthCheck")
HOSTS = ResourceType("metal3.io", "v1alpha1", "baremetalhosts", "BareMetalHost")
WANTED = [(res.group, res.plural) for res in (MACHINES, CHECKS, HOSTS)]
ABSENT = [("a.example", f"things{number}") for number in range(20)]


class Counted:
    """A transport that remembers the paths that were asked for."""

    def __init__(self, inner):
        self.inner = inner
        self.paths = []

    async def request(self, method, path, **more):
        self.paths.append(path)
        return await self.inner.request(method, path, **more)

    def stream(self, path, **more):
        return self.inner.stream(path, **more)

    async def close(self):
        await self.inner.close()

    def take(self):
        paths, self.paths = self.paths, []
        return paths


def server():
    clock = Clock(epoch_at_start=1_800_000_000.0)
    return ApiServer(Store(now=clock.now, rng=random.Random(1)), Registry())


@asynccontextmanager
async def looking(transport, wanted=WANTED, **settings):
    discovery = ApiDiscovery(
        transport, wanted, rng=random.Random(3), settings=DiscoverySettings(**settings)
    )
    task = asyncio.create_task(discovery.run())
    try:
        yield discovery
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})


@on_virtual_time
async def test_one_request_a_period_finds_all_of_them_and_costs_no_more_while_all_are_absent():
    transport = Counted(MemoryTransport(server(), client_name="c"))
    async with looking(transport, [*WANTED, *ABSENT]) as discovery:
        await asyncio.sleep(600)
        assert {discovery.served(*one) for one in [*WANTED, *ABSENT]} == {()}
    assert set(transport.paths) == {"/apis"}
    assert 600 / 36 <= len(transport.paths) == discovery.looks <= 600 / 24 + 1


@on_virtual_time
@pytest.mark.parametrize("aggregated", [True, False])
async def test_what_is_installed_later_is_found_within_a_period(aggregated):
    api = server()
    api.aggregated_discovery = aggregated
    kinds = CustomKinds(api)
    kinds.install(MACHINES)
    async with looking(MemoryTransport(api, client_name="c")) as discovery:
        await asyncio.sleep(1)
        assert discovery.served("cluster.x-k8s.io", "machines") == ("v1beta1",)
        assert discovery.served("cluster.x-k8s.io", "machinehealthchecks") == ()
        assert discovery.served("metal3.io", "baremetalhosts") == ()
        kinds.install(CHECKS)  # into a group that was there: by group, only its resources tell
        kinds.install(HOSTS)
        await asyncio.sleep(37)
        assert discovery.served("cluster.x-k8s.io", "machinehealthchecks") == ("v1beta1",)
        assert discovery.served("metal3.io", "baremetalhosts") == ("v1alpha1",)
        kinds.remove(HOSTS)
        await asyncio.sleep(37)
        assert discovery.served("metal3.io", "baremetalhosts") == ()
        assert discovery.served("a.example", "never-asked-for") is None


@on_virtual_time
async def test_by_group_what_is_all_known_is_not_read_again_and_a_hurried_look_reads_all():
    api = server()
    api.aggregated_discovery = False
    kinds = CustomKinds(api)
    for res in (MACHINES, CHECKS):
        kinds.install(res)
    transport = Counted(MemoryTransport(api, client_name="c"))
    async with looking(transport) as discovery:
        await asyncio.sleep(5)
        assert transport.take() == ["/apis", "/apis/cluster.x-k8s.io/v1beta1"]
        await asyncio.sleep(100)
        assert set(transport.take()) == {"/apis"}
        kinds.remove(CHECKS)
        discovery.look()
        await asyncio.sleep(2)
        assert discovery.served("cluster.x-k8s.io", "machinehealthchecks") == ()
        assert transport.take() == ["/apis", "/apis/cluster.x-k8s.io/v1beta1"]


@on_virtual_time
@pytest.mark.parametrize("aggregated", [True, False])
async def test_versions_come_in_the_order_in_which_the_server_prefers_them(aggregated):
    if aggregated:
        versions = [
            {"version": v, "resources": [{"resource": "machines", "verbs": ["list", "watch"]}]}
            for v in ("v1beta2", "v1beta1")
        ]
        item = {"metadata": {"name": "cluster.x-k8s.io"}, "versions": versions}
        answers = {"/apis": {"kind": "APIGroupDiscoveryList", "items": [item]}}
    else:
        group = {
            "name": "cluster.x-k8s.io",
            "versions": [{"version": "v1beta1"}, {"version": "v1beta2"}],
            "preferredVersion": {"version": "v1beta2"},
        }
        listed = {"resources": [{"name": "machines", "verbs": ["list", "watch", "get"]}]}
        answers = {
            "/apis": {"kind": "APIGroupList", "groups": [group]},
            "/apis/cluster.x-k8s.io/v1beta1": listed,
            "/apis/cluster.x-k8s.io/v1beta2": listed,
        }
    transport = ScriptedTransport(lambda call: answer(answers[call.path]))
    async with looking(transport) as discovery:
        await asyncio.sleep(1)
        assert discovery.served("cluster.x-k8s.io", "machines") == ("v1beta2", "v1beta1")


@on_virtual_time
async def test_what_cannot_be_listed_and_watched_is_not_served():
    resources = [{"resource": "machines", "verbs": ["create"]}, {"resource": "machines/status"}]
    item = {
        "metadata": {"name": "cluster.x-k8s.io"},
        "versions": [{"version": "v1", "resources": resources}],
    }
    transport = ScriptedTransport(lambda _: answer({"kind": "x", "items": [item]}))
    async with looking(transport) as discovery:
        await asyncio.sleep(1)
        assert discovery.served("cluster.x-k8s.io", "machines") == ()


def one_group(freshness="Current", resources=()):
    described = [{"resource": name, "verbs": ["list", "watch"]} for name in resources]
    version = {"version": "v1alpha1", "freshness": freshness, "resources": described}
    item = {"metadata": {"name": "metal3.io"}, "versions": [version]}
    return answer({"kind": "APIGroupDiscoveryList", "items": [item]})


@on_virtual_time
@pytest.mark.parametrize(
    "trouble",
    [
        Reset(),
        Hang(),
        status(503, "ServiceUnavailable"),
        status(429, "TooManyRequests"),
        answer(b"<html>"),
        answer(b"[]"),
        answer({"kind": "Status"}),
        answer({"kind": "APIGroupDiscoveryList", "items": [7]}),
        answer({"kind": "APIGroupDiscoveryList", "items": None}),
        one_group("Stale"),
        Response(status=200, headers={}, body=b"\xff\xfe"),
    ],
    ids=repr,
)
async def test_a_look_that_fails_takes_nothing_back_and_is_repeated_with_patience(trouble):
    good = one_group(resources=["baremetalhosts"])
    said = {"now": good}
    transport = ScriptedTransport(lambda _: said["now"])
    async with looking(transport) as discovery:
        await asyncio.sleep(1)
        assert discovery.served("metal3.io", "baremetalhosts") == ("v1alpha1",)
        said["now"] = trouble
        asked = len(transport.calls)
        await asyncio.sleep(600)
        assert discovery.served("metal3.io", "baremetalhosts") == ("v1alpha1",)
        assert not discovery.refused
        assert len(transport.calls) - asked < 70
        said["now"] = one_group()
        await asyncio.sleep(60)
        assert discovery.served("metal3.io", "baremetalhosts") == ()


@on_virtual_time
async def test_by_group_trouble_of_one_group_hinders_no_other():
    def script(call):
        if call.path == "/apis":
            names = ("cluster.x-k8s.io", "metal3.io")
            groups = [{"name": name, "versions": [{"version": "v1"}]} for name in names]
            return answer({"kind": "APIGroupList", "groups": groups})
        if "metal3" in call.path:
            listed = [{"name": "baremetalhosts", "verbs": ["list", "watch"]}]
            return answer({"resources": listed})
        return status(503, "ServiceUnavailable")

    async with looking(ScriptedTransport(script)) as discovery:
        await asyncio.sleep(1)
        assert discovery.served("metal3.io", "baremetalhosts") == ("v1",)
        assert discovery.served("cluster.x-k8s.io", "machines") is None


@on_virtual_time
async def test_who_may_not_look_is_told_so_and_it_is_said_once():
    said = {"now": status(403, "Forbidden")}
    transport = ScriptedTransport(lambda _: said["now"])
    with structlog.testing.capture_logs() as logs:
        async with looking(transport) as discovery:
            async with asyncio.timeout(1):
                await discovery.answered()
            assert discovery.refused
            assert discovery.served("metal3.io", "baremetalhosts") is None
            await asyncio.sleep(300)
            said["now"] = one_group()
            await asyncio.sleep(31)
            assert not discovery.refused
    assert [each["event"] for each in logs].count("discovery_failed") == 1


@on_virtual_time
async def test_many_who_ask_cost_one_look_a_second():
    transport = Counted(MemoryTransport(server(), client_name="c"))
    async with looking(transport) as discovery:
        for _ in range(100):
            discovery.look()
            await asyncio.sleep(0.1)
    assert len(transport.paths) <= 11


async def test_a_real_client_gets_all_in_one_document(tmp_path):
    assert "as=APIGroupDiscoveryList" in accepted("/apis")
    assert accepted("/apis/metal3.io/v1alpha1") == accepted("/api") == "application/json"
    api = server()
    CustomKinds(api).install(MACHINES, also={"v1beta2": as_stored})
    url, close = await serve_simulated(api)
    write_kubeconfig(tmp_path / "kubeconfig", url)
    opened = await ClusterTransport.open(kubeconfig=str(tmp_path / "kubeconfig"))
    transport = Counted(opened)
    try:
        response = await transport.request("GET", "/apis", timeout_s=5.0)
        assert msgspec.json.decode(response.body)["kind"] == "APIGroupDiscoveryList"
        transport.take()
        async with looking(transport) as discovery:
            await until(lambda: discovery.served("cluster.x-k8s.io", "machines"))
            assert discovery.served("cluster.x-k8s.io", "machines") == ("v1beta1", "v1beta2")
        assert transport.take() == ["/apis"]
    finally:
        await opened.close()
        await close()
        api.close()


@on_virtual_time
async def test_a_document_that_says_what_it_said_is_not_read_again(monkeypatch):
    api = server()
    kinds = CustomKinds(api)
    kinds.install(MACHINES)
    read = []
    whole = discovery_module._decode

    def reading(response, decoder, path):
        read.append(path)
        return whole(response, decoder, path)

    monkeypatch.setattr(discovery_module, "_decode", reading)
    async with looking(MemoryTransport(api, client_name="c")) as discovery:
        await asyncio.sleep(600)
        assert discovery.looks > 16
        assert len(read) == 1
        kinds.install(HOSTS)
        await asyncio.sleep(37)
        assert discovery.served("metal3.io", "baremetalhosts") == ("v1alpha1",)
        assert len(read) == 2
