"""A real API server: kubernetes-asyncio's configuration, authentication and connections, no more.

Its models, its Watch and its election are not used: only ``ApiClient.call_api`` without
deserialization. Importing it costs 1.2 s and 99 MB, so that happens when a cluster is opened.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec

from remediator.kube.kubeconfig import (
    Access,
    KubeconfigError,
    find_access,
    from_kubeconfig,
    from_service_account,
)
from remediator.kube.tokens import TokenError
from remediator.kube.transport import LineStream, Query, Response, TransportError, accepted

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

__all__ = ["ClusterTransport", "KubeconfigError"]

_BODY_LIMIT = 256 * 1024 * 1024  # a page of 500 large objects is some megabytes
_LINE_LIMIT = 64 * 1024 * 1024  # etcd stores up to 1.5 MiB; aiohttp's own reader stops at 4 MiB
_ERROR_BODY_LIMIT = 1024 * 1024


class ClusterTransport:
    """Implements ``Transport`` for a cluster. Make it with ``open`` or its siblings.

    Watches have connections of their own and cannot starve actions. After a 401 the token is read
    anew and the request sent once more. ``source`` says where the configuration came from.
    """

    def __init__(self, access: Access, requests: ApiClient, watches: ApiClient) -> None:
        self._token = access.token
        self._requests = requests
        self._watches = watches
        self._closed = False
        self.source = access.source

    @classmethod
    async def open(cls, *, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """Take the given file, else KUBECONFIG, else the pod's account, else ~/.kube/config.

        Nothing is sent yet. Raises KubeconfigError.
        """
        return await cls._from(await find_access(kubeconfig, context, os.environ))

    @classmethod
    async def from_kubeconfig(cls, paths: str, *, context: str | None = None) -> Self:
        """Read a kubeconfig file (or several, as in KUBECONFIG). Raises KubeconfigError."""
        return await cls._from(await from_kubeconfig(paths, context))

    @classmethod
    async def from_service_account(cls, directory: Path, environ: Mapping[str, str]) -> Self:
        """Use a mounted service account (``token`` and ``ca.crt``). Raises KubeconfigError."""
        return await cls._from(from_service_account(directory, environ))

    @classmethod
    async def _from(cls, access: Access) -> Self:
        if access.token is not None:
            token = access.token

            async def refresh(configuration: Configuration) -> None:
                configuration.api_key["BearerToken"] = await token.header()

            # The library sends the header only if a value is present, and asks the hook first.
            access.configuration.api_key["BearerToken"] = "unset"
            access.configuration.refresh_api_key_hook = refresh
        clients: list[ApiClient] = []
        try:
            clients = [_client(access), _client(access)]
        except BaseException:
            for client in clients:
                await client.close()
            raise
        return cls(access, *clients)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str | None = None,
        timeout_s: float,
    ) -> Response:
        """Send one request and read the whole answer. Raises TransportError."""
        what = f"{method} {path}"
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._call(
                    self._requests,
                    method,
                    path,
                    query=query,
                    body=body,
                    content_type=content_type,
                    limits=limits,
                )
                async with answer:
                    content = await _read_up_to(answer, _BODY_LIMIT)
                    return Response(
                        status=answer.status, headers=_lower(answer.headers), body=content
                    )
        except TimeoutError as error:
            raise TransportError(f"{what}: no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, TokenError) as error:
            raise TransportError(f"{what}: {_tell(error)}") from error

    def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AbstractAsyncContextManager[LineStream]:
        """Open a GET that is read line by line. Raises TransportError."""
        return self._stream(path, query, connect_timeout_s)

    @asynccontextmanager
    async def _stream(
        self, path: str, query: Query, connect_timeout_s: float
    ) -> AsyncIterator[LineStream]:
        what = f"WATCH {path}"
        # No limit on the whole, nor on silence: whoever reads sets these.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        try:
            async with asyncio.timeout(connect_timeout_s):
                answer = await self._call(self._watches, "GET", path, query=query, limits=limits)
        except TimeoutError as error:
            raise TransportError(f"{what}: no answer within {connect_timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, TokenError) as error:
            raise TransportError(f"{what}: {_tell(error)}") from error
        try:
            yield _Lines(answer, what)
        finally:
            answer.close()  # not released for reuse: the rest of a watch never ends

    async def close(self) -> None:
        """Close connections; further calls raise TransportError."""
        self._closed = True
        try:
            await self._requests.close()
        finally:
            await self._watches.close()

    async def _call(
        self,
        client: ApiClient,
        method: str,
        path: str,
        *,
        query: Query,
        limits: aiohttp.ClientTimeout,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request; after a 401, once more with the newest token."""

        async def send() -> aiohttp.ClientResponse:
            if self._closed:
                raise aiohttp.ClientConnectionError("the transport is closed")
            headers = {"Accept": accepted(path)}
            if content_type is not None:
                headers["Content-Type"] = content_type
            # The library encodes the body itself, so it gets the decoded one; bodies are small.
            answer: aiohttp.ClientResponse = await client.call_api(
                path,
                method,
                query_params=list(query),
                header_params=headers,
                body=None if body is None else msgspec.json.decode(body),
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=limits,
            )
            return answer

        answer = await send()
        if answer.status == 401 and self._token is not None:
            answer.close()
            await self._token.header(fresh=True)
            answer = await send()
        return answer


class _Lines:
    """Implements ``LineStream``. Splits lines itself, as aiohttp's reader stops at 4 MiB."""

    def __init__(self, answer: aiohttp.ClientResponse, what: str) -> None:
        self._answer = answer
        self._what = what
        self.status = answer.status
        self.headers: Mapping[str, str] = _lower(answer.headers)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield whole lines; the unfinished last one is dropped. Raises TransportError."""
        parts: list[bytes] = []  # of a line that goes on in the next chunk
        size = 0
        try:
            async for chunk in self._answer.content.iter_any():
                head, *rest = chunk.split(b"\n")
                parts.append(head)
                size += len(head)
                if size > _LINE_LIMIT:
                    raise TransportError(f"{self._what}: a line of more than {_LINE_LIMIT} bytes")
                if not rest:
                    continue
                yield b"".join(parts)
                for line in rest[:-1]:
                    yield line
                parts, size = [rest[-1]], len(rest[-1])
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"{self._what}: {_tell(error)}") from error

    async def body(self) -> bytes:
        """Return the rest, at most 1 MiB. Raises TransportError."""
        content = b""
        try:
            async for chunk in self._answer.content.iter_any():
                content += chunk
                if len(content) >= _ERROR_BODY_LIMIT:
                    break
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"{self._what}: {_tell(error)}") from error
        return content[:_ERROR_BODY_LIMIT]


def _client(access: Access) -> ApiClient:
    from kubernetes_asyncio.client import ApiClient  # noqa: PLC0415 - its import takes 1.2 s

    try:
        client = ApiClient(configuration=access.configuration)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise KubeconfigError(
            f"{access.source}: the certificates cannot be used: {_tell(error)}"
        ) from error
    client.user_agent = "remediator"  # also the name in managedFields
    return client


async def _read_up_to(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {limit} bytes")
    return b"".join(chunks)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _tell(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text or type(error).__name__
