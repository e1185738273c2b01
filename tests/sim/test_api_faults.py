"""Faults of the API server and of the way to it, on both faces."""

from __future__ import annotations

import asyncio

import pytest

from remediator.kube.transport import TransportError

SHORT_S = 0.2


async def ask(api, path="/readyz", *, method="GET", body=None, timeout_s=SHORT_S):
    return await api.transport.request(
        method, path, body=body, content_type="application/json", timeout_s=timeout_s
    )


async def test_a_partitioned_client_gets_no_answer_and_others_do(simulated):
    cut, well = await simulated.client("cut"), await simulated.client("well")
    simulated.faults.partition("cut")
    with pytest.raises(TransportError):
        await ask(cut)
    assert (await ask(well)).status == 200
    simulated.faults.heal("cut")
    assert (await ask(cut)).status == 200


async def test_a_request_of_a_partitioned_client_has_no_effect(simulated):
    api = await simulated.client("cut")
    simulated.faults.partition("cut")
    with pytest.raises(TransportError):
        await ask(api, api.config_maps, method="POST", body=b'{"metadata":{"name":"a"}}')
    simulated.faults.heal("cut")
    assert (await api.get(f"{api.config_maps}/a")).status == 404


async def test_a_partitioned_watch_goes_silent_without_ending_and_catches_up(simulated):
    api = await simulated.client("cut")
    version = (await api.get(api.config_maps)).version
    other = await simulated.client("well")
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        simulated.faults.partition("cut")
        await other.made(other.config_maps, other.config_map("a"))
        next_event = asyncio.create_task(watch.seen())
        done, _ = await asyncio.wait([next_event], timeout=SHORT_S)
        assert not done
        simulated.faults.heal("cut")
        assert await next_event == ("ADDED", "a")


async def test_a_hanging_server_answers_nobody_and_later_everybody(simulated):
    api = await simulated.client("c")
    simulated.faults.hang()
    with pytest.raises(TransportError):
        await ask(api)
    patient = asyncio.create_task(ask(api, timeout_s=10))
    done, _ = await asyncio.wait([patient], timeout=SHORT_S)
    assert not done
    simulated.faults.clear()
    assert (await patient).status == 200


async def test_a_request_given_up_during_a_hang_has_no_effect(simulated):
    api = await simulated.client("c")
    simulated.faults.hang()
    with pytest.raises(TransportError):
        await ask(api, api.config_maps, method="POST", body=b'{"metadata":{"name":"a"}}')
    simulated.faults.clear()
    assert (await api.get(f"{api.config_maps}/a")).status == 404


async def test_an_answer_may_be_lost_after_the_effect(simulated):
    api = await simulated.client("c")
    simulated.faults.hang(after_commit=True)
    with pytest.raises(TransportError):
        await ask(api, api.config_maps, method="POST", body=b'{"metadata":{"name":"a"}}')
    simulated.faults.clear()
    assert (await api.get(f"{api.config_maps}/a")).status == 200


async def test_a_reset_breaks_watches_and_refuses_requests_until_it_is_cleared(simulated):
    api = await simulated.client("c")
    async with api.watch(api.config_maps, resourceVersion="1") as watch:
        simulated.faults.reset()
        with pytest.raises(TransportError):
            await watch.line()
    with pytest.raises(TransportError):
        await ask(api)
    simulated.faults.clear()
    assert (await ask(api)).status == 200


async def test_dropped_connections_break_watches_but_not_later_requests(simulated):
    api = await simulated.client("c")
    async with api.watch(api.config_maps, resourceVersion="1") as watch:
        simulated.faults.drop_connections()
        with pytest.raises(TransportError):
            await watch.line()
    assert (await ask(api)).status == 200


async def test_half_a_line_is_never_read_as_a_line(simulated):
    api = await simulated.client("c")
    version = (await api.get(api.config_maps)).version
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        await api.made(api.config_maps, api.config_map("a"))
        assert await watch.seen() == ("ADDED", "a")
        simulated.faults.cut_half_line()
        await api.made(api.config_maps, api.config_map("b"))
        with pytest.raises(TransportError):
            await watch.line()


async def test_too_many_requests_say_when_to_come_back_and_spare_open_watches(simulated):
    api = await simulated.client("c")
    version = (await api.get(api.config_maps)).version
    async with api.watch(api.config_maps, resourceVersion=version) as watch:
        simulated.faults.too_many(7)
        reply = await api.get(api.config_maps)
        assert (reply.status, reply.headers["retry-after"]) == (429, "7")
        assert reply.body["reason"] == "TooManyRequests"
        refused = await api.get(api.config_maps, watch="true")
        assert refused.status == 429
        kind = simulated.registry.find("", "v1", "configmaps")
        simulated.store.create(kind, api.config_map("a"))
        assert await watch.seen() == ("ADDED", "a")
        simulated.faults.clear()
        assert (await api.get(api.config_maps)).status == 200


async def test_a_load_balancers_503_is_html(simulated):
    api = await simulated.client("c")
    simulated.faults.unavailable_html()
    reply = await api.get(api.config_maps)
    assert reply.status == 503
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.raw.startswith(b"<html>")


async def test_latency_delays_answers(simulated):
    api = await simulated.client("c")
    loop = asyncio.get_running_loop()
    simulated.faults.latency_s = 0.1
    begun_at = loop.time()
    assert (await ask(api, timeout_s=5)).status == 200
    assert loop.time() - begun_at >= 0.09
    with pytest.raises(TransportError):
        await ask(api, timeout_s=0.02)


async def test_a_closed_transport_refuses(simulated):
    api = await simulated.client("c")
    async with api.watch(api.config_maps, resourceVersion="1") as watch:
        await api.transport.close()
        if simulated.face == "memory":
            with pytest.raises(TransportError):
                await watch.line()
            with pytest.raises(TransportError):
                await ask(api)


async def test_a_watch_that_its_reader_leaves_is_forgotten(simulated):
    api = await simulated.client("c")
    async with api.watch(api.config_maps, resourceVersion="1"):
        (hub,) = simulated.server._hubs.values()
        assert len(hub.all()) == 1
    deadline_at = asyncio.get_running_loop().time() + 5
    while hub.all():
        assert asyncio.get_running_loop().time() < deadline_at
        await asyncio.sleep(0.01)
