"""Hosts on loopback that accept, refuse, swallow, stall and dawdle; time is real here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

TLS = Path(__file__).parents[2] / "kube" / "tls"  # of an authority that nobody knows
FILLERS = 3  # connections that fill the queue of a listener whose backlog is 0


def pytest_asyncio_loop_factories(config, item):
    del config, item
    return {"real": asyncio.SelectorEventLoop}


class Listener:
    """A listening socket whose program may never accept."""

    def __init__(self, host: str, backlog: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.bind((host, 0))
        self.socket.listen(backlog)
        self.socket.setblocking(False)
        self.host = host
        self.port = self.socket.getsockname()[1]
        self.fillers: list[socket.socket] = []

    def fill(self) -> None:
        """Fill the queue of connections: from now on the kernel drops every SYN, and says nothing.

        That is what a black hole looks like from outside.
        """
        for _ in range(FILLERS):
            filler = socket.socket(self.socket.family)
            filler.setblocking(False)
            filler.connect_ex((self.host, self.port))
            self.fillers.append(filler)

    def drain(self) -> int:
        """Accept all that waits; return how many those were."""
        accepted = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.accept()[0].close()
                accepted += 1
        return accepted

    def close(self) -> None:
        for opened in (self.socket, *self.fillers):
            opened.close()


class Hosts:
    """Makes hosts and ends them."""

    def __init__(self) -> None:
        self._opened: list[Listener] = []
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()

    def accepting(self, host: str = "127.0.0.1") -> Listener:
        return self._open(host, 128)

    def refusing(self, host: str = "127.0.0.1") -> Listener:
        listener = self._open(host, 1)
        listener.close()
        return listener

    def black_hole(self, host: str = "127.0.0.1") -> Listener:
        listener = self._open(host, 0)
        listener.fill()
        return listener

    async def page(
        self, answer: Callable[[], Awaitable[bytes]] | bytes, *, tls: bool = True
    ) -> int:
        """Serve one page and return its port; every connection gets one answer."""
        context = None
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(TLS / "server.crt", TLS / "server.key")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer if isinstance(answer, bytes) else await answer())
                await writer.drain()
            writer.transport.abort()
            self._writers.discard(writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    @staticmethod
    def http(status: str, *headers: str) -> bytes:
        lines = [f"HTTP/1.1 {status}", "Content-Length: 2", *headers, "", "ok"]
        return "\r\n".join(lines).encode()

    async def close(self) -> None:
        for listener in self._opened:
            listener.close()
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for server in self._servers:
            await server.wait_closed()

    def _open(self, host: str, backlog: int) -> Listener:
        listener = Listener(host, backlog)
        self._opened.append(listener)
        return listener


@pytest.fixture
async def hosts():
    made = Hosts()
    yield made
    await made.close()
