"""What is known of each fence device of each node, as the checks in peace left it."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Mapping

import msgspec

from remediator.actions.fence import identity


class FaultKind(enum.StrEnum):
    """What is wrong with a device. All but ``no-answer`` keep it from being used for the node."""

    NONE = ""
    NO_ANSWER = "no-answer"  # unreachable, refused, wrong password, not installed
    WRONG_MACHINE = "wrong-machine"  # it says that it is another machine's
    CLAIMED_TWICE = "claimed-twice"  # another node names the same device
    CONTRADICTED = "contradicted"  # it says off of a node that renews its lease


# A fence by such a device would hit another machine, or prove nothing about this one.
MISCONFIGURED = (FaultKind.WRONG_MACHINE, FaultKind.CLAIMED_TWICE, FaultKind.CONTRADICTED)

Key = tuple[str, str, str]  # node, configuration, device


class CheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one device of one node said last. Times are our clock, 0.0 for never."""

    node: str
    config: str
    device: str
    method: str  # "redfish", "agent", …
    level: int  # counted from 1
    source: str = ""
    power: str = "unknown"  # "on", "off", "unknown"
    owner: str = "unknown"  # "matches", "differs", "unknown"
    identity: str = ""
    kind: FaultKind = FaultKind.NONE
    fault: str = ""  # empty: well, or not asked yet
    detail: str = ""
    asked_at: float = 0.0
    took_s: float = 0.0
    good_at: float = 0.0  # when it was last without fault, as far as this leader knows

    @property
    def key(self) -> Key:
        """Which device of which node."""
        return (self.node, self.config, self.device)


class Claims:
    """Which devices several nodes name: by place, as configured, and by what they say they are."""

    def __init__(self) -> None:
        self._by_place: dict[str, set[Key]] = {}
        self._place_of: dict[Key, str] = {}
        self._by_machine: dict[bytes, set[Key]] = defaultdict(set)
        self._machine_of: dict[Key, bytes] = {}

    def configured(self, places: Mapping[Key, str]) -> None:
        """Take in all devices that there are by now, each with its place ("" for none)."""
        for gone in self._machine_of.keys() - places.keys():
            self.says(gone, "")
        by_place: dict[str, set[Key]] = defaultdict(set)
        for key, place in places.items():
            by_place[place].add(key)
        by_place.pop("", None)
        self._by_place, self._place_of = dict(by_place), dict(places)

    def says(self, key: Key, text: str) -> set[Key]:
        """Take in what a device says it is; return the devices for which that may mean something.

        One that says nothing keeps no claim by its identity.
        """
        unique = identity.parse(text.partition(" ")[0])
        # In either byte order the same machine, see ``identity``.
        machine = min(unique.bytes, unique.bytes_le) if unique is not None else b""
        before = self._machine_of.pop(key, b"")
        touched = {key}
        if before:
            group = self._by_machine[before]
            touched |= group
            group.discard(key)
            if not group:
                del self._by_machine[before]
        if machine:
            self._machine_of[key] = machine
            self._by_machine[machine].add(key)
            touched |= self._by_machine[machine]
        return touched

    def why(self, key: Key) -> str:
        """Say who else names this device; "" where nobody does."""
        for group in (
            self._by_place.get(self._place_of.get(key, ""), set()),
            self._by_machine.get(self._machine_of.get(key, b""), set()),
        ):
            nodes = sorted({each[0] for each in group})
            if len(nodes) > 1:
                more = f" and {len(nodes) - 3} more" if nodes[3:] else ""
                named = ", ".join(nodes[:3]) + more
                return f"{named} name the same device: one would fence the other"
        return ""
