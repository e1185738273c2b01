"""Fresh state: what an action reads just before it acts and just after, straight from the API.

The watchers' picture may be seconds old, so no action looks at it. Reads and guarded writes are
repeated a few times when the API server is busy or briefly away; all of them are safe to repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from remediator.actions.world import World
from remediator.backoff import Backoff
from remediator.kube.client import PatchKind
from remediator.kube.errors import ApiError, ConflictError, NotFoundError, TooManyRequestsError
from remediator.kube.objects import NODE_LEASES, NODES, Lease, Node
from remediator.kube.transport import TransportError

T = TypeVar("T")

TRIES_MAX: Final = 4  # per request, on 429, 5xx and no answer
CONFLICTS_MAX: Final = 5  # per guarded write; a node is written every few seconds by others
REQUEST_TIMEOUT_S: Final = 3.0  # a healthy API server answers in milliseconds; actions have 10 s
_RETRY_BASE_S: Final = 0.1
_RETRY_CAP_S: Final = 2.0


async def persist(world: World, call: Callable[[], Awaitable[T]]) -> T:
    """Await ``call``, again after 429, 5xx or no answer, at most ``TRIES_MAX`` times in all.

    Only for calls that are safe to repeat. Raises the last ApiError or TransportError.
    """
    backoff = Backoff(base_s=_RETRY_BASE_S, cap_s=_RETRY_CAP_S, rng=world.rng)
    for _ in range(TRIES_MAX - 1):
        at_least_s = 0.0
        try:
            return await call()
        except TransportError:
            pass  # no answer: asked again
        except ApiError as error:
            if not isinstance(error, TooManyRequestsError) and error.status < 500:
                raise
            at_least_s = min(error.retry_after_s or 0.0, _RETRY_CAP_S)
        await asyncio.sleep(backoff.next_s(at_least_s=at_least_s))
    return await call()


async def write(world: World, call: Callable[[], Awaitable[T]]) -> T:
    """Await a write that is safe to repeat, as ``persist`` does, each time only while we lead.

    Raises SparedError, ApiError, TransportError.
    """

    async def send() -> T:
        world.must_lead()
        return await call()

    return await persist(world, send)


async def read(world: World, path: str, kind: type[T]) -> T | None:
    """GET one object; None where there is none. Raises ApiError, TransportError.

    A 404 without the API's own reason comes from a proxy or for an unknown path: it says nothing
    about the object, and is raised.
    """
    try:
        return await persist(
            world, lambda: world.client.get(path, kind, timeout_s=REQUEST_TIMEOUT_S)
        )
    except NotFoundError as error:
        if error.reason != "NotFound":
            raise
        return None


async def read_node(world: World, name: str) -> Node | None:
    """GET a node."""
    return await read(world, NODES.object_path(name), Node)


async def read_renew_time(world: World, node: str) -> str | None:
    """GET the renewTime of a node's Lease, as the node wrote it; None where there is none."""
    lease = await read(world, NODE_LEASES.object_path(node), Lease)
    return lease.spec.renew_time if lease is not None and lease.spec is not None else None


async def patch_node(world: World, node: Node, patch: Mapping[str, Any]) -> Node | None:
    """Merge ``patch`` into exactly this version of the node; None where it has changed since.

    Raises ApiError (NotFoundError where it is gone), TransportError.
    """
    # The API server answers 409 when this is not the stored object's version any more.
    guard = {"resourceVersion": node.resource_version}
    guarded = {**patch, "metadata": {**patch.get("metadata", {}), **guard}}
    try:
        return await write(
            world,
            lambda: world.client.patch(
                NODES.object_path(node.name),
                guarded,
                kind=PatchKind.MERGE,
                result=Node,
                timeout_s=REQUEST_TIMEOUT_S,
            ),
        )
    except ConflictError:
        return None
