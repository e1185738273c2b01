"""From a configured device to the driver that speaks to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

from remediator.actions.fence.agent import AgentDriver
from remediator.actions.fence.agent_metadata import Metadata
from remediator.actions.fence.credentials import Logins, StoredLogins
from remediator.actions.fence.driver import FenceDriver
from remediator.actions.fence.machine import MachineDriver
from remediator.actions.fence.medik8s import Medik8sDriver
from remediator.actions.fence.metal3 import Metal3Driver
from remediator.actions.fence.network_fence import NetworkFenceDriver
from remediator.actions.fence.objects import Objects
from remediator.actions.fence.operator import OperatorDriver
from remediator.actions.fence.redfish import RedfishDriver
from remediator.clock import Clock
from remediator.fence_config.document import (
    AgentFence,
    AnyDevice,
    Credentials,
    MachineFence,
    Medik8sFence,
    Metal3Fence,
    NetworkFence,
    OperatorFence,
    RedfishFence,
)
from remediator.http_client import AiohttpClient, HttpClient
from remediator.kube.client import KubeClient


class NoClusterError(Exception):
    """A method that works through the cluster was asked for without one."""


def open_http(device: RedfishFence) -> HttpClient:
    """Return the real HTTP client for a device, with its TLS settings."""
    return AiohttpClient(verify_tls=device.verify_tls, ca_file=device.ca_file or None)


class DriverFactory:
    """Builds drivers. ``metadata`` is what the agents said about themselves, by program."""

    def __init__(
        self,
        clock: Clock,
        *,
        client: KubeClient | None = None,
        namespace: str = "",
        http: Callable[[RedfishFence], HttpClient] = open_http,
        metadata: Mapping[str, Metadata] | None = None,
    ) -> None:
        self._clock = clock
        self._client = client
        self._namespace = namespace
        self._http = http
        self._metadata = metadata if metadata is not None else {}  # read on, as more is known

    def build(self, device: AnyDevice) -> FenceDriver:
        """Return the driver of one device. Raises NoClusterError."""
        match device:
            case RedfishFence():
                logins = self._logins(device.credentials)
                return RedfishDriver(device, self._http(device), logins, self._clock)
            case AgentFence():
                metadata = self._metadata.get(device.program)
                given = device.credentials
                agent_logins = self._logins(given) if given is not None else None
                return AgentDriver(device, agent_logins, self._clock, metadata=metadata)
            case Medik8sFence():
                return Medik8sDriver(device, self._objects())
            case Metal3Fence():
                return Metal3Driver(device, self._objects(), self._clock)
            case MachineFence():
                return MachineDriver(device, self._objects())
            case NetworkFence():
                return NetworkFenceDriver(device, self._objects())
            case OperatorFence():
                return OperatorDriver(device)
            case _:
                assert_never(device)

    def _logins(self, credentials: Credentials) -> Logins:
        return StoredLogins(credentials, self._client, self._clock, self._namespace)

    def _objects(self) -> Objects:
        if self._client is None:
            raise NoClusterError("this method works through the cluster")
        return Objects(self._client, self._clock)
