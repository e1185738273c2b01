"""The watch of a custom resource: asleep while its CRD is absent, awake in any served version.

Asleep it sends nothing: discovery, one look for all of them, wakes it. Awake it is a reflector.
When the version that it reads is served no longer, it goes on in another with the same picture, so
that nobody hears of objects that went and came. When the resource is gone, so are its objects.

Gone it is when both say so: discovery, and the resource itself when asked (404). A document of an
API server that is just starting may lack groups; nobody's guard must fall for that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec
import structlog

from remediator.clock import Clock
from remediator.kube.discovery import ApiDiscovery, Versions
from remediator.kube.errors import ApiError, ForbiddenError, NotFoundError
from remediator.kube.listing import PageReader
from remediator.kube.metadata import KubeObject
from remediator.kube.mirror import Key, Mirror, Sink
from remediator.kube.reflector import Reflector
from remediator.kube.reflector_settings import ReflectorSettings
from remediator.kube.resources import Resource
from remediator.kube.transport import Transport, TransportError

T = TypeVar("T", bound=KubeObject)

_log = structlog.get_logger(__name__)

_FORBIDDEN_CAP_S = 60.0  # somebody has to change RBAC first
_ASK_TIMEOUT_S = 15.0


class CustomResource(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A resource that a CRD defines. ``known``: the versions whose shape ``item`` was made for."""

    group: str
    plural: str
    item: type[T]
    namespaced: bool
    known: tuple[str, ...]

    def at(self, version: str) -> Resource[T]:
        """Return the collection in one version."""
        return Resource(
            api=f"/apis/{self.group}/{version}",
            plural=self.plural,
            item=self.item,
            namespaced=self.namespaced,
        )

    def choose(self, served: Versions) -> str:
        """Return the version to read: the first, as the server prefers them, that we know.

        Of none that we know the first will do: fields that we miss in it read as absent.
        """
        return next((version for version in served if version in self.known), served[0])


class CustomWatch(Generic[T]):
    """Has the face of a reflector. ``on_settled`` is called whenever ``settled`` may have changed.

    ``on_resource_gone`` is called before the objects of a resource that is gone are let go: unlike
    a deletion, their end says nothing of what they stand for. ``version`` is the one that is read,
    "" while asleep.
    """

    def __init__(
        self,
        transport: Transport,
        resource: CustomResource[T],
        sink: Sink[T],
        discovery: ApiDiscovery,
        *,
        clock: Clock,
        rng: random.Random,
        settings: ReflectorSettings | None = None,
        on_settled: Callable[[], None] = lambda: None,
        on_resource_gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._resource = resource
        self._sink = sink
        self._discovery = discovery
        self._clock = clock
        self._rng = rng
        self._settings = msgspec.structs.replace(
            settings or ReflectorSettings(), forbidden_cap_s=_FORBIDDEN_CAP_S
        )
        self._on_settled = on_settled
        self._on_resource_gone = on_resource_gone
        self._mirror: Mirror[T] = Mirror(_Told(sink, on_settled))
        self._reflector: Reflector[T] | None = None
        self._asleep = False  # known to be absent; False at first, when nothing is known
        self._progress_at = 0.0
        self.version = ""

    @property
    def store(self) -> Mapping[Key, T]:
        """The objects, by (namespace, name); read-only, and changing as events come."""
        return self._mirror.objects

    @property
    def synced(self) -> bool:
        """The resource is there, and its first list was complete."""
        return self._mirror.synced

    @property
    def absent(self) -> bool:
        """The API is known not to have this resource."""
        return self._asleep or (self._reflector is not None and self._reflector.absent)

    @property
    def forbidden(self) -> bool:
        """RBAC does not let us read it."""
        return self._reflector is not None and self._reflector.forbidden

    @property
    def settled(self) -> bool:
        """We have what there is to have: all objects, or the knowledge that we get none."""
        return self.synced or self.absent or self.forbidden

    @property
    def last_progress_at(self) -> float:
        """The moment up to which we provably saw the collection; 0.0 before the first list."""
        seen_at = self._reflector.last_progress_at if self._reflector is not None else 0.0
        return max(self._progress_at, seen_at)

    async def run(self) -> None:
        """Sleep and watch in turns until cancelled (or until the sink raises)."""
        while True:
            served = self._served()
            if served:
                await self._follow(self._resource.choose(served))
            else:
                if served is not None:
                    self._sleep()
                await self._discovery.answered()

    def _served(self) -> Versions | None:
        """Return the served versions; where we may not look, what we would have looked for."""
        if self._discovery.refused:
            return self._resource.known[:1]
        return self._discovery.served(self._resource.group, self._resource.plural)

    def _sleep(self) -> None:
        if self._asleep:
            return
        if self._mirror.synced or self._mirror.objects:
            _log.warning("resource_gone", **self._named(), objects=len(self._mirror.objects))
        self._asleep = True
        self._progress_at = 0.0
        self._on_resource_gone()
        self._mirror.reset()
        self._on_settled()

    async def _follow(self, version: str) -> None:
        """Read one version until it is served no longer."""
        if self._asleep or self.version != version:
            _log.info("resource_watched", **self._named(), version=version)
        reflector = self._reflector = Reflector(
            self._transport,
            self._resource.at(version),
            self._sink,
            clock=self._clock,
            rng=self._rng,
            settings=self._settings,
            mirror=self._mirror,
            on_refused=self._on_refused,
        )
        self._asleep, self.version = False, version
        reading = asyncio.create_task(reflector.run(), name=f"read-{self._resource.plural}")
        try:
            while not await self._is_over(version):
                await self._until_news(reading)
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            self._progress_at = reflector.last_progress_at
            self._reflector, self.version = None, ""

    async def _until_news(self, reading: asyncio.Task[None]) -> None:
        news = asyncio.ensure_future(self._discovery.answered())
        try:
            await asyncio.wait({reading, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        if reading.done():
            reading.result()  # it ends only by an exception
        self._on_settled()

    async def _is_over(self, version: str) -> bool:
        """Whether this version is served no longer: discovery and the resource itself say so."""
        served = self._served()
        if served is None or version in served:
            return False
        reader = PageReader(self._transport, self._resource.at(version), timeout_s=_ASK_TIMEOUT_S)
        try:
            await reader.newest_version(timeout_s=_ASK_TIMEOUT_S)
        except (NotFoundError, ForbiddenError):
            # 403 comes before 404: who may not read it is not told whether it is there.
            return True
        except (ApiError, TransportError) as error:
            _log.info("resource_uncertain", **self._named(), problem=str(error))
        return False

    def _on_refused(self) -> None:
        if self.absent:
            self._discovery.look()
        self._on_settled()

    def _named(self) -> dict[str, str]:
        return {"group": self._resource.group, "resource": self._resource.plural}


class _Told(Generic[T]):
    """A sink that also tells when the first list is complete."""

    def __init__(self, sink: Sink[T], on_settled: Callable[[], None]) -> None:
        self.seen = sink.seen
        self.gone = sink.gone
        self.progressed = sink.progressed
        self._sink = sink
        self._on_settled = on_settled

    def synced(self) -> None:
        """Pass it on."""
        self._sink.synced()
        self._on_settled()
