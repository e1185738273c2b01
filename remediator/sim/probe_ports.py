"""Real sockets at the hosts' own addresses, so that a prober in another process can reach them.

Each host has an address of its own in 127.0.0.0/8 (Linux answers for all of it). A host that is on
accepts; one that is off, hangs or is cut off answers nothing at all: its listener's queue is filled
and left so, and the kernel then drops every SYN without a word. Echo requests are beyond this: the
loopback answers them for dead hosts, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

import structlog

from remediator.sim.hosts.host import Host

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.1
# A listener with a backlog of 0 takes one connection; the third finds its queue full.
_FILLERS = 3


class ProbePorts:
    """Keeps the kubelet port of every host true to the host. For a real event loop."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._ports = [_Port(host) for host in hosts.values()]
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen for every host. Raises OSError where an address or port cannot be had."""
        try:
            for port in self._ports:
                port.open()
        except OSError:
            self.close()
            raise
        self._task = asyncio.get_running_loop().create_task(self._look(), name="probe-ports")

    async def stop(self) -> None:
        """End it all."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.close()

    def close(self) -> None:
        """Close every socket."""
        for port in self._ports:
            port.close()

    async def _look(self) -> None:
        while True:
            for port in self._ports:
                port.look()
            await asyncio.sleep(LOOK_EVERY_S)


class _Port:
    """One host's listener: served, or filled."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._listener: socket.socket | None = None
        self._fillers: list[socket.socket] = []
        self._where = (host.spec.address, host.spec.kubelet_port)

    def open(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener = listener
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._where)
        listener.listen(0)
        listener.setblocking(False)
        self._serve()

    def look(self) -> None:
        """Bring the listener to what the host is now."""
        if self._host.answers and self._fillers:
            for filler in self._fillers:
                filler.close()
            self._fillers.clear()
            self._accept()
            self._serve()
        elif not self._host.answers and not self._fillers:
            self._fill()

    def close(self) -> None:
        if self._listener is None:
            return
        if not self._fillers:
            asyncio.get_running_loop().remove_reader(self._listener)
        for opened in (self._listener, *self._fillers):
            opened.close()
        self._listener, self._fillers = None, []

    def _serve(self) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()

    def _fill(self) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().remove_reader(self._listener)
        for _ in range(_FILLERS):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.setblocking(False)
            filler.connect_ex(self._where)
            self._fillers.append(filler)
