"""A large cluster as the engine sees it: facts, beats and marks, without any Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine.events import (
    Event,
    InventorySynced,
    ObjectSeen,
    SignalSeen,
    WatchProgressed,
)
from remediator.engine.machine import Engine
from remediator.engine.model import (
    FactKind,
    NodeFacts,
    Plane,
    PodFacts,
    Reading,
    Signal,
    Subject,
    VmFacts,
    VmiFacts,
    node_subject,
    vantage_subject,
)

STARTED_AT = 1_000_000.0
VANTAGES = ("zone-a", "zone-b", "zone-c")  # vantage points, and the zones they stand in


def node_name(number: int) -> str:
    """Return a node's name."""
    return f"n{number:05d}"


def inventory(nodes: int, vms: int) -> Iterator[Event]:
    """Yield every object, then the marks that make the inventory complete."""
    for number in range(nodes):
        yield ObjectSeen(
            facts=NodeFacts(
                name=node_name(number),
                uid=f"node-uid-{number}",
                boot_id=f"boot-{number}",
                system_uuid=f"uuid-{number}",
                zone=f"zone-{number % 3}",
                ready=True,
                kubevirt=True,
            )
        )
    for number in range(vms):
        where = {"namespace": f"team-{number % 50}", "name": f"vm-{number:06d}"}
        node = node_name(number % nodes)
        yield ObjectSeen(facts=VmFacts(**where, uid=f"vm-uid-{number}"))
        yield ObjectSeen(
            facts=VmiFacts(
                **where,
                uid=f"vmi-uid-{number}",
                phase="Running",
                node=node,
                ready=True,
                agent_connected=True,
                claims=(f"vm-{number:06d}-disk",),
            )
        )
        yield ObjectSeen(
            facts=PodFacts(
                namespace=where["namespace"],
                name=f"virt-launcher-vm-{number:06d}-abcde",
                uid=f"pod-uid-{number}",
                node=node,
                vmi=where["name"],
                vmi_uid=f"vmi-uid-{number}",
                phase="Running",
            )
        )
    for kind in FactKind:
        yield InventorySynced(kind=kind)


def beat(number: int, at: float, plane: Plane = Plane.LEASE, *, first: bool = False) -> SignalSeen:
    """Return a proof of life."""
    return signal(number, at, plane, Reading.UP, first=first)


def signal(
    number: int, at: float, plane: Plane, reading: Reading, *, first: bool = False
) -> SignalSeen:
    """Return one observation of a node."""
    return SignalSeen(
        signal=Signal(
            plane=plane,
            source="bench",
            subject=node_subject(node_name(number)),
            reading=reading,
            at=at,
            first=first,
        )
    )


def life(vantage: str, at: float) -> SignalSeen:
    """Return the sign of life of a vantage point in a zone of its own."""
    return _probed(vantage, vantage_subject(vantage), at)


def sight(vantage: str, number: int, at: float) -> SignalSeen:
    """Return a vantage point's reading of a node that it reaches."""
    return _probed(vantage, node_subject(node_name(number)), at)


def _probed(vantage: str, subject: Subject, at: float) -> SignalSeen:
    signal = Signal(
        plane=Plane.NETWORK,
        source=vantage,
        subject=subject,
        reading=Reading.UP,
        at=at,
        zone=vantage,
    )
    return SignalSeen(signal=signal)


def warm(engine: Engine, nodes: int, vms: int, now: float) -> None:
    """Fill an engine: the whole inventory, and every node heard twice."""
    for event in inventory(nodes, vms):
        engine.handle(event, now)
    for at, first in ((now, True), (now + 1.0, False)):
        for number in range(nodes):
            engine.handle(beat(number, at, first=first), at)
            engine.handle(beat(number, at, Plane.HANDLER, first=first), at)
        for watch in ("leases", "nodes"):
            engine.handle(WatchProgressed(watch=watch, at=at), at)
