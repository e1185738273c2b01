"""What is wrong with a host beyond Ready: its kubelet's pressures, and node-problem-detector.

The detector is a process of its own, which runs while the kubelet hangs; where nothing was ever
wrong it writes nothing here, though a real one repeats its conditions every five minutes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remediator.kube.transport import TransportError
from remediator.sim.hosts.node_object import NODES_PATH, is_kubelets
from remediator.sim.hosts.wire import STRATEGIC_PATCH, HostProcess, Obj, RefusedError
from remediator.sim.timestamps import rfc3339

if TYPE_CHECKING:
    from remediator.sim.hosts.host import Host

_RETRY_S = 5.0
_SOURCE = "node-problem-detector"


class NodeProblems(HostProcess):
    """Writes conditions into the node's status.

    ``pressures`` are those that the kubelet reports: status, reason and message by type.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(
            host,
            host.transport,
            host.rng,
            request_timeout_s=host.settings.request_timeout_s,
            failed=host.fleet.failed,
        )
        self.pressures: dict[str, tuple[str, str, str]] = {}
        self._host = host
        self._wanted: dict[str, Obj] = {}
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin with the operating system. What was wrong before a reboot is forgotten."""
        self.running = True
        self.pressures.clear()
        for type_ in self._wanted:
            self._wanted[type_] = self._condition(type_, "False", "Restarted", "")
        self._wake.clear()
        if self._wanted:
            self._wake.set()
        self.spawn(self._report())

    def report(self, type_: str, status: str, reason: str, message: str) -> None:
        """Let a condition be so from now on."""
        if is_kubelets(type_):
            if status == ("True" if type_ == "Ready" else "False"):
                self.pressures.pop(type_, None)
            else:
                self.pressures[type_] = (status, reason, message)
            self._host.kubelet.report_soon()
        else:
            self._wanted[type_] = self._condition(type_, status, reason, message)
            self._wake.set()

    def mend(self) -> None:
        """Let every condition be good again."""
        for type_ in [*self.pressures, *self._wanted]:
            self.report(type_, "True" if type_ == "Ready" else "False", "", "")

    def _condition(self, type_: str, status: str, reason: str, message: str) -> Obj:
        now = rfc3339(self._host.now())
        return {
            "type": type_,
            "status": status,
            "reason": reason or _SOURCE,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }

    async def _report(self) -> None:
        path = f"{NODES_PATH}/{self._host.name}/status"
        while True:
            await self._wake.wait()
            self._wake.clear()
            patch = {"status": {"conditions": list(self._wanted.values())}}
            try:
                await self.request("PATCH", path, patch, content_type=STRATEGIC_PATCH)
            except (TransportError, RefusedError):
                await self.sleep(_RETRY_S)
                self._wake.set()
