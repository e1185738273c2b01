"""What every fence method is to the action that uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from remediator.engine.model import ProofKind
from remediator.power import PowerReading


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The node that is to be fenced, as its Node object was read a moment ago."""

    node: str
    uid: str
    boot_id: str
    system_uuid: str = ""
    addresses: tuple[str, ...] = ()  # InternalIPs
    machine: str = ""  # "namespace/name" of its Machine
    machine_group: str = ""  # "machine.openshift.io" or "cluster.x-k8s.io"
    provider_id: str = ""  # spec.providerID: "baremetalhost:///NAMESPACE/NAME/UID"
    control_plane: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One order to take a node down.

    ``last_look`` is awaited just before anything is changed; what it raises keeps the order from
    being sent, and comes out. ``action_id`` is the same when a fence is repeated after a crash.
    """

    action_id: str
    deadline_at: float  # our clock
    last_look: Callable[[], Awaitable[None]]


class Down(msgspec.Struct, frozen=True, kw_only=True):
    """The node is down, as verified. ``ordered`` is False where it was so before."""

    at: float
    source: str
    detail: str
    ordered: bool


class NotDown(msgspec.Struct, frozen=True, kw_only=True):
    """Not done or not verified: whether the node is down is unknown. One line says why."""

    source: str
    detail: str


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a device said when it was asked in peace. ``fault`` is empty where all is well."""

    power: PowerReading
    identity: str = ""  # what the device says it is: a UUID, a serial number, a host name
    # "matches", "differs", "unknown": whether that is the node's own.
    owner: str = "unknown"
    fault: str = ""


class FenceDriver(Protocol):
    """One configured device. Nothing but ``last_look``'s exceptions and cancellation comes out."""

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        ...

    @property
    def proof(self) -> ProofKind:
        """What ``Down`` proves."""
        ...

    @property
    def tells_power(self) -> bool:
        """Whether ``check`` says if the node is on or off."""
        ...

    @property
    def leaves_objects(self) -> bool:
        """Whether ``take_down`` leaves something in the cluster that ``take_back`` removes."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long ``take_down`` may need in all, by configuration or the method's default."""
        ...

    def source(self, node: str) -> str:
        """Say what is asked, in a few words without secrets: it stands in records."""
        ...

    async def check(self, target: Target) -> Checked:
        """Ask for state and identity; change nothing."""
        ...

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """Take the node down and verify it. Safe to repeat, also after a crash in the middle.

        Never sends anything to a device whose identity differs from the node's.
        """
        ...

    async def bring_up(self, target: Target, order: Order) -> str:
        """Switch the node on again; return what went wrong, or "". For methods that can."""
        ...

    async def take_back(self, target: Target) -> str:
        """Remove what ``take_down`` left in the world, now that the node is healthy or gone.

        Return what is left to do, or "" when nothing is. Safe to repeat.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and sessions."""
        ...
