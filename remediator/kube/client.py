"""Single requests with typed answers: what actions, rechecks and the election are made of.

Nothing is retried here: whoever calls knows whether a repeat is safe. Every call has a timeout, and
every write names its content type (the API server answers 400 or 415 to the wrong one).
"""

from __future__ import annotations

import enum
from typing import Any, TypeVar, cast, overload

import msgspec

from remediator.kube.errors import raise_for, unreadable
from remediator.kube.listing import PageReader
from remediator.kube.metadata import KubeObject
from remediator.kube.resources import Resource
from remediator.kube.transport import Query, Response, Transport

T = TypeVar("T")
Item = TypeVar("Item", bound=KubeObject)

_JSON = "application/json"
_TIMEOUT_S = 5.0  # a healthy API server answers single objects within a second (its SLO's p99)


class PatchKind(enum.Enum):
    """How a patch is read; the value is its content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"  # built-in kinds only, never CRDs
    APPLY = "application/apply-patch+yaml"  # JSON is YAML; needs fieldManager in the query


class KubeClient:
    """Sends one request at a time to one API server.

    Every method raises ApiError (by meaning, see ``errors``) when the server refuses, and
    TransportError when there was no answer: then whether a write happened is unknown.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._decoders: dict[Any, msgspec.json.Decoder[Any]] = {}

    async def get(
        self, path: str, kind: type[T], *, query: Query = (), timeout_s: float = _TIMEOUT_S
    ) -> T:
        """Read ``path`` into a ``kind`` (a Struct, or ``dict`` to keep every field)."""
        response = await self._transport.request("GET", path, query=query, timeout_s=timeout_s)
        return self._decode(response, kind, "GET", path)

    async def list_all(
        self,
        resource: Resource[Item],
        *,
        namespace: str = "",
        query: Query = (),
        timeout_s: float = 30.0,
    ) -> list[Item]:
        """Read a whole collection by pages; ``query`` adds selectors; the timeout is a page's."""
        reader = PageReader(self._transport, resource, timeout_s=timeout_s)
        items: list[Item] = []
        async for page in reader.pages(namespace=namespace, query=query):
            if page.restarted:
                items.clear()
            items.extend(page.items)
        return items

    @overload
    async def create(
        self, path: str, obj: Any, result: type[T], *, query: Query = (), timeout_s: float = ...
    ) -> T: ...
    @overload
    async def create(
        self,
        path: str,
        obj: Any,
        result: None = None,
        *,
        query: Query = (),
        timeout_s: float = ...,
    ) -> None: ...
    async def create(
        self,
        path: str,
        obj: Any,
        result: type[T] | None = None,
        *,
        query: Query = (),
        timeout_s: float = _TIMEOUT_S,
    ) -> T | None:
        """POST ``obj`` to a collection. Raises AlreadyExistsError when the name is taken."""
        return await self._write(
            "POST", path, obj, result, content_type=_JSON, query=query, timeout_s=timeout_s
        )

    @overload
    async def replace(
        self, path: str, obj: Any, result: type[T], *, query: Query = (), timeout_s: float = ...
    ) -> T: ...
    @overload
    async def replace(
        self,
        path: str,
        obj: Any,
        result: None = None,
        *,
        query: Query = (),
        timeout_s: float = ...,
    ) -> None: ...
    async def replace(
        self,
        path: str,
        obj: Any,
        result: type[T] | None = None,
        *,
        query: Query = (),
        timeout_s: float = _TIMEOUT_S,
    ) -> T | None:
        """PUT ``obj``, a whole object or the body of a subresource; None sends no body.

        With ``metadata.resourceVersion`` in it, ConflictError says that somebody wrote first.
        """
        return await self._write(
            "PUT", path, obj, result, content_type=_JSON, query=query, timeout_s=timeout_s
        )

    @overload
    async def patch(
        self,
        path: str,
        patch: Any,
        *,
        kind: PatchKind,
        result: type[T],
        query: Query = (),
        timeout_s: float = ...,
    ) -> T: ...
    @overload
    async def patch(
        self,
        path: str,
        patch: Any,
        *,
        kind: PatchKind,
        result: None = None,
        query: Query = (),
        timeout_s: float = ...,
    ) -> None: ...
    async def patch(
        self,
        path: str,
        patch: Any,
        *,
        kind: PatchKind,
        result: type[T] | None = None,
        query: Query = (),
        timeout_s: float = _TIMEOUT_S,
    ) -> T | None:
        """PATCH an object. ``metadata.resourceVersion`` in a merge patch guards against others."""
        return await self._write(
            "PATCH", path, patch, result, content_type=kind.value, query=query, timeout_s=timeout_s
        )

    async def delete(
        self,
        path: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_s: int | None = None,
        query: Query = (),
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """DELETE one object, only if it is this very one (``uid``) and version.

        ``grace_s=0`` removes a pod's object at once. Raises NotFoundError when there is none and
        ConflictError when a precondition does not hold.
        """
        preconditions = {
            name: value
            for name, value in (("uid", uid), ("resourceVersion", resource_version))
            if value is not None
        }
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if preconditions:
            options["preconditions"] = preconditions
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        await self._write(
            "DELETE", path, options, None, content_type=_JSON, query=query, timeout_s=timeout_s
        )

    async def _write(
        self,
        method: str,
        path: str,
        obj: Any,
        result: type[T] | None,
        *,
        content_type: str,
        query: Query,
        timeout_s: float,
    ) -> T | None:
        body = None if obj is None else msgspec.json.encode(obj)
        response = await self._transport.request(
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            timeout_s=timeout_s,
        )
        if result is None:
            raise_for(response, method, path)
            return None
        return self._decode(response, result, method, path)

    def _decode(self, response: Response, kind: type[T], method: str, path: str) -> T:
        raise_for(response, method, path)
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = msgspec.json.Decoder(kind)
        try:
            return cast("T", decoder.decode(response.body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise unreadable(response, method, path, str(error)) from error
