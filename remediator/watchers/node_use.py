"""What pods other than launchers take of each node, summed every few minutes.

A watch of all pods of a cluster would cost more than all else together, for a number that hardly
moves: agents, storage, the platform itself. So they are listed by pages, narrowed to their requests
while they are decoded, added up, and forgotten. Only while this replica leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import defaultdict
from typing import Final

import structlog

from remediator.engine.model import FactKind, NodeUseFacts
from remediator.engine.rooms import Use
from remediator.kube.errors import ApiError
from remediator.kube.listing import PageReader
from remediator.kube.resources import OTHER_PODS
from remediator.kube.transport import Transport, TransportError
from remediator.watchers.outlet import Outlet

log = structlog.get_logger(__name__)

# 50,000 pods are a hundred pages; the sums move when somebody installs or removes something.
PERIOD_S: Final = 300.0
JITTER: Final = 0.2
RETRY_S: Final = 30.0  # after a look that failed
_PAGE_TIMEOUT_S: Final = 30.0


class NodeUseWatch:
    """Looks, adds up, publishes what changed. ``run`` works until cancelled; ``lead`` wakes it."""

    def __init__(self, transport: Transport, outlet: Outlet, *, identity: str) -> None:
        # Chance of its own: it must not change what a seeded simulation of others does.
        self._rng = random.Random(f"node-use/{identity}")  # noqa: S311 - jitter is no secret
        self._reader = PageReader(transport, OTHER_PODS, timeout_s=_PAGE_TIMEOUT_S)
        self._outlet = outlet
        self._leading = False
        self._wake = asyncio.Event()
        self._published: dict[str, NodeUseFacts] = {}
        self._numbers = itertools.count()

    def lead(self) -> None:
        """Look now, and again every few minutes."""
        self._published.clear()  # a new leader's engine knows nothing yet
        self._leading = True
        self._wake.set()

    def again(self) -> None:
        """Offer all that is known once more."""
        for facts in self._published.values():
            self._outlet.facts(facts, f"use:{next(self._numbers)}")

    def follow(self) -> None:
        """Look no more."""
        self._leading = False

    async def run(self) -> None:
        """Look while this replica leads, until cancelled."""
        while True:
            self._wake.clear()
            wait_s = PERIOD_S
            if self._leading:
                try:
                    self._publish(await self._sums())
                except (ApiError, TransportError) as error:
                    log.info("other_pods_unknown", error=str(error))
                    wait_s = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s * self._rng.uniform(1 - JITTER, 1 + JITTER)):
                    await self._wake.wait()

    async def _sums(self) -> dict[str, Use]:
        """Add up the requests of all pods that are bound and have not ended, by node."""
        sums: dict[str, Use] = defaultdict(Use)
        async for page in self._reader.pages():
            if page.restarted:
                sums.clear()
            for pod in page.items:
                if pod.node_name and pod.phase not in ("Succeeded", "Failed"):
                    sums[pod.node_name].take(pod.needs)
        return sums

    def _publish(self, sums: dict[str, Use]) -> None:
        for node in sorted(self._published.keys() - sums.keys()):
            gone = self._published.pop(node)
            self._outlet.gone(FactKind.NODE_USE, gone, f":{next(self._numbers)}")
        for node, use in sorted(sums.items()):
            facts = NodeUseFacts(
                name=node,
                uid=f"use:{node}",
                cpu_m=use.cpu_m,
                memory=use.memory,
                pods=use.pods,
                extra=use.extra or {},
            )
            before = self._published.get(node)
            if before != facts:
                self._published[node] = facts
                self._outlet.facts(facts, f"use:{next(self._numbers)}")
