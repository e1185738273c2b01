"""A small door to HTTP devices (BMCs), so that simulations can answer without sockets."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Protocol

import aiohttp
import msgspec

_BODY_LIMIT = 1024 * 1024  # a device's answer is a few kilobytes; more is a fault


class HttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. Header names are in lower case; any status is an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpError(Exception):
    """No answer: refused, reset, timed out, TLS or name failure, or an answer past the limit."""


class HttpClient(Protocol):
    """Sends one request and reads the whole answer."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpResponse:
        """Return the answer, whatever its status. Raises HttpError when there was none in time."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class AiohttpClient:
    """The real one. ``verify_tls=False`` is for BMCs with self-signed certificates.

    An answer of more than ``body_limit`` bytes is a fault.
    """

    def __init__(
        self,
        *,
        verify_tls: bool = True,
        ca_file: str | None = None,
        body_limit: int = _BODY_LIMIT,
    ) -> None:
        self._body_limit = body_limit
        self._verify_tls = verify_tls
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            tls = ssl.create_default_context(cafile=self._ca_file) if self._verify_tls else False
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=64, force_close=True)
            )
        return self._session

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpResponse:
        """Return the answer, whatever its status. Raises HttpError when there was none in time."""
        try:
            async with self._open().request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                limit = self._body_limit
                content = await answer.content.read(limit + 1)
                # content.read may return early; go on until the end or the limit.
                while len(content) <= limit and not answer.content.at_eof():
                    content += await answer.content.read(limit + 1 - len(content))
                if len(content) > limit:
                    raise HttpError(
                        f"{method} {url}: the answer is larger than {limit / 2**20:g} MiB"
                    )
                return HttpResponse(
                    status=answer.status,
                    headers={name.lower(): value for name, value in answer.headers.items()},
                    body=content,
                )
        except TimeoutError as error:
            raise HttpError(f"{method} {url}: no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise HttpError(f"{method} {url}: {error}") from error

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
