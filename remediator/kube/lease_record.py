"""Read and write the one Lease that an election is about; every write is guarded by its version.

The document is kept whole (labels, annotations, owners of the Lease are not ours to erase), and
times are written in UTC whatever TZ says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import msgspec

from remediator.clock import Clock
from remediator.kube.client import KubeClient
from remediator.kube.errors import UnreadableAnswerError
from remediator.kube.metadata import format_micro_time
from remediator.kube.nodes import Lease
from remediator.kube.resources import LEASES
from remediator.kube.transport import TransportError

T = TypeVar("T")


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the Lease. ``document`` is all of it, as the server sent it."""

    holder: str
    duration_s: float
    acquire_time: str
    renew_time: str
    transitions: int
    document: dict[str, Any]

    @property
    def claim(self) -> tuple[str, str, str, int]:
        """What changes whenever a holder does anything."""
        return (self.holder, self.acquire_time, self.renew_time, self.transitions)


class LeaseRegister:
    """Reads and writes the Lease. Every call ends within ``timeout_s``.

    ``claimed_at`` is the acquireTime that we wrote, or tried to write, last: with our identity it
    recognises a claim of ours whose acknowledgement was lost.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration_s: float,
        timeout_s: float,
        clock: Clock,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = client
        self._collection = LEASES.collection(namespace)
        self._path = LEASES.object_path(name, namespace)
        self._metadata: dict[str, Any] = {"name": name, "namespace": namespace}
        if owner is not None:  # a new Lease goes with the object that it is about
            self._metadata["ownerReferences"] = [dict(owner)]
        self._identity = identity
        self._duration_s = duration_s
        self._timeout_s = timeout_s
        self._clock = clock
        self.claimed_at = ""

    async def read(self) -> LeaseRecord:
        """Return the Lease as it is. Raises NotFoundError, ApiError, TransportError."""
        answer = self._client.get(self._path, dict[str, Any], timeout_s=self._timeout_s)
        return self._record(await self._in_time(answer))

    async def claim(self, current: LeaseRecord | None) -> LeaseRecord:
        """Make it ours, with one more transition; None creates it.

        Raises ConflictError when somebody wrote first, ApiError, TransportError.
        """
        now = format_micro_time(self._clock.now())
        self.claimed_at = now
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": current.transitions + 1 if current is not None else 1,
        }
        if current is not None:
            return await self._put(current, spec)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": self._metadata,
            "spec": spec,
        }
        answer = self._client.create(
            self._collection, lease, dict[str, Any], timeout_s=self._timeout_s
        )
        return self._record(await self._in_time(answer))

    async def renew(self, current: LeaseRecord) -> LeaseRecord:
        """Say that we are here. Raises ConflictError, NotFoundError, ApiError, TransportError."""
        return await self._put(current, {"renewTime": format_micro_time(self._clock.now())})

    async def release(self, current: LeaseRecord) -> None:
        """Give it up, so that the next leader need not wait. Raises as ``renew``."""
        now = format_micro_time(self._clock.now())
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
        await self._put(current, spec)

    async def _put(self, current: LeaseRecord, spec: dict[str, Any]) -> LeaseRecord:
        document = {**current.document, "spec": {**(current.document.get("spec") or {}), **spec}}
        answer = self._client.replace(
            self._path, document, dict[str, Any], timeout_s=self._timeout_s
        )
        return self._record(await self._in_time(answer))

    async def _in_time(self, answer: Awaitable[T]) -> T:
        # The transport has the same timeout. An election must not depend on its keeping it.
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as error:
            raise TransportError(f"{self._path}: no answer in {self._timeout_s:g} s") from error

    def _record(self, document: dict[str, Any]) -> LeaseRecord:
        try:
            lease = msgspec.convert(document, Lease)
        except msgspec.ValidationError as error:
            message = f"{self._path}: not a Lease: {error}"
            raise UnreadableAnswerError(200, "Unreadable", message) from error
        if lease.spec is None or not lease.resource_version:
            # Without its version a write would be unguarded.
            message = f"{self._path}: a Lease without spec or resourceVersion"
            raise UnreadableAnswerError(200, "Unreadable", message)
        return LeaseRecord(
            holder=lease.holder,
            duration_s=lease.duration_s,
            acquire_time=lease.spec.acquire_time or "",
            renew_time=lease.spec.renew_time or "",
            transitions=lease.transitions,
            document=document,
        )
