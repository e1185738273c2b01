"""The one door to a Kubernetes API server: bytes in, bytes out.

Two implementations speak it: ``kube.cluster`` (kubernetes-asyncio's configuration, authentication
and connections) and ``sim.memory_transport`` (the simulated API server without sockets, on virtual
time). Everything above (client, reflector, election, emulated hosts) runs on either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

Query = Sequence[tuple[str, str]]


_JSON = "application/json"
# Discovery in one document for all groups (Kubernetes 1.26 and newer), else by group: older servers
# do not know the first two and answer plain JSON.
_DISCOVERY = ",".join(
    (
        f"{_JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        f"{_JSON};g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        _JSON,
    )
)


def accepted(path: str) -> str:
    """Return the Accept header to send for a path."""
    return _DISCOVERY if path == "/apis" else _JSON


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A whole HTTP answer. Header names are in lower case. Any status: nothing is raised for it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class LineStream(Protocol):
    """An answer that is read line by line as it arrives."""

    status: int
    headers: Mapping[str, str]

    def lines(self) -> AsyncIterator[bytes]:
        """Yield each line without its newline; ends when the server ends the answer.

        A last line that the server did not finish is dropped.
        Raises TransportError when the connection breaks.
        """
        ...

    async def body(self) -> bytes:
        """Read the whole rest, for answers that are errors; at most 1 MiB."""
        ...


class TransportError(Exception):
    """No HTTP answer: refused, reset, timed out, TLS or name failure. The cause is chained."""


class Transport(Protocol):
    """Sends requests to one API server."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str | None = None,
        timeout_s: float,
    ) -> Response:
        """Send one request and read the whole answer within ``timeout_s``.

        Raises TransportError when there was no answer.
        """
        ...

    def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AbstractAsyncContextManager[LineStream]:
        """Open a GET whose answer is read line by line; headers within ``connect_timeout_s``.

        There is no limit on the whole: the reader sets its own limit on silence.
        Raises TransportError when there was no answer.
        """
        ...

    async def close(self) -> None:
        """Close connections. Further calls raise TransportError."""
        ...
