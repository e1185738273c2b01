"""Which replica acts: leader election on one Kubernetes Lease.

The guarantee: the old leader's work has ended before another replica may start. Why the durations
give it is told in ``election_settings``. A leader stops by the clock alone, whatever request it is
waiting for, and its cancelled work is awaited; should that not end in time, ``overrun`` is called,
which in the daemon ends the process. The second fence is the journal's expected sequence: a deposed
leader's append is refused.

``leaseTransitions`` grows by one with every claim, also by the same identity: it is the epoch of a
leadership. Deleting the Lease starts it over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from remediator.clock import Clock
from remediator.kube.client import KubeClient
from remediator.kube.election_settings import ElectionSettings
from remediator.kube.errors import ApiError, ConflictError, NotFoundError
from remediator.kube.lease_record import LeaseRecord, LeaseRegister
from remediator.kube.transport import TransportError

__all__ = ["ElectionSettings", "Lead", "LeaderElector"]

_log = structlog.get_logger(__name__)

Lead = Callable[[int], Awaitable[None]]

# A record may ask for more patience than our settings (replicas in the middle of a change of
# settings), but a nonsensical one must not lock everybody out.
_DURATION_CAP_S = 60.0
_SHORTEST_WAIT_S = 0.001


class _Term:
    """One leadership of ours."""

    def __init__(self, record: LeaseRecord, sent_at: float) -> None:
        self.record = record
        self.sent_at = sent_at  # of the last request that is known to have succeeded
        self.epoch = record.transitions


class LeaderElector:
    """Takes part in the election; runs the leader's work while, and only while, it leads.

    ``identity`` must be unique to this process (a pod's name and a random part): a record with our
    name that this process did not write is somebody else's. ``overrun`` is called at most once per
    leadership, when cancelled work is still running at the last moment at which it is surely alone.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        settings: ElectionSettings | None = None,
        clock: Clock,
        rng: random.Random,
        overrun: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings or ElectionSettings()
        self._lease = LeaseRegister(
            client,
            namespace=namespace,
            name=name,
            identity=identity,
            duration_s=self._settings.lease_duration_s,
            timeout_s=self._settings.request_timeout_s,
            clock=clock,
        )
        self._identity = identity
        self._clock = clock
        self._rng = rng
        self._overrun = overrun
        self._term: _Term | None = None  # None as soon as we stop leading, before work has ended
        self._observed: tuple[str, str, str, int] | None = None  # None: the Lease does not exist
        self._observed_at: float | None = None  # None: nothing was seen yet
        self._existed = False
        self.holder = ""

    @property
    def leader(self) -> bool:
        """We lead now. Becomes False by the clock alone, even while nothing of us runs."""
        term = self._term
        if term is None:
            return False
        return self._clock.now() < term.sent_at + self._settings.renew_deadline_s

    @property
    def another_leads(self) -> bool:
        """Another holds the Lease, as far as we saw: it has not run out since it was last renewed.

        Only candidates look at the Lease; None of them has seen anything at first.
        """
        if self._term is not None or self._observed is None or self._observed_at is None:
            return False
        if not self.holder or self.holder == self._identity:
            return False
        return self._clock.now() - self._observed_at < self._settings.lease_duration_s

    @property
    def epoch(self) -> int:
        """Epoch of our present leadership, 0 while we do not lead."""
        return self._term.epoch if self._term is not None else 0

    async def run(self, lead: Lead) -> None:
        """Take part until cancelled; each time we are elected, await ``lead(epoch)``.

        ``lead`` is cancelled, and awaited, when we stop leading. If it returns, we release the
        Lease and become a candidate again; if it raises, we release the Lease and raise the same.
        Cancelling ``run`` ends the work (the Lease is renewed meanwhile) and releases the Lease.
        """
        while True:
            await self._serve(lead, await self._win())
            await self._pause(2.0)  # others first

    # --- as a candidate ---------------------------------------------------------------------------

    async def _win(self) -> _Term:
        self._observed_at = None
        while True:
            term = await self._try_to_win()
            if term is not None:
                return term
            await self._pause(1.0)

    async def _try_to_win(self) -> _Term | None:
        try:
            record = await self._look()
            if not self._may_claim(record):
                return None
            sent_at = self._clock.now()
            claimed = await self._lease.claim(record)
        except ConflictError:
            return None  # another candidate was faster
        except (ApiError, TransportError) as problem:
            _log.warning("election_request_failed", identity=self._identity, problem=str(problem))
            return None
        self.holder = claimed.holder
        self._existed = True
        return _Term(claimed, sent_at)

    async def _look(self) -> LeaseRecord | None:
        """Read the record, and note when we first saw it as it is."""
        try:
            record = await self._lease.read()
        except NotFoundError:
            record = None
        claim = record.claim if record is not None else None
        if self._observed_at is None or claim != self._observed:
            self._observed, self._observed_at = claim, self._clock.now()
        self._existed = self._existed or record is not None
        self.holder = record.holder if record is not None else ""
        return record

    def _may_claim(self, record: LeaseRecord | None) -> bool:
        if record is None and not self._existed:
            return True
        if record is not None and not record.holder:
            return True  # released
        if (
            record is not None
            and record.holder == self._identity
            and record.acquire_time == self._lease.claimed_at
        ):
            return True  # our own claim: its answer was lost, or we stopped leading meanwhile
        # Held by another; or deleted under the eyes of its holder, who may not know yet.
        assert self._observed_at is not None
        patience_s = self._settings.lease_duration_s
        if record is not None:
            patience_s = max(patience_s, min(record.duration_s, _DURATION_CAP_S))
        return self._clock.now() - self._observed_at >= patience_s

    async def _pause(self, periods: float) -> None:
        # client-go's JitterFactor is 1.2: replicas that started together drift apart.
        jitter = self._rng.uniform(1.0, 1.2)
        await asyncio.sleep(periods * self._settings.retry_period_s * jitter)

    # --- as the leader ----------------------------------------------------------------------------

    async def _serve(self, lead: Lead, term: _Term) -> None:
        self._term = term
        log = _log.bind(identity=self._identity, epoch=term.epoch)
        log.info("leadership_gained")
        work = asyncio.ensure_future(lead(term.epoch))
        renewing = asyncio.create_task(self._keep_renewing(term))
        why = "stopped"
        try:
            why = await self._until_over(term, work, renewing)
        finally:
            self._term = None
            log.info("leadership_ends", why=why)
            if why != "stopped":
                renewing.cancel()
            try:
                await self._end_work(term, work)
            finally:
                renewing.cancel()
                await asyncio.wait({renewing})
            if why != "lost":
                await self._release(term)
            failed = not work.cancelled() and work.exception() is not None
            if failed:
                log.error("leaders_work_failed", problem=repr(work.exception()))
        if failed:
            work.result()  # raises what the work raised

    async def _until_over(
        self, term: _Term, work: asyncio.Future[None], renewing: asyncio.Task[None]
    ) -> str:
        """Wait for the end of a leadership and return why it ended."""
        while True:
            left_s = term.sent_at + self._settings.renew_deadline_s - self._clock.now()
            if left_s <= 0:
                return "deadline"
            await asyncio.wait(
                {work, renewing},
                timeout=max(left_s, _SHORTEST_WAIT_S),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return "ended"
            if renewing.done():
                renewing.result()  # raises if it failed in a way that nobody foresaw
                return "lost"

    async def _keep_renewing(self, term: _Term) -> None:
        """Renew for ever; return when the Lease is provably no longer ours."""
        while True:
            await asyncio.sleep(self._settings.retry_period_s)
            try:
                if not await self._renew(term):
                    return
            except (ApiError, TransportError) as problem:
                _log.warning("renewal_failed", identity=self._identity, problem=str(problem))

    async def _renew(self, term: _Term) -> bool:
        """Renew once; False when the Lease is not ours. Raises ApiError, TransportError."""
        sent_at = self._clock.now()
        try:
            term.record = await self._lease.renew(term.record)
        except NotFoundError:
            return False
        except ConflictError:
            # Our own earlier renewal, whose answer was lost? Somebody's label? A new holder?
            try:
                current = await self._lease.read()
            except NotFoundError:
                return False
            if current.holder != self._identity or current.transitions != term.epoch:
                self.holder = current.holder
                return False
            sent_at = self._clock.now()
            term.record = await self._lease.renew(current)
        term.sent_at = sent_at
        return True

    async def _end_work(self, term: _Term, work: asyncio.Future[None]) -> None:
        """Cancel the work and wait until it has ended, however often we are cancelled ourselves."""
        work.cancel()
        cancelled: asyncio.CancelledError | None = None
        alarmed = False
        while not work.done():
            left_s = term.sent_at + self._settings.overrun_s - self._clock.now()
            if left_s <= 0 and not alarmed:
                alarmed = True
                _log.critical("leaders_work_overruns", identity=self._identity, epoch=term.epoch)
                if self._overrun is not None:
                    self._overrun()
            try:
                await asyncio.wait(
                    {work}, timeout=None if alarmed else max(left_s, _SHORTEST_WAIT_S)
                )
            except asyncio.CancelledError as error:
                cancelled = error  # raised below: first the work must have ended
        if cancelled is not None:
            raise cancelled

    async def _release(self, term: _Term) -> None:
        try:
            await self._lease.release(term.record)
        except (ApiError, TransportError) as problem:
            # It expires by itself; or it is no longer ours, and the version guarded it.
            _log.info("release_failed", identity=self._identity, problem=str(problem))
        else:
            self.holder = ""
