"""OpenIPMI's simulated BMC (Debian package ``openipmi``) as a process on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

USER, PASSWORD = "admin", "s3cret-ipmi"
GUID = "00112233445566778899aabbccddeeff"
# The same machine as its Node object names it: the BMC's bytes, the first three fields swapped.
SYSTEM_UUID = "33221100-5544-7766-8899-aabbccddeeff"

LAN = """
name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{chassis} 0x20"
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
EMULATION = """
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
"""
# "power" holds what is true, "mode" how the BMC behaves.
CHASSIS = """#!/bin/sh
cd {directory}
shift
verb=$1; shift
mode=$(cat mode)
[ "$mode" = slow ] && sleep 0.7
case $verb in
get)
  while [ $# -gt 0 ]; do
    case $1 in
    power)
      said=$(cat power)
      [ "$mode" = lying ] && [ -e ordered ] && said=0
      echo power:$said;;
    *) echo $1:0;;
    esac
    shift
  done;;
set)
  while [ $# -gt 1 ]; do
    if [ "$1" = power ]; then
      echo "$2" >> orders
      touch ordered
      [ "$mode" = lying ] || [ "$mode" = deaf ] || echo "$2" > power
    fi
    shift 2
  done;;
esac
"""


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class IpmiSim:
    """One BMC. ``mode``: "well", "slow", "lying" (says off, stays on), "deaf" (obeys nothing)."""

    def __init__(self, directory: Path, *, guid: str = GUID) -> None:
        self.directory = directory
        self.port = free_udp_port()
        self.guid = guid
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        chassis = self.directory / "chassis"
        chassis.write_text(CHASSIS.format(directory=self.directory))
        chassis.chmod(0o755)
        lan = LAN.format(
            port=self.port, guid=self.guid, chassis=chassis, user=USER, password=PASSWORD
        )
        (self.directory / "lan.conf").write_text(lan)
        (self.directory / "bmc.emu").write_text(EMULATION)
        self.power, self.mode = True, "well"
        self._process = await asyncio.create_subprocess_exec(
            "ipmi_sim", "-n", "-c", "lan.conf", "-f", "bmc.emu", "-s", "state",
            cwd=self.directory,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        async with asyncio.timeout(10.0):
            while not self._listens():
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def freeze(self) -> None:
        """Hang: packets are taken, nothing is answered."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def _listens(self) -> bool:
        # Bound by it, the port cannot be bound again.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                return True
        return False

    @property
    def power(self) -> bool:
        return (self.directory / "power").read_text().strip() == "1"

    @power.setter
    def power(self, on: bool) -> None:
        (self.directory / "power").write_text("1" if on else "0")

    @property
    def mode(self) -> str:
        return (self.directory / "mode").read_text()

    @mode.setter
    def mode(self, mode: str) -> None:
        (self.directory / "mode").write_text(mode)

    @property
    def orders(self) -> list[str]:
        """What was ordered: "0" off, "1" on."""
        path = self.directory / "orders"
        return path.read_text().split() if path.exists() else []
