"""Whether it is the node that is silent, or we that are deaf: other hosts are tried beside it.

A few nodes of several zones, others each time, which answered before and are not known to be down.
At least half of the zones must answer (each by any one of its nodes; one whose nodes are all known
to be down does not): so a prober that is cut off with its own zone holds its tongue, while the loss
of one zone among two or three can still be told. Where ``probes.references`` names addresses, one
of them must answer, too. With neither nodes nor addresses to try, nothing is proven and nobody is
called down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from remediator.clock import Clock
from remediator.probe_settings import ProbeSettings, reference_address
from remediator.probes.node_watch import NodeWatch
from remediator.probes.rounds import Heard, Round, Rounds

ZONES_AT_ONCE: Final = 5
NODES_PER_ZONE: Final = 3
# Rounds that fail at once, without waiting, must not make checks follow each other closely.
GAP_S: Final = 0.25
_LOOKS_MAX: Final = 64  # nodes looked at to find a few that can serve


class Check(NamedTuple):
    """What came of trying the references."""

    reached: bool
    detail: str
    began_at: float


class References:
    """Tries references for all rounds that ask meanwhile, one check at a time.

    ``by_zone`` returns the nodes that may serve (not our own host), by zone.
    """

    def __init__(
        self,
        rounds: Rounds,
        clock: Clock,
        settings: ProbeSettings,
        by_zone: Callable[[], Mapping[str, Sequence[NodeWatch]]],
    ) -> None:
        self._rounds = rounds
        self._clock = clock
        self._addresses = [reference_address(text) for text in settings.references]
        self._by_zone = by_zone
        self._last = Check(False, "not tried yet", float("-inf"))
        self._running: asyncio.Task[None] | None = None
        self._zone_cursor = 0
        self._node_cursor = 0

    @property
    def last(self) -> Check:
        """The last check that ended."""
        return self._last

    async def check(self, since: float) -> Check:
        """Return a check that began at ``since`` or later; it may be somebody else's."""
        while self._last.began_at < since:
            if self._running is None:
                self._running = asyncio.create_task(self._check(), name="probe-references")
            await asyncio.shield(self._running)
        return self._last

    async def stop(self) -> None:
        """End a check under way."""
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait({running})

    async def _check(self) -> None:
        try:
            wait_s = self._last.began_at + GAP_S - self._clock.now()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            began_at = self._clock.now()
            answers = await asyncio.gather(
                *(self._any(self._of_nodes(nodes)) for nodes in self._pick()),
                self._any(self._of_addresses()),
            )
            self._last = self._conclude(answers[:-1], began_at, addresses=answers[-1])
        finally:
            self._running = None

    def _conclude(self, zones: Sequence[bool], began_at: float, *, addresses: bool) -> Check:
        answering = sum(zones)
        told = f"{answering} of {len(zones)} zones answer" if zones else "no node to refer to"
        if self._addresses and not addresses:
            return Check(False, f"{told}, no configured reference does", began_at)
        if addresses:
            told += ", a configured reference does"
        if not zones:
            return Check(addresses, told, began_at)
        return Check(answering * 2 >= len(zones), told, began_at)

    def _of_nodes(self, nodes: Iterable[NodeWatch]) -> list[asyncio.Task[Round]]:
        return [
            asyncio.ensure_future(self._rounds.peaceful(node.target, node.answered))
            for node in nodes
        ]

    def _of_addresses(self) -> list[asyncio.Task[Round]]:
        return [
            asyncio.ensure_future(self._rounds.connect(address, port))
            for address, port in self._addresses
        ]

    async def _any(self, trying: list[asyncio.Task[Round]]) -> bool:
        """Whether one of them answers; the others are given up then."""
        pending = set(trying)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if any(one.result().heard is Heard.ANSWER for one in done):
                    return True
            return False
        finally:
            for one in pending:
                one.cancel()
            if pending:
                await asyncio.wait(pending)

    def _pick(self) -> list[list[NodeWatch]]:
        """Return a few nodes of each of a few zones, others than last time where there are more.

        Of a zone whose nodes are all known to be down there are none to return.
        """
        by_zone = self._by_zone()
        names = sorted(zone for zone, nodes in by_zone.items() if any(n.reached for n in nodes))
        at_once = min(len(names), ZONES_AT_ONCE)
        picked = [names[(self._zone_cursor + step) % len(names)] for step in range(at_once)]
        self._zone_cursor += at_once
        self._node_cursor += NODES_PER_ZONE
        return [self._pick_nodes(by_zone[name]) for name in picked]

    def _pick_nodes(self, nodes: Sequence[NodeWatch]) -> list[NodeWatch]:
        """Return those that answered last; only where there are none, silent ones."""
        answering: list[NodeWatch] = []
        silent: list[NodeWatch] = []
        for step in range(min(len(nodes), _LOOKS_MAX)):
            node = nodes[(self._node_cursor + step) % len(nodes)]
            if not node.reached or node.down:
                continue
            (silent if node.failures else answering).append(node)
            if len(answering) == NODES_PER_ZONE:
                break
        return answering or silent[:NODES_PER_ZONE]
