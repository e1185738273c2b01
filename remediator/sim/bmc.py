"""Redfish BMCs of the simulated hosts: they power their host on and off for real, or misbehave.

The answers follow DMTF DSP0266 as far as a fencing client goes: service root, systems, one
ComputerSystem, its Reset action, basic authentication. Two faces: ``MemoryHttpClient`` for virtual
time, ``BmcServer`` for real sockets. All systems of a fleet share one service, as in
sushy-emulator, so one port serves all: ``<base>/redfish/v1/Systems/<node>``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from remediator.http_client import HttpError, HttpResponse

ROOT_PATH = "/redfish/v1"
SYSTEMS_PATH = f"{ROOT_PATH}/Systems"
_RESET = "#ComputerSystem.Reset"
_SLOW_CHANGE_S = (
    10.0  # state changes of real hardware take up to about 10 s (facts/libraries.md 13)
)


class BmcMode(StrEnum):
    """How a BMC behaves."""

    OK = "ok"
    TIMEOUT = "timeout"  # takes the request and never answers
    GARBAGE = "garbage"  # 200 with something that is not JSON
    ERROR_500 = "error-500"
    NO_POWER_STATE = "no-power-state"  # a ComputerSystem without PowerState
    ALWAYS_ON = "always-on"  # says On, also when the host is off
    ALWAYS_OFF = "always-off"  # says Off, also when the host is on
    AUTH_FAILURE = "auth-failure"  # 401 to the right password
    IGNORES_RESET = "ignores-reset"  # 204 to every Reset, and does nothing
    SLOW = "slow"  # power changes 10 s after the Reset
    DEAD_WITH_HOST = "dead-with-host"  # silent while its host has no mains power or no network


class ResetType(StrEnum):
    """What Reset may be asked for (DSP2046, Resource.ResetType), as far as we know it."""

    ON = "On"
    FORCE_OFF = "ForceOff"
    GRACEFUL_SHUTDOWN = "GracefulShutdown"
    FORCE_RESTART = "ForceRestart"
    PUSH_POWER_BUTTON = "PushPowerButton"


class PoweredMachine(Protocol):
    """The host behind a BMC."""

    name: str
    system_uuid: str
    serial: str
    mains: bool  # the rack has power
    network: bool  # the host's network works; a DEAD_WITH_HOST BMC shares it

    @property
    def powered(self) -> bool:
        """Whether the host is on."""
        ...

    def power_on(self, *, boot_s: float | None = None) -> None:
        """Switch on and boot; nothing happens without mains power or when it is on."""
        ...

    def power_off(self, why: str) -> None:
        """Cut the power at once; nothing happens when it is off."""
        ...

    def press_power_button(self) -> None:
        """Ask the operating system to shut down, or switch on."""
        ...


class Bmc:
    """One host's BMC. ``change_s``: from an accepted Reset to the change of power."""

    def __init__(
        self,
        machine: PoweredMachine,
        *,
        user: str = "admin",
        password: str = "sim",  # noqa: S107 - of a simulated device
        latency_s: float = 0.05,
        change_s: float = 0.5,
    ) -> None:
        self.machine = machine
        self.name = machine.name
        self.user = user
        self.password = password
        self.latency_s = latency_s
        self.change_s = change_s
        self.mode = BmcMode.OK
        self.reachable = True
        self.requests = 0

    @property
    def path(self) -> str:
        """The ComputerSystem's path."""
        return f"{SYSTEMS_PATH}/{self.name}"

    @property
    def silent(self) -> bool:
        """Whether nothing answers at its address."""
        dead = not (self.machine.mains and self.machine.network)
        return (
            not self.reachable
            or self.mode is BmcMode.TIMEOUT
            or (self.mode is BmcMode.DEAD_WITH_HOST and dead)
        )

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> HttpResponse | None:
        """Act on one request and return the answer; None when there will be none."""
        self.requests += 1
        if self.silent:
            return None
        if self.mode is BmcMode.ERROR_500:
            return _problem(500, "Base.1.0.InternalError", "The request failed.")
        if self.mode is BmcMode.AUTH_FAILURE or not self._knows(headers):
            return _problem(401, "Base.1.0.NoValidSession", "Authentication is required.")
        if self.mode is BmcMode.GARBAGE:
            return HttpResponse(
                status=200, headers={"content-type": "text/html"}, body=b"<html>BMC busy</htm"
            )
        return self._serve(method, path, body)

    def _serve(self, method: str, path: str, body: bytes | None) -> HttpResponse:
        reset_path = f"{self.path}/Actions/ComputerSystem.Reset"
        match method, path.rstrip("/"):
            case "GET", self.path:
                return _json(200, self._system())
            case "POST", target if target == reset_path:
                return self._reset(body)
            case _, target if target in (self.path, reset_path):
                return _problem(405, "Base.1.0.OperationNotAllowed", f"{method} is not allowed.")
            case _:
                return _problem(404, "Base.1.0.ResourceMissingAtURI", f"Nothing is at {path}.")

    def _knows(self, headers: Mapping[str, str]) -> bool:
        value = next((v for k, v in headers.items() if k.lower() == "authorization"), "")
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(credentials, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return given == f"{self.user}:{self.password}"

    def _system(self) -> dict[str, Any]:
        on = self.machine.powered
        if self.mode in (BmcMode.ALWAYS_ON, BmcMode.ALWAYS_OFF):
            on = self.mode is BmcMode.ALWAYS_ON
        system: dict[str, Any] = {
            "@odata.id": self.path,
            "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
            "Id": self.name,
            "Name": self.name,
            "UUID": self.machine.system_uuid,
            "SerialNumber": self.machine.serial,
            "PowerState": "On" if on else "Off",
            "Status": {"State": "Enabled", "Health": "OK"},
            "Actions": {
                _RESET: {
                    "target": f"{self.path}/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": list(ResetType),
                }
            },
        }
        if self.mode is BmcMode.NO_POWER_STATE:
            del system["PowerState"]
        return system

    def _reset(self, body: bytes | None) -> HttpResponse:
        try:
            asked = msgspec.json.decode(body or b"{}")
            reset = ResetType(asked["ResetType"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            return _problem(400, "Base.1.0.ActionParameterNotSupported", "ResetType is not known.")
        if self.mode is not BmcMode.IGNORES_RESET:
            delay_s = _SLOW_CHANGE_S if self.mode is BmcMode.SLOW else self.change_s
            asyncio.get_running_loop().call_later(delay_s, self._change, reset)
        return HttpResponse(status=204, headers={}, body=b"")

    def _change(self, reset: ResetType) -> None:
        match reset:
            case ResetType.ON:
                self.machine.power_on()
            case ResetType.FORCE_OFF:
                self.machine.power_off(f"{self.name}: BMC ForceOff")
            case ResetType.FORCE_RESTART:
                self.machine.power_off(f"{self.name}: BMC ForceRestart")
                self.machine.power_on()
            case ResetType.GRACEFUL_SHUTDOWN:
                if self.machine.powered:
                    self.machine.press_power_button()
            case ResetType.PUSH_POWER_BUTTON:
                self.machine.press_power_button()


class BmcService:
    """All BMCs of a fleet behind one service root; finds the BMC that a path names.

    The root is open to all, as DSP0266 says.
    """

    def __init__(self, bmcs: Mapping[str, Bmc]) -> None:
        self._bmcs = bmcs

    async def handle(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> HttpResponse | None:
        """Answer after the BMC's latency; None when nothing will ever answer."""
        bmc = self._route(path)
        if bmc is not None:
            await asyncio.sleep(bmc.latency_s)
            return bmc.answer(method, path, headers, body)
        if path.rstrip("/") == ROOT_PATH and method == "GET":
            return _json(200, _service_root())
        if path.rstrip("/") == SYSTEMS_PATH and method == "GET":
            members = [{"@odata.id": bmc.path} for bmc in self._bmcs.values()]
            return _json(200, {"@odata.id": SYSTEMS_PATH, "Members": members})
        return _problem(404, "Base.1.0.ResourceMissingAtURI", f"Nothing is at {path}.")

    def _route(self, path: str) -> Bmc | None:
        if not path.startswith(f"{SYSTEMS_PATH}/"):
            return None
        return self._bmcs.get(path.removeprefix(f"{SYSTEMS_PATH}/").split("/", 1)[0])


class MemoryHttpClient:
    """``remediator.http_client.HttpClient`` without sockets: any URL's path reaches the service.

    ``connected`` says whether this client's own network works; without it nothing answers.
    """

    def __init__(
        self, service: BmcService, *, connected: Callable[[], bool] = lambda: True
    ) -> None:
        self._service = service
        self._connected = connected
        self._closed = False

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpResponse:
        """Return the answer. Raises HttpError when there was none within ``timeout_s``."""
        if self._closed:
            raise HttpError(f"{method} {url}: the client is closed")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if self._connected():
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await self._service.handle(method, urlsplit(url).path, headers, body)
            except TimeoutError:
                answer = None
            if answer is not None and self._connected():
                return answer
        await asyncio.sleep(max(0.0, deadline - loop.time()))
        raise HttpError(f"{method} {url}: no answer within {timeout_s:g} s")

    async def close(self) -> None:
        """Refuse further requests."""
        self._closed = True


def _service_root() -> dict[str, Any]:
    return {
        "@odata.id": f"{ROOT_PATH}/",
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "Id": "RootService",
        "RedfishVersion": "1.15.0",
        "Systems": {"@odata.id": SYSTEMS_PATH},
    }


def _json(status: int, content: object) -> HttpResponse:
    return HttpResponse(
        status=status,
        headers={"content-type": "application/json"},
        body=msgspec.json.encode(content),
    )


def _problem(status: int, code: str, message: str) -> HttpResponse:
    return _json(status, {"error": {"code": code, "message": message}})
