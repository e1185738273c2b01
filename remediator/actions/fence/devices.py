"""The configured fence devices: which one fences a node, what it says, and the order to go off."""

from __future__ import annotations

import fnmatch
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import structlog

from remediator.actions.fence.redfish import RedfishClient, RedfishError
from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.fence_settings import RedfishDevice
from remediator.http_client import AiohttpClient, HttpClient
from remediator.power import PowerReading

log = structlog.get_logger(__name__)

_PASSWORD_LIMIT: Final = 4096  # bytes; a larger file is not a password


class OffVerified(msgspec.Struct, frozen=True, kw_only=True):
    """The device says that the node is off. ``ordered`` is False where it was off before."""

    at: float
    source: str
    detail: str
    ordered: bool


class OffFailed(msgspec.Struct, frozen=True, kw_only=True):
    """Not verified: whether the node is off is unknown. ``detail`` says why, in one line."""

    source: str
    detail: str


def open_http(device: RedfishDevice) -> HttpClient:
    """Return the real HTTP client for a device, with its TLS settings."""
    return AiohttpClient(verify_tls=device.verify_tls, ca_file=device.ca_file)


class FenceDevices:
    """Every configured fence device, one HTTP client each. ``close`` it at the end.

    Raises ValueError where two devices share a name.
    """

    def __init__(
        self,
        devices: Sequence[RedfishDevice],
        clock: Clock,
        *,
        http: Callable[[RedfishDevice], HttpClient] = open_http,
    ) -> None:
        self._devices = tuple(devices)
        names = [device.name for device in self._devices]
        if len(set(names)) != len(names):
            raise ValueError(f"two fence devices share a name: {', '.join(sorted(names))}")
        self._clock = clock
        self._http = {device.name: http(device) for device in self._devices}

    def method_for(self, node: str) -> str | None:
        """Return the name of the device that fences this node, None where there is none."""
        device = self._device_for(node)
        return device.name if device is not None else None

    async def power_state(self, node: str, system_uuid: str) -> PowerReading:
        """Ask the node's device whether it is on. Never raises: every failure is ``UNKNOWN``."""
        device = self._device_for(node)
        if device is None:
            return PowerReading(
                reading=Reading.UNKNOWN, source="no fence device", detail="none is configured"
            )
        source = _source(device, node)
        try:
            system = await self._client(device, node).read(system_uuid)
        except RedfishError as error:
            return PowerReading(reading=Reading.UNKNOWN, source=source, detail=str(error))
        return PowerReading(
            reading=system.reading, source=source, detail=f"PowerState is {system.raw_state}"
        )

    async def power_off(
        self,
        node: str,
        system_uuid: str,
        *,
        deadline_s: float | None = None,
        last_look: Callable[[], Awaitable[None]] | None = None,
    ) -> OffVerified | OffFailed:
        """Force the node off and verify it, within the shorter of ``deadline_s`` and the device's.

        A failure of the device says why; raised is only what ``last_look`` raises, which is awaited
        just before the order and keeps it from being sent. Safe to repeat.
        """
        device = self._device_for(node)
        if device is None:
            return OffFailed(source="no fence device", detail="none is configured for this node")
        source = _source(device, node)
        limit_s = device.off_deadline_s
        if deadline_s is not None:
            limit_s = min(limit_s, deadline_s)
        try:
            off = await self._client(device, node).power_off(
                system_uuid, deadline_s=limit_s, last_look=last_look
            )
        except RedfishError as error:
            return OffFailed(source=source, detail=str(error))
        return OffVerified(at=off.at, source=source, detail=off.detail, ordered=off.ordered)

    async def close(self) -> None:
        """Close every device's connections."""
        for client in self._http.values():
            await client.close()

    def _device_for(self, node: str) -> RedfishDevice | None:
        for device in self._devices:
            if any(fnmatch.fnmatchcase(node, pattern) for pattern in device.nodes):
                return device
        return None

    def _client(self, device: RedfishDevice, node: str) -> RedfishClient:
        return RedfishClient(
            self._http[device.name],
            self._clock,
            endpoint=_for_node(device.endpoint, node),
            system_path=_for_node(device.system, node),
            username=device.username,
            password=_read_password(device),
            timeout_s=device.timeout_s,
            already_off_for_s=device.already_off_for_s,
        )


def _for_node(template: str, node: str) -> str:
    return template.replace("{node}", quote(node, safe=""))


def _source(device: RedfishDevice, node: str) -> str:
    return f"redfish {_for_node(device.endpoint, node).rstrip('/')}{_for_node(device.system, node)}"


def _read_password(device: RedfishDevice) -> str:
    """Read the password anew, so that a rotated secret counts at once. Raises RedfishError."""
    path = Path(device.password_file)
    try:
        with path.open("rb") as file:
            content = file.read(_PASSWORD_LIMIT + 1)
        password = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RedfishError(f"password file {path}: {error}", final=True) from error
    if len(content) > _PASSWORD_LIMIT:
        raise RedfishError(f"password file {path}: larger than {_PASSWORD_LIMIT} bytes", final=True)
    password = password.rstrip("\r\n")
    if not password:
        raise RedfishError(f"password file {path}: it is empty", final=True)
    return password
