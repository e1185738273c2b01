"""Pings in a network namespace of its own, whose kernel may be told who may ping; prints JSON."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import socket
import struct
from pathlib import Path

from remediator.probes.ping import Pinger

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SYSCTL = Path("/proc/sys/net/ipv4")


def enter() -> None:
    """Leave the network of the machine; root of a user namespace may set up the new one."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise SystemExit(f"unshare: {os.strerror(ctypes.get_errno())}")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


async def ping(pinger: Pinger, address: str, timeout_s: float = 5.0) -> str:
    try:
        await pinger.ping(address, timeout_s)
    except OSError as error:
        return type(error).__name__
    return "answers"


async def main() -> None:
    found = {}
    forbidden = Pinger()
    found["forbidden"] = await ping(forbidden, "127.0.0.1")
    forbidden.close()
    (SYSCTL / "ping_group_range").write_text("0 0")
    pinger = Pinger()
    found["allowed"] = await ping(pinger, "127.0.0.1")
    try:
        found["allowed on IPv6"] = await ping(pinger, "::1")
    except OSError as error:
        found["allowed on IPv6"] = str(error)
    many = await asyncio.gather(
        *(ping(pinger, f"127.0.{n // 250}.{n % 250 + 1}") for n in range(600))
    )
    found["many"] = sorted(set(many))
    found["no route"] = await ping(pinger, "192.0.2.1")
    (SYSCTL / "icmp_echo_ignore_all").write_text("1")
    found["silent host"] = await ping(pinger, "127.0.0.1", 0.3)
    found["still waiting"] = len(pinger._waiting)
    pinger.close()
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        enter()
    except OSError as error:
        raise SystemExit(f"unshare: {error}") from error
    asyncio.run(main())
