"""Which custom resources the API serves now, and in which versions: one look for all of them.

A look is one request: ``/apis`` in the form of one document for all groups. Servers older than
Kubernetes 1.26 answer it by group; then the resources of a wanted group are asked for, too, until
all that we want of it are known.

A look that fails takes nothing back. Nor does one that says "gone" decide anything by itself: while
an API server starts, its document may lack groups that it serves (see ``custom_watch``).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable
from typing import TypeVar

import msgspec
import structlog

from remediator.backoff import Backoff
from remediator.kube.errors import (
    ApiError,
    ForbiddenError,
    NotFoundError,
    raise_for,
    unreadable,
)
from remediator.kube.transport import Response, Transport, TransportError

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_APIS = "/apis"
_NEEDED_VERBS = frozenset({"list", "watch"})
_STALE = "Stale"  # an aggregated API server does not answer: what is listed of it is old or empty

GroupResource = tuple[str, str]  # ("cluster.x-k8s.io", "machines")
Versions = tuple[str, ...]  # as the server prefers them


class DiscoverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how patiently."""

    # A CRD that was installed must be seen within a minute: 30 s and a fifth leave time to list.
    period_s: float = 30.0
    jitter: float = 0.2
    # One look in this time at most, however many ask for one.
    pause_s: float = 1.0
    # Longer than what the measure of the API server's quickness takes for a quick request
    # (kube.measured): the document of a large cluster has some hundred kilobytes.
    timeout_s: float = 15.0
    retry_base_s: float = 1.0
    retry_cap_s: float = 30.0


class _Name(msgspec.Struct, frozen=True):
    name: str = ""


class _Resource(msgspec.Struct, frozen=True):
    resource: str = ""  # in the one document
    name: str = ""  # by group
    verbs: tuple[str, ...] | None = None

    @property
    def plural(self) -> str:
        return self.resource or self.name

    @property
    def watchable(self) -> bool:
        return frozenset(self.verbs or ()) >= _NEEDED_VERBS


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    version: str = ""
    freshness: str = ""
    resources: tuple[_Resource, ...] | None = None


