"""Which of the nodes that would do is the best: first by the disks, then by points.

Disks decide before all else, in three steps: a replica of *every* replicated disk on the node, of
every one at least in the node's zone, neither. A VM is as slow as its slowest disk, so the least of
them counts. Among nodes of the same step the points decide:

| points | for |
|---|---|
| 10 | the zone that the VM was in |
| up to 40 | room left, the smaller share of CPU and memory, once it is there |
| -15 each | copies of the same application on the node, -5 each in its zone |
| -10 each | VMs that boot there now, the fourth and further ones not counted |

Every one of these but the first can only fall while a plan grows; the board relies on it.
"""

from __future__ import annotations

from remediator.engine.locality import Kind, Locality
from remediator.engine.placement_filters import Place

LOCAL, NEAR, FAR = 2, 1, 0  # steps of the disks

_SAME_ZONE = 10.0
_ROOM = 40.0
_COPY_ON_NODE = 15.0
_COPY_IN_ZONE = 5.0
_BOOT = 10.0
_BOOTS_MAX = 4

STEP_WORDS = {LOCAL: "replica on the node", NEAR: "replica in its zone", FAR: "no replica near"}


def points(
    *, same_zone: bool, room_left: float, copies_on_node: int, copies_in_zone: int, boots: int
) -> float:
    """Return a node's points; ``room_left`` is a share, 0 to 1."""
    return (
        (_SAME_ZONE if same_zone else 0.0)
        + _ROOM * room_left
        - _COPY_ON_NODE * copies_on_node
        - _COPY_IN_ZONE * copies_in_zone
        - _BOOT * min(boots, _BOOTS_MAX)
    )


def disk_step(disk: Locality, place: Place, zones: frozenset[str]) -> int:
    """Return the step of one replicated disk on a node; ``zones`` are its replicas'."""
    if place.name in disk.nodes:
        return LOCAL
    return NEAR if place.zone and place.zone in zones else FAR


def near_all(disks: tuple[tuple[Locality, frozenset[str]], ...], place: Place) -> int:
    """Return the step of all disks together: the least of them."""
    return min((disk_step(disk, place, zones) for disk, zones in disks), default=FAR)


def replicated(disks: tuple[Locality, ...]) -> tuple[Locality, ...]:
    """Return the disks for which it matters on which node they are used."""
    return tuple(disk for disk in disks if disk.kind is Kind.REPLICATED)
