"""virt-api: what it hands on to the virt-handler of a VMI's host: softreboot, pause, unpause.

kv pkg/virt-api/rest: it validates what the VMI says, then dials virt-handler; where nobody answers
there, the caller gets an internal error.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from remediator.sim.apiserver import ApiServer, SubresourceCall
from remediator.sim.controllers.conditions import condition_is, find_condition
from remediator.sim.controllers.metadata import Obj, key_of, phase_of, uid_of
from remediator.sim.controllers.vmi_state import vmi_node
from remediator.sim.problems import Problem, conflict
from remediator.sim.resources import VIRTUAL_MACHINE_INSTANCES

Answer = tuple[int, dict[str, Any] | None]

_ACCEPTED: Answer = (202, None)

# kv names the singular in these refusals.
_SINGULAR = msgspec.structs.replace(VIRTUAL_MACHINE_INSTANCES, plural="virtualmachineinstance")


class GuestHosts(Protocol):
    """The virt-handlers, as virt-api reaches them. Each raises ConnectionError where none answers.

    LookupError where virt-handler knows no such domain.
    """

    def soft_reboot(self, node: str, vmi_uid: str) -> None:
        """Ask the guest to reboot, by its agent or its power button."""

    def pause(self, node: str, vmi_uid: str) -> None:
        """Stop the guest."""

    def unpause(self, node: str, vmi_uid: str) -> None:
        """Let the guest go on."""


def serve(server: ApiServer, hosts: GuestHosts) -> None:
    """Let the API server answer these subresources of VMIs."""
    orders = GuestOrders(hosts)
    for verb, handler in (
        ("softreboot", orders.soft_reboot),
        ("pause", orders.pause),
        ("unpause", orders.unpause),
    ):
        server.register_subresource(VIRTUAL_MACHINE_INSTANCES.kind, verb, handler)


class GuestOrders:
    """The subresources."""

    def __init__(self, hosts: GuestHosts) -> None:
        self._hosts = hosts

    def soft_reboot(self, call: SubresourceCall) -> Answer:
        """Reboot in order. Raises Problem 404, 409, 500."""
        vmi = _running(call)
        if condition_is(vmi, "Paused", "True"):
            raise _conflict(vmi, "VMI is paused")
        if find_condition(vmi, "AgentConnected") is None and not _has_acpi(vmi):
            why = "VMI neither have the agent connected nor the ACPI feature enabled"
            raise _conflict(vmi, why)
        with _Dial(vmi):
            self._hosts.soft_reboot(vmi_node(vmi), uid_of(vmi))
        return _ACCEPTED

    def pause(self, call: SubresourceCall) -> Answer:
        """Stop the guest, as its owner wishes. Raises Problem 404, 409, 500."""
        vmi = _running(call)
        if condition_is(vmi, "Paused", "True"):
            raise _conflict(vmi, "VMI is already paused")
        if vmi["spec"].get("livenessProbe"):
            raise _conflict(vmi, "Pausing VMIs with LivenessProbe is currently not supported")
        with _Dial(vmi):
            self._hosts.pause(vmi_node(vmi), uid_of(vmi))
        return _ACCEPTED

    def unpause(self, call: SubresourceCall) -> Answer:
        """Let the guest go on, whoever stopped it. Raises Problem 404, 409, 500."""
        vmi = _running(call)
        if not condition_is(vmi, "Paused", "True"):
            raise _conflict(vmi, "VMI is not paused")
        with _Dial(vmi):
            self._hosts.unpause(vmi_node(vmi), uid_of(vmi))
        return _ACCEPTED


class _Dial:
    """A request to virt-handler; its failures are virt-api's."""

    def __init__(self, vmi: Obj) -> None:
        self._vmi = vmi

    def __enter__(self) -> None:
        """Begin it."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Turn what went wrong there into virt-api's own answer."""
        if isinstance(error, (ConnectionError, LookupError)):
            raise Problem(500, "InternalError", f"Internal error occurred: {error}") from error


def _running(call: SubresourceCall) -> Obj:
    vmi = call.store.get(VIRTUAL_MACHINE_INSTANCES, call.namespace, call.name)
    if phase_of(vmi) != "Running":
        raise _conflict(vmi, "VMI is not running")
    return vmi


def _has_acpi(vmi: Obj) -> bool:
    """Whether its power button works: so it does unless somebody has switched ACPI off."""
    features = (vmi["spec"].get("domain") or {}).get("features") or {}
    return (features.get("acpi") or {}).get("enabled") is not False


def _conflict(vmi: Obj, why: str) -> Problem:
    return conflict(_SINGULAR, key_of(vmi)[1], why)
