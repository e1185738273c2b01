"""A Lease of our own among the nodes' leases: proof, end to end, that silence counts.

It is written every second. When it comes back on the lease watch, then the API server took a write,
etcd stored it, and the watch delivered it: so every renewal that a kubelet made before that write
has been delivered as well. Silence counts up to the moment of the write, not to that of the echo.
While the API server refuses or delays writes, kubelets cannot renew either, no canary comes back,
and nobody's silence counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Final

import structlog

from remediator.clock import Clock
from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.errors import ApiError, ConflictError, ForbiddenError, NotFoundError
from remediator.kube.objects import NODE_LEASES, format_micro_time
from remediator.kube.transport import TransportError

log = structlog.get_logger(__name__)

PREFIX: Final = "remediator-canary-"
PERIOD_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 2.0
REFUSED_RETRY_S: Final = 60.0  # how often a refused canary is tried again: RBAC may be mended
STALE_S: Final = 600.0  # a canary that stood still so long belongs to a daemon that is gone
_PENDING_MAX: Final = 32  # writes whose echo is awaited: half a minute of lag
_NAME_LIMIT: Final = 200


def is_canary(name: str) -> bool:
    """Tell whether a lease is a canary, ours or another replica's: never a node's."""
    return name.startswith(PREFIX)


class ProgressCanary:
    """Writes the canary while ``active`` and knows when each write was begun.

    ``refused`` is True once RBAC forbade it: then events and bookmarks must do.
    """

    def __init__(
        self, client: KubeClient, clock: Clock, identity: str, *, period_s: float = PERIOD_S
    ) -> None:
        self.name = PREFIX + re.sub(r"[^a-z0-9-]+", "-", identity.lower()).strip("-")[:_NAME_LIMIT]
        self.refused = False
        self._client = client
        self._clock = clock
        self._identity = identity
        self._period_s = period_s
        self._active = asyncio.Event()
        self._inactive = asyncio.Event()
        self._pending: dict[str, float] = {}  # renewTime -> when its write was begun
        self._others: dict[str, tuple[str, float]] = {}  # other replicas' canaries
        self._exists = False
        self._failing = False

    def activate(self) -> None:
        """Begin to write."""
        self._inactive.clear()
        self._active.set()

    def deactivate(self) -> None:
        """Write no more; ``run`` deletes the lease."""
        self._active.clear()
        self._inactive.set()
        self._pending.clear()

    def seen(self, name: str, renew_time: str) -> float | None:
        """Take in a canary from the watch; return when ours was written, None for any other."""
        if name != self.name:
            known = self._others.get(name)
            if known is None or known[0] != renew_time:
                self._others[name] = (renew_time, self._clock.now())
            return None
        written_at = self._pending.get(renew_time)
        if written_at is None:
            return None
        # Earlier writes that were merged into this one get no echo of their own.
        self._pending = {key: at for key, at in self._pending.items() if at > written_at}
        return written_at

    def gone(self, name: str) -> None:
        """Take in that a canary was deleted."""
        self._others.pop(name, None)
        if name == self.name:
            self._exists = False

    async def run(self) -> None:
        """Write while active, until cancelled; delete the lease at the end of each active time."""
        try:
            while True:
                await self._active.wait()
                while self._active.is_set():
                    began_at = self._clock.now()
                    await self._write()
                    await self._sweep()
                    period_s = REFUSED_RETRY_S if self.refused else self._period_s
                    await self._rest(began_at + period_s - self._clock.now())
                await self._delete(self.name)
        finally:
            await self._delete(self.name)

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than we are active."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._inactive.wait()

    async def _write(self) -> None:
        written_at = self._clock.now()
        renew_time = format_micro_time(written_at)
        self._pending[renew_time] = written_at
        while len(self._pending) > _PENDING_MAX:
            del self._pending[next(iter(self._pending))]
        try:
            await self._put(renew_time)
        except ForbiddenError as error:
            if not self.refused:
                log.warning("canary_refused", lease=self.name, error=error.message)
            self.refused = True
        except (ApiError, TransportError) as error:
            # The echo is what counts: a write without an answer may still come back.
            if not self._failing:
                log.warning("canary_failing", lease=self.name, error=str(error))
            self._failing = True
        else:
            if self.refused or self._failing:
                log.info("canary_writes_again", lease=self.name)
            self.refused = self._failing = False

    async def _put(self, renew_time: str) -> None:
        spec = {"holderIdentity": self._identity, "renewTime": renew_time}
        path = NODE_LEASES.object_path(self.name)
        try:
            await self._client.patch(
                path, {"spec": spec}, kind=PatchKind.MERGE, timeout_s=REQUEST_TIMEOUT_S
            )
        except NotFoundError:
            await self._client.create(
                NODE_LEASES.path,
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {
                        "name": self.name,
                        "namespace": NODE_LEASES.namespace,
                        "labels": {"app.kubernetes.io/managed-by": "remediator"},
                    },
                    "spec": {**spec, "leaseDurationSeconds": int(STALE_S)},
                },
                timeout_s=REQUEST_TIMEOUT_S,
            )
        self._exists = True

    async def _sweep(self) -> None:
        """Delete one canary of a daemon that is gone, if there is one."""
        now = self._clock.now()
        for name, (_, changed_at) in self._others.items():
            if now - changed_at > STALE_S and not self.refused:
                self._others.pop(name)
                await self._delete(name, known=True)
                return

    async def _delete(self, name: str, *, known: bool = False) -> None:
        if not (known or self._exists):
            return
        if name == self.name:
            self._exists = False
        try:
            await self._client.delete(NODE_LEASES.object_path(name), timeout_s=REQUEST_TIMEOUT_S)
        except (NotFoundError, ConflictError):
            return  # gone already
        except (ApiError, TransportError) as error:
            log.info("canary_left_behind", lease=name, error=str(error))