class _Group(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""  # by group
    metadata: _Name = _Name()  # in the one document
    versions: tuple[_Version, ...] | None = None
    preferred_version: _Version | None = None

    @property
    def named(self) -> str:
        return self.name or self.metadata.name

    @property
    def ordered(self) -> tuple[_Version, ...]:
        """The versions, the preferred one first."""
        preferred = self.preferred_version.version if self.preferred_version else ""
        return tuple(sorted(self.versions or (), key=lambda each: each.version != preferred))


class _Document(msgspec.Struct, frozen=True):
    """Either form of ``/apis``: ``items`` for all groups at once, ``groups`` by group."""

    kind: str
    items: tuple[_Group, ...] | None = None
    groups: tuple[_Group, ...] | None = None


class _ResourceList(msgspec.Struct, frozen=True):
    resources: tuple[_Resource, ...] | None = None


_document_decoder = msgspec.json.Decoder(_Document)
_list_decoder = msgspec.json.Decoder(_ResourceList)


class ApiDiscovery:
    """Looks at the API every half minute, or sooner when asked; ``run`` must run as a task.

    ``refused``: we may not look at all. ``looks`` counts the requests that were sent.
    """

    def __init__(
        self,
        transport: Transport,
        wanted: Iterable[GroupResource],
        *,
        rng: random.Random,
        settings: DiscoverySettings | None = None,
    ) -> None:
        self._transport = transport
        self._wanted: dict[str, frozenset[str]] = {}
        for group, plural in wanted:
            self._wanted[group] = self._wanted.get(group, frozenset()) | {plural}
        self._rng = rng
        self._settings = settings or DiscoverySettings()
        self._backoff = Backoff(
            base_s=self._settings.retry_base_s, cap_s=self._settings.retry_cap_s, rng=rng
        )
        self._served: dict[GroupResource, Versions] = {}
        self._lists: dict[tuple[str, str], frozenset[str]] = {}  # by group: what a version has
        self._asked = asyncio.Event()
        self._answered = asyncio.Event()
        self._failing = False
        self._mark: int | None = None  # of the last document for all groups
        self.refused = False
        self.looks = 0

    def served(self, group: str, plural: str) -> Versions | None:
        """Return the versions that a resource is served in, () for none, None: not known yet."""
        return self._served.get((group, plural))

    def look(self) -> None:
        """Ask for a look soon: something that was served does not seem to be."""
        self._asked.set()

    async def answered(self) -> None:
        """Wait for the end of the next look, or for the news that we may not look."""
        await self._answered.wait()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            hurried = self._asked.is_set()
            self._asked.clear()
            try:
                await self._look(hurried=hurried)
            except (ApiError, TransportError) as error:
                self._note_failure(error)
                wait_s = self._backoff.next_s()
            else:
                self._note_success()
                spread = self._settings.jitter * self._rng.uniform(-1.0, 1.0)
                wait_s = self._settings.period_s * (1.0 + spread)
            await asyncio.sleep(min(self._settings.pause_s, wait_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s - self._settings.pause_s)):
                    await self._asked.wait()

    # --- one look -----------------------------------------------------------------------------

    async def _look(self, *, hurried: bool) -> None:
        response = await self._get(_APIS)
        mark = hash(response.body)
        if mark == self._mark:
            return  # some hundred kilobytes that say what they said: not read again
        document = _decode(response, _document_decoder, _APIS)
        if document.items is None and document.groups is None:
            raise unreadable(response, "GET", _APIS, f"a {document.kind!r} without groups")
        found = {group.named: group for group in (document.items or document.groups or ())}
        for name, plurals in self._wanted.items():
            group = found.get(name)
            if group is None:
                self._take(name, {})
            elif document.items is not None:
                self._take_whole(group)
            else:
                await self._read_by_version(group, plurals, anew=hurried)
        # By group the list of groups does not tell what is in them.
        self._mark = mark if document.items is not None else None

    def _take_whole(self, group: _Group) -> None:
        versions = group.versions or ()
        if any(version.freshness == _STALE for version in versions):
            return  # what was known of it stands
        self._take(
            group.named,
            {version.version: _watchable(version.resources) for version in versions},
        )

    async def _read_by_version(self, group: _Group, plurals: frozenset[str], *, anew: bool) -> None:
        """Read what each version of one group has, unless all that is wanted of it is known."""
        lists: dict[str, frozenset[str]] = {}
        for version in (each.version for each in group.ordered):
            known = self._lists.get((group.named, version))
            if known is None or anew or not plurals <= known:
                try:
                    known = await self._read_list(f"{_APIS}/{group.named}/{version}")
                except (ApiError, TransportError) as error:
                    _log.info("discovery_incomplete", group=group.named, problem=str(error))
                    return  # what was known of the group stands, and others are not kept waiting
            lists[version] = self._lists[group.named, version] = known
        self._take(group.named, lists)

    async def _read_list(self, path: str) -> frozenset[str]:
        try:
            response = await self._get(path)
        except NotFoundError:
            return frozenset()  # it went between the two requests
        return _watchable(_decode(response, _list_decoder, path).resources)

    async def _get(self, path: str) -> Response:
        self.looks += 1
        response = await self._transport.request("GET", path, timeout_s=self._settings.timeout_s)
        raise_for(response, "GET", path)
        return response

    def _take(self, group: str, lists: dict[str, frozenset[str]]) -> None:
        """Note what a group's versions have, in the server's order."""
        for plural in self._wanted[group]:
            now = tuple(version for version, known in lists.items() if plural in known)
            before = self._served.get((group, plural))
            self._served[group, plural] = now
            if before != now and (before or now):
                _log.info("resource_served", group=group, resource=plural, versions=now)

    # --- its end ------------------------------------------------------------------------------

    def _note_success(self) -> None:
        if self._failing:
            _log.info("discovery_works_again")
        self._failing = self.refused = False
        self._backoff.reset()
        self._tell()

    def _note_failure(self, error: ApiError | TransportError) -> None:
        if not self._failing:
            _log.warning("discovery_failed", problem=str(error))
        self._failing = True
        if isinstance(error, ForbiddenError | NotFoundError):
            self.refused = True
            self._tell()

    def _tell(self) -> None:
        answered, self._answered = self._answered, asyncio.Event()
        answered.set()


def _watchable(resources: tuple[_Resource, ...] | None) -> frozenset[str]:
    return frozenset(each.plural for each in resources or () if each.watchable)


def _decode(response: Response, decoder: msgspec.json.Decoder[T], path: str) -> T:
    try:
        return decoder.decode(response.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise unreadable(response, "GET", path, str(error)) from error
