"""Keep a picture of one collection: list it, follow its changes, survive everything in between.

A broken watch goes on where it broke; a version that is too old, or any ERROR in the stream, means
a new list. Every failure waits, longer each time; nothing is asked for in a hot loop. What counts
as proof that we hear the cluster is told in ``progress``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import structlog

from remediator.backoff import Backoff
from remediator.clock import Clock
from remediator.kube.errors import ApiError, ForbiddenError, NotFoundError
from remediator.kube.listing import PageReader
from remediator.kube.metadata import KubeObject
from remediator.kube.mirror import Key, Mirror, Sink
from remediator.kube.progress import ProgressProof, newer_version
from remediator.kube.reflector_settings import ReflectorSettings
from remediator.kube.refusals import needs_list, refuses_watch_list
from remediator.kube.resources import Resource
from remediator.kube.transport import Query, Transport, TransportError
from remediator.kube.watching import (
    Bookmark,
    Deleted,
    EventDecoder,
    InStreamError,
    Unreadable,
    WatchEvent,
    WatchSilentError,
    follow,
)

__all__ = ["Key", "Reflector", "ReflectorSettings", "Sink"]

T = TypeVar("T", bound=KubeObject)
WatchProblem = ApiError | InStreamError | WatchSilentError | TransportError

_log = structlog.get_logger(__name__)


class Reflector(Generic[T]):
    """Mirrors one collection and tells a sink of every change.

    ``last_heard_at`` is when any line came, proof or not. ``absent``: the API does not have this
    resource (its CRD is not installed); it is looked for again every minute at most.
    ``forbidden``: RBAC does not let us read it. Each is said once; ``on_refused`` is called each
    time. ``mirror`` is a picture to go on with, of the same collection in another version.
    """

    def __init__(
        self,
        transport: Transport,
        resource: Resource[T],
        sink: Sink[T],
        *,
        clock: Clock,
        rng: random.Random,
        settings: ReflectorSettings | None = None,
        mirror: Mirror[T] | None = None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._resource = resource
        self._clock = clock
        self._rng = rng
        self._settings = settings or ReflectorSettings()
        self._mirror = mirror or Mirror(sink, resource.keep)
        self._on_refused = on_refused
        self._progress = ProgressProof(sink.progressed, delay_s=self._settings.progress_delay_s)
        self._reader = PageReader(transport, resource, timeout_s=self._settings.list_timeout_s)
        self._decoder = EventDecoder(resource.item, resource.path)
        self._backoff = Backoff(
            base_s=self._settings.backoff_base_s, cap_s=self._settings.backoff_cap_s, rng=rng
        )
        self._absent_backoff = Backoff(base_s=1.0, cap_s=self._settings.absent_cap_s, rng=rng)
        self._forbidden_backoff = Backoff(base_s=1.0, cap_s=self._settings.forbidden_cap_s, rng=rng)
        self._version = ""  # where a watch goes on; "" asks for a new list
        self._listed: set[Key] | None = None  # keys found so far by a watch-list in progress
        self._list_started_at = 0.0
        self._watch_list = self._settings.watch_list
        self._page_next = False  # the last watch-list broke off: list by pages once
        self._unreadable_events = 0
        self.absent = False
        self.forbidden = False
        self.last_heard_at = 0.0

    @property
    def store(self) -> Mapping[Key, T]:
        """The objects, by (namespace, name); read-only, and changing as events come."""
        return self._mirror.objects

    @property
    def synced(self) -> bool:
        """The first list was complete."""
        return self._mirror.synced

    @property
    def last_progress_at(self) -> float:
        """The moment up to which we provably saw the cluster; 0.0 before the first list."""
        return self._progress.at

    @property
    def unreadable(self) -> int:
        """Objects left out so far because they did not decode."""
        return self._unreadable_events + self._reader.unreadable

    async def run(self) -> None:
        """Mirror for ever; ends only by cancellation (or by an exception of the sink)."""
        while True:
            started_at = self._clock.now()
            watched = bool(self._version)
            try:
                await self._cycle()
            except (ApiError, InStreamError, WatchSilentError, TransportError) as problem:
                delay_s = self._delay_after(problem, started_at)
            else:
                delay_s = self._delay_after_end(started_at) if watched else 0.0
            finally:
                self._progress.broken()
            if delay_s > 0:
                await asyncio.sleep(delay_s)

    # --- one list, or one watch ---------------------------------------------------------------

    async def _cycle(self) -> None:
        if self._version:
            started_at = self._clock.now()
            newest = await self._find_target()
            await self._follow([("resourceVersion", self._version)])
            if not self._settings.bookmarks:
                self._outlived(newest, started_at)
        elif self._watch_list and not self._page_next:
            await self._list_by_watch()
        else:
            self._page_next = False
            await self._list_by_pages()

    async def _list_by_pages(self) -> None:
        started_at = self._clock.now()
        found: set[Key] = set()
        version = ""
        async for page in self._reader.pages(limit=self._settings.page_limit):
            self._answered()
            if page.restarted:
                found.clear()
            version = page.resource_version
            for obj in page.items:
                found.add(self._mirror.put(obj))
            await asyncio.sleep(0)
        self._complete(found, version, started_at)

    async def _list_by_watch(self) -> None:
        """List and watch in one stream (Kubernetes' WatchList), if the server can.

        Raises what ``follow`` raises. A refusal is remembered and is no error.
        """
        self._list_started_at = self._clock.now()
        self._listed = set()
        initial: Query = [("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")]
        try:
            await self._find_target()
            await self._follow(initial)
        except (ApiError, InStreamError, WatchSilentError, TransportError) as error:
            if self._listed is None:
                raise  # the list was complete: an ordinary end of a watch
            self._page_next = True
            if not refuses_watch_list(error):
                raise
            self._watch_list = False
            _log.info("watch_list_refused", path=self._resource.path, problem=str(error))
        else:
            if self._listed is not None:  # ended in order without having sent everything
                self._watch_list = False
                self._page_next = True
                _log.info("watch_list_refused", path=self._resource.path, problem="ended early")
        finally:
            self._listed = None

    async def _find_target(self) -> str:
        """Ask how far the watch that is about to start has to come before its events are news."""
        newest = await self._reader.newest_version(timeout_s=self._settings.connect_timeout_s)
        self._progress.connecting(newest)
        return newest

    def _outlived(self, newest: str, started_at: float) -> None:
        """Take a watch without bookmarks that ended in order: it came as far as ``newest``.

        Else a quiet one would go on from ever the same version, which is soon too old.
        """
        if self._clock.now() - started_at >= self._settings.healthy_after_s:
            self._version = newer_version(self._version, newest)
            self._progress.listed(self._version, started_at)

    async def _follow(self, query: Query) -> None:
        timeout_s = self._rng.uniform(
            self._settings.watch_timeout_min_s, self._settings.watch_timeout_max_s
        )
        await follow(
            self._transport,
            self._resource.path,
            query=[
                *self._resource.query,
                ("watch", "true"),
                ("allowWatchBookmarks", "true"),
                ("timeoutSeconds", str(int(timeout_s))),
                *query,
            ],
            decoder=self._decoder,
            handle=self._handle,
            silence_s=self._silence_limit_s,
            total_s=timeout_s + 30.0,  # the server's own end comes first, unless it forgot
            connect_timeout_s=self._settings.connect_timeout_s,
        )

    def _silence_limit_s(self) -> float:
        if self._listed is not None:
            return self._settings.initial_inactivity_timeout_s
        return self._settings.inactivity_timeout_s

    # --- events -------------------------------------------------------------------------------

    def _handle(self, event: WatchEvent[T]) -> None:
        now = self._clock.now()
        self.last_heard_at = now
        self._answered()
        if isinstance(event, Bookmark):
            if self._listed is not None and event.initial_events_end:
                self._complete(self._listed, event.version, self._list_started_at)
                self._listed = None
            self._advance(event.version, now, is_bookmark=True)
        elif isinstance(event, Unreadable):
            self._pass_over(event)
            self._advance(event.object.metadata.resource_version, now)
        elif isinstance(event, Deleted):
            self._mirror.remove((event.object.namespace, event.object.name), event.object)
            self._advance(event.object.resource_version, now)
        else:
            key = self._mirror.put(event.object)
            if self._listed is not None:
                self._listed.add(key)
            self._advance(event.object.resource_version, now)

    def _advance(self, version: str, now: float, *, is_bookmark: bool = False) -> None:
        """Note how far the watch has come."""
        if self._listed is not None or not version:
            return  # a list in progress proves nothing, and a watch cannot go on from inside it
        self._version = version
        self._progress.heard(version, now, is_bookmark=is_bookmark)

    def _pass_over(self, event: Unreadable) -> None:
        self._unreadable_events += 1
        meta = event.object.metadata
        key = (meta.namespace, meta.name)
        _log.error("object_unreadable", path=self._resource.path, key=key, problem=event.problem)
        if self._listed is not None:
            self._listed.add(key)
        if event.type == "DELETED":
            self._mirror.remove(key)

    def _complete(self, found: set[Key], version: str, started_at: float) -> None:
        self._mirror.complete(found)
        self._version = version
        self._progress.listed(version, started_at)
        self._absent_backoff.reset()
        _log.debug("listed", path=self._resource.path, objects=len(self.store))

    # --- failures -----------------------------------------------------------------------------

    def _delay_after_end(self, started_at: float) -> float:
        """Go on at once after a watch that ended in order, unless it did so right away."""
        if self._clock.now() - started_at >= self._settings.healthy_after_s:
            self._backoff.reset()
            return 0.0
        _log.warning("watch_ended_early", path=self._resource.path)
        return self._backoff.next_s()

    def _delay_after(
        self,
        error: WatchProblem,
        started_at: float,
    ) -> float:
        """Decide what a failure means for the next try, and return how long to wait for it."""
        lived_s = self._clock.now() - started_at
        if self.last_heard_at >= started_at and lived_s >= self._settings.healthy_after_s:
            self._backoff.reset()
        refusal = error.error if isinstance(error, InStreamError) else error
        if isinstance(error, InStreamError) or needs_list(refusal):
            self._version = ""
        if isinstance(refusal, NotFoundError):
            return self._absence(refusal)
        if isinstance(refusal, ForbiddenError):
            return self._prohibition(refusal)
        asked_s = (refusal.retry_after_s or 0.0) if isinstance(refusal, ApiError) else 0.0
        delay_s = self._backoff.next_s(at_least_s=min(asked_s, self._settings.retry_after_cap_s))
        _log.warning(
            "watch_broken" if self.synced else "sync_failed",
            path=self._resource.path,
            problem=str(error),
            retry_in_s=round(delay_s, 3),
            relist=not self._version,
        )
        return delay_s

    def _absence(self, refusal: NotFoundError) -> float:
        if not self.absent:
            self.absent = True
            _log.warning("resource_absent", path=self._resource.path, problem=str(refusal))
        self._on_refused()
        return self._absent_backoff.next_s()

    def _prohibition(self, refusal: ForbiddenError) -> float:
        if not self.forbidden:
            self.forbidden = True
            _log.warning("watch_forbidden", path=self._resource.path, problem=str(refusal))
        self._on_refused()
        return self._forbidden_backoff.next_s()

    def _answered(self) -> None:
        if self.absent or self.forbidden:
            self.absent = self.forbidden = False
            self._forbidden_backoff.reset()
