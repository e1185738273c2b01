"""Redfish over real sockets: what only a real HTTP server can do to a client."""

from __future__ import annotations

import asyncio
import socket
import time

import msgspec
import pytest
from aiohttp import web

from remediator.actions.fence.driver import Down, NotDown
from remediator.engine.model import Reading

SYSTEM = "/redfish/v1/Systems/n1"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"


class Server:
    def __init__(self) -> None:
        self.state = "On"
        self.get = None  # a handler in place of the ordinary one
        self.post = None
        self.seen: list[tuple[str, str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, request.headers.get("Authorization", "")))
        special = self.get if request.method == "GET" else self.post
        if special is not None:
            return await special(request)
        if request.headers.get("Authorization") != "Basic YWRtaW46czNjcmV0":
            return web.json_response({"error": {}}, status=401)
        if request.method == "POST":
            assert await request.json() == {"ResetType": "ForceOff"}
            self.state = "Off"
            return web.Response(status=204)
        return web.json_response({"PowerState": self.state})


@pytest.fixture
async def server():
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def devices(device, server, make):
    device = msgspec.structs.replace(device, endpoint=server.url, timeout_s=0.5, off_deadline_s=2.0)
    devices = make.asked([device])
    yield devices
    await devices.close()


async def test_a_node_is_powered_off_and_read_back(devices, server):
    assert (await devices.power_state("n1", "")).reading is Reading.UP
    off = await devices.power_off("n1", "")
    assert isinstance(off, Down)
    seen = [(method, path) for method, path, _ in server.seen]
    assert seen[:3] == [("GET", SYSTEM), ("GET", SYSTEM), ("POST", RESET)]
    assert set(seen[3:]) == {("GET", SYSTEM)}


async def test_a_wrong_password_is_named_and_nothing_is_ordered(devices, server, password_file):
    password_file.write_text("wrong")
    off = await devices.power_off("n1", "")
    assert isinstance(off, NotDown)
    assert "refuses the credentials" in off.detail
    assert all(method == "GET" for method, _, _ in server.seen)


async def test_a_redirect_is_not_followed_with_the_password(devices, server):
    async def elsewhere(_request):
        raise web.HTTPFound(f"{server.url}/elsewhere")

    server.get = elsewhere
    answer = await devices.power_state("n1", "")
    assert answer.reading is Reading.UNKNOWN
    assert "redirects" in answer.detail
    assert [path for _, path, _ in server.seen] == [SYSTEM]


async def test_a_bmc_that_never_answers_costs_no_more_than_its_timeout(devices, server):
    async def silent(_request):
        await asyncio.sleep(30)

    server.get = silent
    began = time.monotonic()
    answer = await devices.power_state("n1", "")
    assert answer.reading is Reading.UNKNOWN
    assert time.monotonic() - began < 2.0


async def test_a_bmc_that_drips_costs_no_more_than_its_timeout(devices, server):
    async def drip(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(100):
            await answer.write(b" ")
            await asyncio.sleep(0.1)
        return answer

    server.get = drip
    began = time.monotonic()
    assert (await devices.power_state("n1", "")).reading is Reading.UNKNOWN
    assert time.monotonic() - began < 2.0


async def test_half_an_answer_is_unknown(devices, server):
    async def half(request):
        answer = web.StreamResponse(headers={"Content-Length": "500"})
        await answer.prepare(request)
        await answer.write(b'{"PowerState": "Off"')
        request.transport.close()
        return answer

    server.get = half
    assert (await devices.power_state("n1", "")).reading is Reading.UNKNOWN


async def test_an_answer_without_end_is_unknown(devices, server):
    async def endless(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(64):
            await answer.write(b" " * 65536)
        return answer

    server.get = endless
    answer = await devices.power_state("n1", "")
    assert answer.reading is Reading.UNKNOWN
    assert "larger than 1 MiB" in answer.detail or "no answer" in answer.detail


async def test_a_connection_reset_after_the_order_is_settled_by_the_state(devices, server):
    async def obeys_and_breaks(request):
        server.state = "Off"
        request.transport.abort()
        return web.Response()

    server.post = obeys_and_breaks
    assert isinstance(await devices.power_off("n1", ""), Down)


async def test_a_bmc_that_lies_about_the_order_is_a_failure(devices, server):
    async def lies(_request):
        return web.Response(status=204)

    server.post = lies
    off = await devices.power_off("n1", "")
    assert isinstance(off, NotDown)
    assert "PowerState is On" in off.detail


async def test_a_closed_port_is_unknown(device, make):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    device = msgspec.structs.replace(device, endpoint=f"http://127.0.0.1:{port}", timeout_s=0.5)
    devices = make.asked([device])
    assert (await devices.power_state("n1", "")).reading is Reading.UNKNOWN
    await devices.close()
