"""The Dial of a real prober: sockets of this machine."""

from __future__ import annotations

from remediator.probes.https import HttpsAsker
from remediator.probes.ping import Pinger
from remediator.probes.tcp import knock


class SocketDial:
    """See ``Dial``. Use it on one event loop, and ``close`` it there."""

    def __init__(self) -> None:
        self._pinger = Pinger()
        self._https = HttpsAsker()

    async def tcp(self, address: str, port: int, timeout_s: float) -> None:
        """Connect and close again."""
        await knock(address, port, timeout_s)

    async def icmp(self, address: str, timeout_s: float) -> None:
        """Send one echo request and wait for its reply."""
        await self._pinger.ping(address, timeout_s)

    async def https(self, url: str, timeout_s: float) -> int:
        """Return the status of the answer."""
        return await self._https.status(url, timeout_s)

    async def close(self) -> None:
        """Close every socket."""
        self._pinger.close()
        await self._https.close()
