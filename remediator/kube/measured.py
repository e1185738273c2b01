"""How fast the API server answers, measured on the requests for Leases that are sent anyway.

Nothing is asked for the measurement's sake: the leader writes its canary every second and renews
its election Lease every few, so there is always something to measure. Kubelets' renewals take the
same way. Other requests say less: a list is long, and the webhooks of somebody's custom resource
or admission may be slow, or down with the very host that is to be judged.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractAsyncContextManager

from remediator.clock import Clock
from remediator.kube.transport import LineStream, Query, Response, Transport, TransportError

LEASES = "/apis/coordination.k8s.io/"
# A list of thousands of Leases may rightly take this long and longer, and is given more time.
QUICK_S = 10.0


class RequestTimes:
    """The slowest answer since it was last asked for, or how long there has been none."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._open: dict[int, float] = {}  # request -> when it was sent
        self._slowest_s: float | None = None
        self._failing_since: float | None = None  # when the first that got no answer was sent

    def begun(self) -> int:
        """Note that a request was sent; hand the number to ``ended``."""
        number = next(self._numbers)
        self._open[number] = self._clock.now()
        return number

    def ended(self, number: int, *, answered: bool | None) -> None:
        """Note its end. ``answered`` None: it was given up by us, which says nothing."""
        began_at = self._open.pop(number)
        if answered is None:
            return
        if not answered:
            if self._failing_since is None:
                self._failing_since = began_at
            return
        self._failing_since = None
        self._slowest_s = max(self._slowest_s or 0.0, self._clock.now() - began_at)

    def take(self) -> float | None:
        """Return the slowest since the last call, in seconds; None where nothing was measured.

        A request that still waits counts for as long as it has waited. After one that got no
        answer, or an answer of trouble (5xx), the time since then counts until one is answered.
        """
        now = self._clock.now()
        found = [now - began_at for began_at in self._open.values()]
        if self._failing_since is not None:
            found.append(now - self._failing_since)
        if self._slowest_s is not None:
            found.append(self._slowest_s)
        self._slowest_s = None
        return max(found, default=None)


class MeasuredTransport:
    """A transport that tells ``times`` of each quick request for Leases that goes through it."""

    def __init__(self, inner: Transport, times: RequestTimes) -> None:
        self._inner = inner
        self._times = times

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
        """Send one request; see ``Transport.request``."""
        weighed = timeout_s <= QUICK_S and path.startswith(LEASES)
        number = self._times.begun() if weighed else None
        answered: bool | None = None
        try:
            response = await self._inner.request(
                method,
                path,
                query=query,
                body=body,
                content_type=content_type,
                timeout_s=timeout_s,
            )
            answered = response.status < 500
            return response
        except TransportError:
            answered = False
            raise
        finally:
            if number is not None:
                self._times.ended(number, answered=answered)

    def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AbstractAsyncContextManager[LineStream]:
        """Open a watch; see ``Transport.stream``. Not measured: progress is the watch's measure."""
        return self._inner.stream(path, query=query, connect_timeout_s=connect_timeout_s)

    async def close(self) -> None:
        """Close the transport behind it."""
        await self._inner.close()
