"""Replicas of storage that does not tell of them in the cluster: asked for over HTTP.

Portworx and Mayastor keep them to themselves. Where the address of their API is set, the leader
asks it once a minute; where it is not, their volumes have no known place, which forbids nothing.

- Portworx (OpenStorage): ``/v1/osd-volumes`` names each volume's replica sets by node id, and
  ``/v1/cluster/enumerate`` which id is which node of Kubernetes, and whether it is online.
- Mayastor: ``/v0/volumes`` names each replica's node and state.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from remediator.clock import Clock
from remediator.engine.model import FactKind, ReplicaSetFacts
from remediator.http_client import AiohttpClient, HttpClient, HttpError
from remediator.storage_settings import StorageApiSettings
from remediator.watchers.outlet import Outlet

log = structlog.get_logger(__name__)

_TIMEOUT_S: Final = 20.0  # a list of thousands of volumes
_REFRESH_S: Final = 600.0  # an unchanged set is told again, with a newer time, this often
_BODY_MAX: Final = 64 * 1024 * 1024  # thousands of volumes, some kilobytes each
_PAGES_MAX: Final = 1000
_PAGE: Final = 500
_OK: Final = 2  # api.Status_STATUS_OK of OpenStorage

T = TypeVar("T")

Replicas = dict[str, tuple[set[str], set[str]]]  # volume -> its nodes, and those that are good


class StorageApiError(Exception):
    """The API refused, was not reached, or said something else than it should."""


class StorageApi(Protocol):
    """One kind of storage."""

    name: str

    async def replicas(self) -> Replicas:
        """Return the replicas of all volumes. Raises StorageApiError."""
        ...


class _ReplicaSet(msgspec.Struct):
    nodes: tuple[str, ...] | None = None


class _PortworxVolume(msgspec.Struct):
    id: str = ""
    replica_sets: tuple[_ReplicaSet, ...] | None = None


class _PortworxItem(msgspec.Struct):
    volume: _PortworxVolume | None = None
    id: str = ""
    replica_sets: tuple[_ReplicaSet, ...] | None = None

    def made(self) -> _PortworxVolume:
        """Return the volume, which releases put at the top or one level below."""
        return self.volume or _PortworxVolume(id=self.id, replica_sets=self.replica_sets)


class _PortworxNode(msgspec.Struct):
    Id: str = ""
    SchedulerNodeName: str = ""
    Hostname: str = ""
    Status: int = 0


class _PortworxCluster(msgspec.Struct):
    Nodes: tuple[_PortworxNode, ...] | None = None


class _MayastorReplica(msgspec.Struct, rename="kebab"):
    node: str | None = None
    state: str = ""
    child_status: str | None = None


class _MayastorState(msgspec.Struct):
    uuid: str = ""
    replica_topology: dict[str, _MayastorReplica] | None = None


class _MayastorVolume(msgspec.Struct):
    state: _MayastorState | None = None


class _MayastorPage(msgspec.Struct):
    entries: tuple[_MayastorVolume, ...] = ()
    next_token: int | None = None


_volumes_decoder = msgspec.json.Decoder(tuple[_PortworxItem, ...])
_cluster_decoder = msgspec.json.Decoder(_PortworxCluster)
_page_decoder = msgspec.json.Decoder(_MayastorPage)


class Portworx:
    """Portworx' OpenStorage API."""

    name = "portworx"

    def __init__(self, http: HttpClient, url: str, token_file: str = "") -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._token_file = token_file

    async def replicas(self) -> Replicas:
        """Return the replicas of all volumes. Raises StorageApiError."""
        headers = self._headers()
        cluster = await _get(
            self._http, f"{self._url}/v1/cluster/enumerate", headers, _cluster_decoder.decode
        )
        volumes = await _get(
            self._http, f"{self._url}/v1/osd-volumes", headers, _volumes_decoder.decode
        )
        nodes = self._nodes(cluster)
        found: Replicas = {}
        for each in volumes:
            volume = each.made()
            held = [id_ for one in volume.replica_sets or () for id_ in one.nodes or ()]
            known = [nodes[id_] for id_ in held if id_ in nodes]
            if volume.id and known:
                found[volume.id] = (
                    {node for node, _ in known},
                    {node for node, online in known if online},
                )
        return found

    def _nodes(self, cluster: _PortworxCluster) -> dict[str, tuple[str, bool]]:
        """Return node ids with the node's name in Kubernetes, and whether it is online.

        A host that was replaced is listed twice under its name: the one that is online counts.
        """
        online = {
            name
            for node in cluster.Nodes or ()
            if node.Status == _OK and (name := node.SchedulerNodeName or node.Hostname)
        }
        found: dict[str, tuple[str, bool]] = {}
        for node in cluster.Nodes or ():
            name = node.SchedulerNodeName or node.Hostname
            if name and (node.Status == _OK or name not in online):
                found[node.Id] = (name, node.Status == _OK)
        return found

    def _headers(self) -> Mapping[str, str]:
        if not self._token_file:
            return {}
        try:
            token = Path(self._token_file).read_text()  # a small file in memory (a Secret's)
        except (OSError, UnicodeDecodeError) as error:
            raise StorageApiError(f"{self._token_file}: {error}") from error
        return {"Authorization": f"Bearer {token.strip()}"}


