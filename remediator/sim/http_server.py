"""The simulated API server on a real socket, for real clients: aiohttp, the daemon, kubectl.

A client is known by the header ``x-client-name``, else by its User-Agent: partitions and admission
go by that name.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from remediator.kube.transport import Response, TransportError
from remediator.sim.apiserver import ApiServer
from remediator.sim.client_link import ClientLink, HalfLineError, WatchLines
from remediator.sim.watch_streams import WatchStream

log = structlog.get_logger(__name__)

Closer = Callable[[], Awaitable[None]]

# kube-apiserver's limit of a request body (--max-resource-write-bytes, 3 MiB).
_BODY_LIMIT = 3 * 1024 * 1024
# After a silence a request whose client has given up must not take effect: its handler is cancelled
# once the socket's end is read, which on loopback takes well under this.
_SETTLE_S = 0.02
# Watches never end by themselves: they get this long at a close (aiohttp takes 0 for "for ever").
_SHUTDOWN_S = 0.05
_UNAUTHORIZED = Response(
    status=401,
    headers={"content-type": "application/json"},
    body=(
        b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
        b'"message":"Unauthorized","reason":"Unauthorized","code":401}'
    ),
)


async def serve(
    server: ApiServer, host: str = "127.0.0.1", port: int = 0, *, token: str | None = None
) -> tuple[str, Closer]:
    """Serve until the returned closer is awaited; returns the URL and the closer.

    ``port`` 0 takes any free one. With a ``token`` requests without it are answered 401 (client-go
    and kubectl send none over plain HTTP: leave it out for them).
    Raises OSError when the address cannot be had.
    """
    face = _HttpFace(server, token)
    listener = web.Server(face.answer, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(listener, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    bound_port = runner.addresses[0][1]
    return f"http://{host}:{bound_port}", runner.cleanup


def write_kubeconfig(path: Path, url: str, token: str | None = None) -> None:
    """Write a kubeconfig (as JSON, which is YAML) that only its owner may read.

    Raises OSError.
    """
    user = {} if token is None else {"token": token}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "simulated", "cluster": {"server": url}}],
        "users": [{"name": "simulated", "user": user}],
        "contexts": [
            {"name": "simulated", "context": {"cluster": "simulated", "user": "simulated"}}
        ],
        "current-context": "simulated",
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(config)))


class _HttpFace:
    def __init__(self, server: ApiServer, token: str | None) -> None:
        self._server = server
        self._authorization = None if token is None else f"Bearer {token}"

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        body = await _read_body(request)
        if self._authorization not in (None, request.headers.get("authorization")):
            return _whole(_UNAUTHORIZED)
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers["user-agent"] = headers.get("x-client-name") or headers.get("user-agent", "")
        link = ClientLink(self._server.faults, headers["user-agent"], settle_s=_SETTLE_S)
        query = tuple(request.query.items())

        def send() -> Response | WatchStream:
            return self._server.answer(
                request.method, request.rel_url.raw_path, query, headers, body
            )

        try:
            answer = send() if link.immediate else await link.exchange(send)
        except TransportError:
            _reset(request)
            return web.Response()
        if isinstance(answer, Response):
            return _whole(answer)
        return await self._stream(request, answer, link)

    async def _stream(
        self, request: web.BaseRequest, watch: WatchStream, link: ClientLink
    ) -> web.StreamResponse:
        lines = WatchLines(watch, link)
        response = web.StreamResponse(status=watch.status, headers=watch.headers)
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            async for line in lines:
                await response.write(line + b"\n")
            await response.write_eof()
        except HalfLineError as half:
            await response.write(half.sent)
            if request.transport is not None:
                request.transport.close()  # sends what is written, then ends without a last chunk
        except TransportError:
            _reset(request)
        except ConnectionResetError as gone:
            log.debug("watcher_left", client=request.headers.get("user-agent"), why=str(gone))
        finally:
            lines.leave()
        return response


async def _read_body(request: web.BaseRequest) -> bytes:
    body = b""
    async for part in request.content.iter_any():
        body += part
        if len(body) > _BODY_LIMIT:
            raise web.HTTPRequestEntityTooLarge(max_size=_BODY_LIMIT, actual_size=len(body))
    return body


def _whole(answer: Response) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def _reset(request: web.BaseRequest) -> None:
    """Break the connection with a TCP reset rather than an orderly end."""
    transport = request.transport
    if transport is None:
        return
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        # Linger of zero seconds: close() sends RST.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.Transport):
        transport.abort()
