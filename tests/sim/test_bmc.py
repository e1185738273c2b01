"""Redfish BMCs: what they answer, what they do, and how they fail."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import Awaitable, Callable

import pytest

from remediator.http_client import AiohttpClient, HttpError
from remediator.sim import virtual_time
from remediator.sim.bmc import Bmc, BmcMode, BmcService, MemoryHttpClient
from remediator.sim.bmc_server import BmcServer

AUTH = {"Authorization": "Basic " + base64.b64encode(b"admin:sim").decode()}


class Machine:
    """A host as a BMC sees it."""

    def __init__(self, name: str = "n01") -> None:
        self.name = name
        self.system_uuid = "4c4c4544-0000-4000-a000-000000000001"
        self.serial = "SIM0001"
        self.mains = True
        self.network = True
        self.powered = True
        self.done: list[str] = []

    def power_on(self, *, boot_s: float | None = None) -> None:
        del boot_s
        self.done.append("on")
        self.powered = True

    def power_off(self, why: str) -> None:
        del why
        self.done.append("off")
        self.powered = False

    def press_power_button(self) -> None:
        self.done.append("button")


class Rack:
    def __init__(self) -> None:
        self.machine = Machine()
        self.other = Machine("n02")
        self.bmc = Bmc(self.machine)
        self.service = BmcService({"n01": self.bmc, "n02": Bmc(self.other)})
        self.client = MemoryHttpClient(self.service)

    async def get(self, path="/redfish/v1/Systems/n01", *, headers=AUTH, timeout_s=2.0):
        url = f"https://bmc.example{path}"
        return await self.client.request(
            "GET", url, headers=headers, body=None, timeout_s=timeout_s
        )

    async def power_state(self) -> str:
        return json.loads((await self.get()).body)["PowerState"]

    async def reset(self, kind, *, timeout_s=2.0):
        system = json.loads((await self.get()).body)
        target = system["Actions"]["#ComputerSystem.Reset"]["target"]
        body = json.dumps({"ResetType": kind}).encode()
        url = f"https://bmc.example{target}"
        return await self.client.request("POST", url, headers=AUTH, body=body, timeout_s=timeout_s)


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        virtual_time.run(test(*args, **kwargs))

    return run


@on_virtual_time
async def test_a_system_tells_its_identity_and_power_state():
    rack = Rack()
    answer = await rack.get()
    system = json.loads(answer.body)
    assert answer.status == 200
    assert system["Id"] == "n01"
    assert system["UUID"] == rack.machine.system_uuid
    assert system["SerialNumber"] == "SIM0001"
    assert system["PowerState"] == "On"
    rack.machine.powered = False
    assert await rack.power_state() == "Off"


@on_virtual_time
async def test_the_service_root_is_open_and_leads_to_the_systems():
    rack = Rack()
    root = json.loads((await rack.get("/redfish/v1/", headers={})).body)
    systems = json.loads((await rack.get(root["Systems"]["@odata.id"])).body)
    paths = [member["@odata.id"] for member in systems["Members"]]
    assert paths == ["/redfish/v1/Systems/n01", "/redfish/v1/Systems/n02"]


@on_virtual_time
async def test_force_off_powers_the_host_off_for_real_a_moment_later():
    rack = Rack()
    answer = await rack.reset("ForceOff")
    assert answer.status == 204
    assert rack.machine.powered
    await asyncio.sleep(1.0)
    assert not rack.machine.powered
    assert rack.other.powered
    assert await rack.power_state() == "Off"


@pytest.mark.parametrize(
    ("kind", "done"),
    [
        ("On", ["on"]),
        ("ForceOff", ["off"]),
        ("ForceRestart", ["off", "on"]),
        ("GracefulShutdown", ["button"]),
        ("PushPowerButton", ["button"]),
    ],
)
@on_virtual_time
async def test_each_reset_does_what_its_name_says(kind, done):
    rack = Rack()
    await rack.reset(kind)
    await asyncio.sleep(1.0)
    assert rack.machine.done == done


@on_virtual_time
async def test_a_graceful_shutdown_never_switches_a_host_on():
    rack = Rack()
    rack.machine.powered = False
    await rack.reset("GracefulShutdown")
    await asyncio.sleep(1.0)
    assert rack.machine.done == []


@pytest.mark.parametrize(
    "body", [b"{}", b"not json", b"[]", b'{"ResetType": "Explode"}', b'{"ResetType": 3}', None]
)
@on_virtual_time
async def test_a_reset_that_makes_no_sense_is_refused_and_does_nothing(body):
    rack = Rack()
    url = "https://bmc.example/redfish/v1/Systems/n01/Actions/ComputerSystem.Reset"
    answer = await rack.client.request("POST", url, headers=AUTH, body=body, timeout_s=2.0)
    await asyncio.sleep(15.0)
    assert answer.status == 400
    assert rack.machine.done == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic " + base64.b64encode(b"admin:wrong").decode()},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer abc"},
    ],
)
@on_virtual_time
async def test_nobody_gets_in_without_the_password(headers):
    rack = Rack()
    assert (await rack.get(headers=headers)).status == 401


@on_virtual_time
async def test_an_unknown_system_is_not_found():
    rack = Rack()
    assert (await rack.get("/redfish/v1/Systems/n99")).status == 404


@pytest.mark.parametrize(
    ("mode", "status"), [(BmcMode.ERROR_500, 500), (BmcMode.AUTH_FAILURE, 401)]
)
@on_virtual_time
async def test_a_bmc_may_answer_with_errors(mode, status):
    rack = Rack()
    rack.bmc.mode = mode
    assert (await rack.get()).status == status


@on_virtual_time
async def test_a_bmc_may_answer_with_garbage():
    rack = Rack()
    rack.bmc.mode = BmcMode.GARBAGE
    answer = await rack.get()
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)


@on_virtual_time
async def test_a_bmc_may_leave_the_power_state_out():
    rack = Rack()
    rack.bmc.mode = BmcMode.NO_POWER_STATE
    assert "PowerState" not in json.loads((await rack.get()).body)


@pytest.mark.parametrize(("mode", "says"), [(BmcMode.ALWAYS_ON, "On"), (BmcMode.ALWAYS_OFF, "Off")])
@on_virtual_time
async def test_a_bmc_may_lie_whatever_the_host_is(mode, says):
    rack = Rack()
    rack.bmc.mode = mode
    for powered in (True, False):
        rack.machine.powered = powered
        assert await rack.power_state() == says


@on_virtual_time
async def test_a_bmc_may_accept_a_reset_and_ignore_it():
    rack = Rack()
    rack.bmc.mode = BmcMode.IGNORES_RESET
    assert (await rack.reset("ForceOff")).status == 204
    await asyncio.sleep(60.0)
    assert await rack.power_state() == "On"


@on_virtual_time
async def test_a_slow_bmc_changes_the_power_ten_seconds_later():
    rack = Rack()
    rack.bmc.mode = BmcMode.SLOW
    await rack.reset("ForceOff")
    await asyncio.sleep(9.0)
    assert await rack.power_state() == "On"
    await asyncio.sleep(2.0)
    assert await rack.power_state() == "Off"


@on_virtual_time
async def test_a_silent_bmc_costs_exactly_the_caller_s_timeout():
    rack = Rack()
    rack.bmc.mode = BmcMode.TIMEOUT
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(HttpError, match="no answer within 3 s"):
        await rack.get(timeout_s=3.0)
    assert loop.time() - began == pytest.approx(3.0)


@pytest.mark.parametrize("lost", ["mains", "network"])
@on_virtual_time
async def test_a_bmc_that_shares_its_host_s_fate_dies_with_it(lost):
    rack = Rack()
    rack.bmc.mode = BmcMode.DEAD_WITH_HOST
    assert await rack.power_state() == "On"
    setattr(rack.machine, lost, False)
    with pytest.raises(HttpError):
        await rack.get()


@on_virtual_time
async def test_a_bmc_on_standby_power_says_off_when_its_host_lost_the_mains():
    rack = Rack()
    rack.machine.mains = False
    rack.machine.powered = False
    assert await rack.power_state() == "Off"


@on_virtual_time
async def test_an_unreachable_bmc_does_not_answer_and_does_nothing():
    rack = Rack()
    rack.bmc.reachable = False
    with pytest.raises(HttpError):
        await rack.get()
    rack.bmc.reachable = True
    assert await rack.power_state() == "On"


@on_virtual_time
async def test_a_client_without_network_reaches_no_bmc():
    rack = Rack()
    rack.client = MemoryHttpClient(rack.service, connected=lambda: False)
    with pytest.raises(HttpError):
        await rack.get()
    assert rack.bmc.requests == 0


@on_virtual_time
async def test_a_closed_client_refuses():
    rack = Rack()
    await rack.client.close()
    with pytest.raises(HttpError, match="closed"):
        await rack.get()


async def test_over_sockets_one_port_serves_all_bmcs_and_powers_hosts_off():
    rack = Rack()
    rack.bmc.change_s = 0.0
    server = BmcServer(rack.service)
    url = await server.start()
    client = AiohttpClient()
    try:
        for name in ("n01", "n02"):
            system = f"{url}/redfish/v1/Systems/{name}"
            answer = await client.request("GET", system, headers=AUTH, body=None, timeout_s=5.0)
            assert json.loads(answer.body)["Id"] == name
        target = f"{url}/redfish/v1/Systems/n01/Actions/ComputerSystem.Reset"
        off = b'{"ResetType": "ForceOff"}'
        answer = await client.request("POST", target, headers=AUTH, body=off, timeout_s=5.0)
        assert answer.status == 204
        async with asyncio.timeout(5.0):
            while rack.machine.powered:
                await asyncio.sleep(0.01)
        assert rack.other.powered
    finally:
        await client.close()
        await server.stop()


async def test_over_sockets_a_silent_bmc_holds_the_request_open_and_the_server_still_stops():
    rack = Rack()
    rack.bmc.mode = BmcMode.TIMEOUT
    server = BmcServer(rack.service)
    url = await server.start()
    client = AiohttpClient()
    try:
        system = f"{url}/redfish/v1/Systems/n01"
        with pytest.raises(HttpError, match="no answer"):
            await client.request("GET", system, headers=AUTH, body=None, timeout_s=0.3)
    finally:
        await client.close()
        async with asyncio.timeout(5.0):
            await server.stop()
