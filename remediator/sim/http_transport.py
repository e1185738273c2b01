"""A plain HTTP way to the simulated API server, under a client's name.

Emulated hosts of the demo speak through it over real sockets, as kubelets do. For a real control
plane ``kube.cluster.ClusterTransport`` takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp

from remediator.kube.transport import LineStream, Query, Response, TransportError

_BODY_LIMIT = 64 * 1024 * 1024
_ERROR_BODY_LIMIT = 1024 * 1024
_LINE_LIMIT = 4 * 1024 * 1024


class HttpTransport:
    """One client's connections. ``url`` is asked for at each request: it may be known late."""

    def __init__(self, url: Callable[[], str], client_name: str) -> None:
        self._url = url
        self._headers = {"user-agent": client_name}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

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
        """Send one request; see ``Transport``."""
        headers = dict(self._headers)
        if content_type is not None:
            headers["content-type"] = content_type
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._open().request(
                    method,
                    self._url() + path,
                    params=list(query),
                    data=body,
                    headers=headers,
                    skip_auto_headers=["content-type"],
                ) as answer,
            ):
                content = await answer.content.read(_BODY_LIMIT)
                while not answer.content.at_eof() and len(content) < _BODY_LIMIT:
                    content += await answer.content.read(_BODY_LIMIT - len(content))
                return Response(status=answer.status, headers=_lower(answer.headers), body=content)
        except TimeoutError as error:
            raise TransportError(f"no answer to {method} {path} in {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"{method} {path}: {error}") from error

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AsyncIterator[LineStream]:
        """Open a GET that is read line by line; see ``Transport``."""
        try:
            async with asyncio.timeout(connect_timeout_s):
                answer = await self._open().get(
                    self._url() + path, params=list(query), headers=self._headers
                )
        except TimeoutError as error:
            raise TransportError(f"no answer to GET {path} in {connect_timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"GET {path}: {error}") from error
        try:
            yield _Lines(answer)
        finally:
            answer.close()

    async def close(self) -> None:
        """Close connections; further calls raise TransportError."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise TransportError("the transport is closed")
        if self._session is None:
            # No limit on the whole: each request has its own, watches have none.
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), read_bufsize=_LINE_LIMIT
            )
        return self._session


class _Lines:
    """The lines of one answer."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = _lower(answer.headers)

    async def lines(self) -> AsyncIterator[bytes]:
        try:
            while line := await self._answer.content.readline():
                if not line.endswith(b"\n"):
                    return
                yield line[:-1]
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(str(error)) from error

    async def body(self) -> bytes:
        return await self._answer.content.read(_ERROR_BODY_LIMIT)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
