"""How a probe reaches a host: the door that real sockets and the simulated cluster both are."""

from __future__ import annotations

from typing import Protocol


class Dial(Protocol):
    """Opens connections. Every method raises OSError (TimeoutError included) where it fails."""

    async def tcp(self, address: str, port: int, timeout_s: float) -> None:
        """Connect and close again.

        Raises ConnectionRefusedError where the host answers that nothing listens: it lives.
        """
        ...

    async def icmp(self, address: str, timeout_s: float) -> None:
        """Send one echo request and wait for its reply."""
        ...

    async def https(self, url: str, timeout_s: float) -> int:
        """Ask for ``url`` and return the status of the answer; certificates are not judged."""
        ...
