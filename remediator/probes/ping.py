"""ICMP echo by the kernel's unprivileged ping sockets, one socket per address family.

A ping socket needs no capability, only that ``net.ipv4.ping_group_range`` (which holds for IPv6 as
well) contains a group of ours. The kernel sets the identifier and hands us only replies to it; the
sequence number tells which probe a reply belongs to, a cookie that it is a reply to ours.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from typing import Final

from remediator.probes.tcp import family_of

_HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_REQUEST: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL: Final = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_SEQUENCES: Final = 1 << 16
_RECEIVE_BUFFER: Final = 1 << 20  # replies to a thousand probes while the event loop is busy
_READ_MAX: Final = 64  # replies read in one go; a flood must not starve the event loop


class Pinger:
    """Sends echo requests and waits for their replies. Use it on one event loop."""

    def __init__(self) -> None:
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._waiting: dict[tuple[socket.AddressFamily, int], asyncio.Future[None]] = {}
        self._cookie = secrets.token_bytes(8)
        self._sequence = 0

    async def ping(self, address: str, timeout_s: float) -> None:
        """Return when a reply came.

        Raises TimeoutError, PermissionError where the kernel allows us no ping socket, and OSError
        for everything else.
        """
        family = family_of(address)
        sending = self._open(family)
        loop = asyncio.get_running_loop()
        replied: asyncio.Future[None] = loop.create_future()
        key = (family, self._free_sequence(family))

        def overdue() -> None:
            if not replied.done():
                replied.set_exception(TimeoutError("no reply"))

        self._waiting[key] = replied
        deadline = loop.call_later(timeout_s, overdue)
        try:
            header = _HEADER.pack(_REQUEST[family], 0, 0, 0, key[1])
            sending.sendto(header + self._cookie, (address, 0))
            await replied
        finally:
            deadline.cancel()
            del self._waiting[key]

    def close(self) -> None:
        """Close the sockets; those who wait get no reply."""
        loop = asyncio.get_running_loop()
        for opened in self._sockets.values():
            loop.remove_reader(opened)
            opened.close()
        self._sockets.clear()

    def _open(self, family: socket.AddressFamily) -> socket.socket:
        opened = self._sockets.get(family)
        if opened is None:
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            opened = socket.socket(family, kind, _PROTOCOL[family])
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            asyncio.get_running_loop().add_reader(opened, self._read, family, opened)
            self._sockets[family] = opened
        return opened

    def _free_sequence(self, family: socket.AddressFamily) -> int:
        """Return a number that nobody waits for; there are far more of them than probes."""
        while True:
            self._sequence = (self._sequence + 1) % _SEQUENCES
            if (family, self._sequence) not in self._waiting:
                return self._sequence

    def _read(self, family: socket.AddressFamily, reading: socket.socket) -> None:
        for _ in range(_READ_MAX):
            try:
                packet = reading.recv(256)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error that was reported for one of the requests: it will time out
            if len(packet) < _HEADER.size:
                continue
            what, _, _, _, sequence = _HEADER.unpack_from(packet)
            if what != _REPLY[family] or packet[_HEADER.size :] != self._cookie:
                continue
            replied = self._waiting.get((family, sequence))
            if replied is not None and not replied.done():
                replied.set_result(None)
