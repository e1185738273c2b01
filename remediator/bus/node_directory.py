"""The cluster's nodes as the leader reported them last, read from NATS alone.

For whoever has no API server to ask. The INVENTORY stream keeps the newest message per node, so
its beginning is the whole picture; a stream that NATS lost is read again when the leader has made
it anew, and until then what was known stays known.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec
import structlog

from remediator.bus import subjects
from remediator.bus.connection import BusConnection
from remediator.bus.feed import Feed
from remediator.bus.protocols import StoredRecord
from remediator.bus.streams import INVENTORY
from remediator.engine.events import InventorySynced, ObjectGone, ObjectSeen, wire_decoder
from remediator.engine.model import FactKind, NodeFacts

_log = structlog.get_logger(__name__)


class NodeDirectory:
    """Follows the nodes while ``run`` runs. ``unreadable`` counts messages that are no facts."""

    def __init__(self, connection: BusConnection, *, rng: random.Random | None = None) -> None:
        self._nodes: dict[str, NodeFacts] = {}
        self._offered: set[str] = set()  # since the last mark "all nodes were reported"
        self._feed = Feed(
            connection,
            INVENTORY,
            self.take,
            from_seq=1,
            filters=(subjects.NODES_FILTER, subjects.inventory_synced(FactKind.NODE.value)),
            rng=rng,
        )
        self.synced = False  # such a mark was seen
        self.unreadable = 0

    @property
    def nodes(self) -> Mapping[str, NodeFacts]:
        """The nodes by name. A new picture replaces what it does not hold, once it is whole."""
        return self._nodes

    @property
    def following(self) -> bool:
        """Whether what the leader reports now would arrive."""
        return self._feed.attached.is_set()

    async def run(self) -> None:
        """Follow until cancelled; waits for a stream that is not there yet."""
        await self._feed.run()

    def take(self, record: StoredRecord) -> None:
        """Take in one message of the stream."""
        try:
            event = wire_decoder.decode(record.payload)
        except msgspec.DecodeError as error:
            self.unreadable += 1
            _log.warning("node_facts_unreadable", subject=record.subject, error=str(error))
            return
        match event:
            case ObjectSeen(facts=NodeFacts() as facts):
                self._nodes[facts.name] = facts
                self._offered.add(facts.name)
            case ObjectGone(kind=FactKind.NODE):
                self._nodes.pop(event.name, None)
            case InventorySynced(kind=FactKind.NODE):
                self._conclude()

    def _conclude(self) -> None:
        """Forget nodes that were deleted while nobody watched.

        A new leader offers every node that there is and then makes its mark, so a node that was not
        offered since the mark before is gone. Before our first mark we cannot tell.
        """
        if self.synced:
            for name in self._nodes.keys() - self._offered:
                del self._nodes[name]
        self.synced = True
        self._offered.clear()