class Mayastor:
    """OpenEBS Mayastor's REST API."""

    name = "mayastor"

    def __init__(self, http: HttpClient, url: str) -> None:
        self._http = http
        self._url = url.rstrip("/")

    async def replicas(self) -> Replicas:
        """Return the replicas of all volumes, page by page. Raises StorageApiError."""
        found: Replicas = {}
        token = 0
        for _ in range(_PAGES_MAX):
            url = f"{self._url}/v0/volumes?max_entries={_PAGE}&starting_token={token}"
            page = await _get(self._http, url, {}, _page_decoder.decode)
            for volume in page.entries:
                self._take(volume, found)
            if page.next_token is None:
                return found
            token = page.next_token
        raise StorageApiError(f"{self._url}: more than {_PAGES_MAX} pages of volumes")

    def _take(self, volume: _MayastorVolume, found: Replicas) -> None:
        state = volume.state
        if state is None or not state.uuid:
            return
        placed = [each for each in (state.replica_topology or {}).values() if each.node]
        if placed:
            found[state.uuid] = (
                {each.node or "" for each in placed},
                {each.node or "" for each in placed if _is_good(each)},
            )


def _is_good(replica: _MayastorReplica) -> bool:
    """Whether its data is whole: a child that is being rebuilt is Degraded."""
    return replica.state == "Online" and replica.child_status in (None, "Online")


def apis_of(settings: StorageApiSettings) -> tuple[StorageApi, ...]:
    """Return the APIs whose addresses are set."""
    if not settings.portworx_url and not settings.mayastor_url:
        return ()
    http = AiohttpClient(body_limit=_BODY_MAX)
    found: list[StorageApi] = []
    if settings.portworx_url:
        found.append(Portworx(http, settings.portworx_url, settings.portworx_token_file))
    if settings.mayastor_url:
        found.append(Mayastor(http, settings.mayastor_url))
    return tuple(found)


class ReplicaPolls:
    """Asks while this replica leads, and publishes what changed. ``run`` works until cancelled."""

    def __init__(
        self,
        apis: tuple[StorageApi, ...],
        outlet: Outlet,
        clock: Clock,
        *,
        identity: str,
        period_s: float,
    ) -> None:
        self._apis = apis
        self._outlet = outlet
        self._clock = clock
        self._period_s = period_s
        # Chance of its own: it must not change what a seeded simulation of others does.
        self._rng = random.Random(f"replicas/{identity}")  # noqa: S311 - jitter is no secret
        self._leading = False
        self._wake = asyncio.Event()
        self._published: dict[str, dict[str, ReplicaSetFacts]] = {each.name: {} for each in apis}
        self._numbers = itertools.count()

    def lead(self) -> None:
        """Ask now, and once in every period."""
        for known in self._published.values():
            known.clear()  # a new leader's engine knows nothing yet
        self._leading = True
        self._wake.set()

    def follow(self) -> None:
        """Ask no more."""
        self._leading = False

    def again(self) -> None:
        """Offer all that is known once more."""
        for known in self._published.values():
            for facts in known.values():
                self._outlet.facts(facts, f"replica-set:{next(self._numbers)}")

    async def run(self) -> None:
        """Ask while this replica leads, until cancelled; at once done where nothing is set."""
        while self._apis:
            self._wake.clear()
            if self._leading:
                for api in self._apis:
                    await self._ask(api)
            wait_s = self._period_s * self._rng.uniform(0.9, 1.1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _ask(self, api: StorageApi) -> None:
        """Ask one. What it does not answer stays as it was, with the time that it is of."""
        try:
            replicas = await api.replicas()
        except StorageApiError as error:
            log.warning("replicas_unknown", storage=api.name, error=str(error))
            return
        known, now = self._published[api.name], round(self._clock.now(), 3)
        for volume in sorted(known.keys() - replicas.keys()):
            gone = known.pop(volume)
            self._outlet.gone(FactKind.REPLICA_SET, gone, f":{next(self._numbers)}")
        for volume, (all_nodes, good) in sorted(replicas.items()):
            nodes = tuple(sorted(all_nodes))
            bad = tuple(node for node in nodes if node not in good)
            before = known.get(volume)
            same = before is not None and (before.nodes, before.bad) == (nodes, bad)
            if before is not None and same and now - before.as_of < _REFRESH_S:
                continue
            name = f"{api.name}:{volume}"
            facts = ReplicaSetFacts(name=name, uid=name, nodes=nodes, bad=bad, as_of=now)
            known[volume] = facts
            self._outlet.facts(facts, f"replica-set:{next(self._numbers)}")


async def _get(
    http: HttpClient, url: str, headers: Mapping[str, str], decode: Callable[[bytes], T]
) -> T:
    try:
        answer = await http.request("GET", url, headers=headers, body=None, timeout_s=_TIMEOUT_S)
    except HttpError as error:
        raise StorageApiError(str(error)) from error
    if answer.status != 200:
        raise StorageApiError(f"GET {url}: status {answer.status}")
    try:
        return decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageApiError(f"GET {url}: {error}") from error
