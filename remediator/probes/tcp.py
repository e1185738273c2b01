"""Knock on a TCP port without coming in.

The handshake is cut off by a reset before its last step: with quick acknowledgements off the kernel
delays the final ACK, and closing a socket that must not linger sends RST instead. So the listening
program never learns of the connection (a kubelet would write a line about each TLS handshake that
does not come), and thousands of probes leave no socket in TIME_WAIT. HAProxy checks servers in the
same way. Where the event loop is late the ACK may go out first; that costs a log line there.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from typing import Final

_NO_LINGER: Final = struct.pack("ii", 1, 0)
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux


async def knock(address: str, port: int, timeout_s: float) -> None:
    """Return when the host would accept a connection.

    ``address`` is an IP address. Raises ConnectionRefusedError when it answers that nothing
    listens, TimeoutError, and OSError for everything else.
    """
    family = family_of(address)
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as knocking:
        knocking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        if _QUICK_ACK is not None:
            knocking.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 0)
        error = knocking.connect_ex((address, port))
        if error == errno.EINPROGRESS:
            await _writable(knocking, timeout_s)
            error = knocking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))  # becomes ConnectionRefusedError and the like


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of an IP address. Raises OSError (EINVAL) where it is none.

    A name would be resolved, and to resolve blocks.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return family
    raise OSError(errno.EINVAL, f"{address[:64]!r} is no IP address")


async def _writable(knocking: socket.socket, timeout_s: float) -> None:
    """Wait for the end of a connection attempt. Raises TimeoutError.

    Not with ``asyncio.timeout``: when the loop is late and both the answer and the deadline are
    due, it prefers the deadline, and a host that answered in time would be called silent.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def answered() -> None:
        if not ready.done():
            ready.set_result(None)

    def overdue() -> None:
        if not ready.done():
            ready.set_exception(TimeoutError("no answer"))

    loop.add_writer(knocking, answered)
    deadline = loop.call_later(timeout_s, overdue)
    try:
        await ready
    finally:
        deadline.cancel()
        loop.remove_writer(knocking)
