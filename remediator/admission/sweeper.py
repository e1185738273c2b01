"""No gate outlives the daemon's attention: where no leader attends, every replica opens them all.

A leader opens gates in their turn, each after its record. Without a leader, or with one that cannot
record, nobody would ever open them, and a VM that does not start because of us is worse than no
daemon. So this is the one write that needs no record: it only takes back what is ours.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from remediator.clock import Clock
from remediator.kube.client import KubeClient
from remediator.kube.errors import ApiError, ConflictError, ForbiddenError, NotFoundError
from remediator.kube.pacing_gates import GatedPod, gated_pods, open_gate
from remediator.kube.transport import TransportError
from remediator.metrics import METRICS

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 10.0
AT_ONCE: Final = 8  # requests; opening is what the pods would have had without us


class GateSweeper:
    """Opens unattended gates. ``opened`` counts them.

    ``heard_at``: when a leader's word came last, on our clock; None: never. ``another_leads``:
    whether the Lease says so: then it is for that replica to find out that it cannot act.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        *,
        heard_at: Callable[[], float | None],
        another_leads: Callable[[], bool],
        unattended_s: float,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._clock = clock
        self._heard_at = heard_at
        self._another_leads = another_leads
        self._unattended_s = unattended_s
        self._rng = rng
        self._began_at = clock.now()
        self._told_forbidden = False
        self.opened = 0

    @property
    def unattended(self) -> bool:
        """Whether no leader has attended for so long that the gates are for us to open."""
        heard_at = self._heard_at()
        since = self._began_at if heard_at is None else heard_at
        silent = self._clock.now() - since >= self._unattended_s
        return silent and not self._another_leads()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            # Jitter: replicas that lost one leader together should not all write at once.
            await asyncio.sleep(LOOK_EVERY_S * self._rng.uniform(0.8, 1.2))
            if self.unattended:
                await self.sweep()

    async def sweep(self) -> int:
        """Open every gate that is there; return how many were opened. Failures are logged."""
        try:
            found = await gated_pods(self._client)
        except (ApiError, TransportError) as error:
            log.warning("gates_not_listed", error=str(error))
            return 0
        if not found:
            return 0
        log.warning("gates_unattended", pods=len(found), after_s=self._unattended_s)
        turn = asyncio.Semaphore(AT_ONCE)
        opened = sum(await asyncio.gather(*(self._open(pod, turn) for pod in found)))
        self.opened += opened
        METRICS.gates_unattended.inc(opened)
        return opened

    async def _open(self, pod: GatedPod, turn: asyncio.Semaphore) -> bool:
        async with turn:
            try:
                await open_gate(self._client, pod)
            except (NotFoundError, ConflictError):
                return False  # gone, opened by another, or seen again at the next look
            except ForbiddenError as error:
                if not self._told_forbidden:
                    self._told_forbidden = True
                    log.warning("gates_may_not_be_opened", error=str(error))
                return False
            except (ApiError, TransportError) as error:
                log.warning("gate_not_opened", vm=pod.vm, error=str(error))
                return False
        log.warning("gate_opened_unattended", vm=pod.vm, pod=pod.name)
        return True
