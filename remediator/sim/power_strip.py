"""A power strip with an outlet for each host: two of them feed a host with two power supplies.

Each outlet answers as a Redfish system (``bmc.Bmc``), with all of its ways to misbehave, but has
no identity of its own: which host hangs on it is known only to whoever plugged it in.
"""

from __future__ import annotations

from collections.abc import Mapping

from remediator.http_client import HttpResponse
from remediator.sim.bmc import Bmc, BmcService, MemoryHttpClient, PoweredMachine


class Supplies:
    """The power supplies of one host: it is on while one of them is fed."""

    def __init__(self, host: PoweredMachine, feeds: int) -> None:
        self.host = host
        self.fed = [True] * feeds

    def change(self, feed: int, *, fed: bool, why: str) -> None:
        """Feed one supply, or not."""
        self.fed[feed] = fed
        if not any(self.fed):
            self.host.power_off(why)
        elif fed and not self.host.powered:
            self.host.power_on()


class Outlet:
    """One outlet of one strip: a ``bmc.PoweredMachine``."""

    system_uuid = ""
    serial = ""
    mains = True
    network = True

    def __init__(self, supplies: Supplies, feed: int) -> None:
        self._supplies = supplies
        self._feed = feed
        self.name = supplies.host.name

    @property
    def powered(self) -> bool:
        """Whether the outlet is on."""
        return self._supplies.fed[self._feed]

    def power_on(self, *, boot_s: float | None = None) -> None:
        """Switch the outlet on."""
        del boot_s
        self._supplies.change(self._feed, fed=True, why="")

    def power_off(self, why: str) -> None:
        """Switch the outlet off."""
        self._supplies.change(self._feed, fed=False, why=why)

    def press_power_button(self) -> None:
        """Do nothing: an outlet has no button."""


class PowerStrip:
    """All outlets of one strip. ``busiest``: the most requests that it ever served at once."""

    def __init__(self, supplies: Mapping[str, Supplies], feed: int, *, password: str) -> None:
        self.outlets = {
            name: Bmc(Outlet(each, feed), password=password) for name, each in supplies.items()
        }
        self._service = BmcService(self.outlets)
        self._busy = 0
        self.busiest = 0

    def client(self) -> StripClient:
        """Return a way to it without sockets."""
        return StripClient(self, self._service)

    def begin(self) -> None:
        """Count a request that begins."""
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)

    def end(self) -> None:
        """Count a request that has ended."""
        self._busy -= 1


class StripClient(MemoryHttpClient):
    """Requests to one strip, counted."""

    def __init__(self, strip: PowerStrip, service: BmcService) -> None:
        super().__init__(service)
        self._strip = strip

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpResponse:
        """Return the answer. Raises HttpError when there was none within ``timeout_s``."""
        self._strip.begin()
        try:
            return await super().request(
                method, url, headers=headers, body=body, timeout_s=timeout_s
            )
        finally:
            self._strip.end()
