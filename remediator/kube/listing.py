"""Read a whole collection, page by page.

A list names no resourceVersion, so the API server must answer from the newest state (a quorum read,
or a watch cache that has caught up): a completed list proves that we see the cluster, which an
answer from a stale cache would not. All pages are of one snapshot, that of the first page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from remediator.kube.errors import GoneError, raise_for, unreadable
from remediator.kube.metadata import KubeObject
from remediator.kube.resources import Resource
from remediator.kube.transport import Query, Response, Transport

T = TypeVar("T", bound=KubeObject)
Item = TypeVar("Item")

# client-go's pager uses the same; a page of large objects stays at some megabytes.
PAGE_LIMIT = 500

_log = structlog.get_logger(__name__)


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some objects of a collection, and the resourceVersion of the snapshot they belong to.

    ``restarted``: the earlier pages' snapshot expired; this page begins the collection anew, from
    newer state, and what was yielded before no longer counts as complete.
    """

    items: list[T]
    resource_version: str
    restarted: bool = False


class _ListMeta(msgspec.Struct, frozen=True):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Body(msgspec.Struct, Generic[Item], frozen=True):
    metadata: _ListMeta
    items: list[Item] | None = None


class _Head(msgspec.Struct, frozen=True):
    metadata: _ListMeta


_meta_decoder = msgspec.json.Decoder(_Head)


class PageReader(Generic[T]):
    """Reads the pages of one resource; its decoder is built once."""

    def __init__(self, transport: Transport, resource: Resource[T], *, timeout_s: float) -> None:
        self._transport = transport
        self._resource = resource
        self._timeout_s = timeout_s
        self._decoder = _body_decoder(resource.item)
        self._raw_decoder = _body_decoder(msgspec.Raw)
        self.unreadable = 0  # objects left out so far because they did not decode

    async def pages(
        self, *, namespace: str = "", query: Query = (), limit: int = PAGE_LIMIT
    ) -> AsyncIterator[Page[T]]:
        """Yield every page.

        When the snapshot expires midway (410: the token is older than about 5 minutes, or etcd was
        compacted), everything is read once more in one unpaged answer, which cannot expire.
        Raises ApiError, TransportError.
        """
        path = self._resource.collection(namespace or self._resource.namespace)
        selectors = (*self._resource.query, *query)
        token: str | None = None
        restarted = False
        while True:
            paging = [("limit", str(limit))] if limit else []
            if token:
                paging.append(("continue", token))
            response = await self._transport.request(
                "GET", path, query=(*selectors, *paging), timeout_s=self._timeout_s
            )
            try:
                raise_for(response, "GET", path)
            except GoneError:
                if token is None:
                    raise
                token, limit, restarted = None, 0, True
                continue
            meta, items = self._decode(response, path)
            yield Page(items=items, resource_version=meta.resource_version, restarted=restarted)
            restarted = False
            token = meta.continue_
            if not token:
                return

    async def newest_version(self, *, timeout_s: float) -> str:
        """Return the newest resourceVersion, by a list of at most one object.

        Without selectors: the API server would look through everything for the first match.
        Raises ApiError, TransportError.
        """
        path = self._resource.path
        response = await self._transport.request(
            "GET", path, query=[("limit", "1")], timeout_s=timeout_s
        )
        raise_for(response, "GET", path)
        try:
            return _meta_decoder.decode(response.body).metadata.resource_version
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise unreadable(response, "GET", path, str(error)) from error

    def _decode(self, response: Response, path: str) -> tuple[_ListMeta, list[T]]:
        try:
            body = self._decoder.decode(response.body)
            return body.metadata, body.items or []
        except msgspec.ValidationError as error:
            if error_is_in_items(error):
                return self._decode_each(response, path)
            raise unreadable(response, "GET", path, str(error)) from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise unreadable(response, "GET", path, str(error)) from error

    def _decode_each(self, response: Response, path: str) -> tuple[_ListMeta, list[T]]:
        """Leave out what does not decode: one odd object must not blind us to the rest."""
        body = self._raw_decoder.decode(response.body)
        items: list[T] = []
        for raw in body.items or []:
            try:
                items.append(msgspec.json.decode(raw, type=self._resource.item))
            except msgspec.ValidationError as error:
                self.unreadable += 1
                _log.error("object_unreadable", path=path, problem=str(error))
        return body.metadata, items


def error_is_in_items(error: msgspec.ValidationError) -> bool:
    """Say whether a list failed to decode in one of its objects, not in its own shape."""
    return "`$.items[" in str(error)


def _body_decoder(item: type[Item]) -> msgspec.json.Decoder[_Body[Item]]:
    body: Any = _Body  # the item's type is a value here, which mypy does not take as a parameter
    return msgspec.json.Decoder(body[item])
