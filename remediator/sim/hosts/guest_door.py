"""virt-handler's own API on each host, as virt-api dials it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remediator.sim.hosts.vmi_reports import PAUSED_BY_USER

if TYPE_CHECKING:
    from remediator.sim.hosts.domain import Domain
    from remediator.sim.hosts.fleet import Fleet


class GuestDoor:
    """Finds the domain of a VMI on its host. Raises ConnectionError, LookupError."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def soft_reboot(self, node: str, vmi_uid: str) -> None:
        """Ask the guest to reboot, by its agent or its power button; one that hangs does not."""
        self._domain(node, vmi_uid).soft_reboot()

    def pause(self, node: str, vmi_uid: str) -> None:
        """Stop the guest."""
        self._domain(node, vmi_uid).hold(PAUSED_BY_USER)

    def unpause(self, node: str, vmi_uid: str) -> None:
        """Let the guest go on; one whose disk still fails is stopped again at its next write."""
        self._domain(node, vmi_uid).go_on()

    def _domain(self, node: str, vmi_uid: str) -> Domain:
        host = self._fleet.hosts.get(node)
        handler = None if host is None else host.handler
        reached = host is not None and host.answers and host.api_route
        if host is None or not reached or not handler or not handler.running:
            raise ConnectionError(f"dialing virt-handler of {node}: no route to host")
        if not handler.gate.open:
            raise ConnectionError(f"dialing virt-handler of {node}: timed out")
        launcher = host.launchers.get(vmi_uid)
        domain = launcher.running_domain if launcher is not None else None
        if domain is None:
            raise LookupError(f"no domain of {vmi_uid} on {node}")
        return domain
