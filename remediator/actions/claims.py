"""medik8s' node lease: only one remediator works on a node at a time.

The contract is medik8s/common's: Lease ``medik8s-leases/node-NAME``, owned by the Node, held by
``remediator-POLICY``. Another's valid lease keeps us off; an expired one is taken over. Where the
namespace does not exist, no medik8s operator is installed, and there is nobody to agree with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from remediator.actions.world import SparedError, World
from remediator.clock import Clock
from remediator.engine.incidents import Incident
from remediator.engine.model import IncidentState, NodeLeaseFacts
from remediator.engine.safeguards import CLAIM_PREFIX
from remediator.kube.client import KubeClient
from remediator.kube.errors import ApiError, ConflictError, ForbiddenError, NotFoundError
from remediator.kube.lease_record import LeaseRecord, LeaseRegister
from remediator.kube.metadata import parse_time
from remediator.kube.objects import MEDIK8S_LEASES, Node
from remediator.kube.transport import TransportError

log = structlog.get_logger(__name__)

# Renewed four times in this; after a crash of all replicas others wait no longer than this.
DURATION_S: Final = 120.0
KEEP_EVERY_S: Final = 30.0
_TIMEOUT_S: Final = 3.0
_TRIES: Final = 3
_SKEW_S: Final = 30.0  # clocks of one cluster agree better than this, or somebody should know

# While these last, the node is ours: afterwards only its return is waited for.
_WORKING: Final = frozenset(
    {
        IncidentState.FENCING,
        IncidentState.FENCED,
        IncidentState.RECOVERING,
        IncidentState.EVACUATING,
    }
)


async def take_claim(world: World, node: Node, policy: str) -> str:
    """Claim the node, or renew our claim; return what to add to the outcome, if anything.

    Raises SparedError where somebody else holds it, ApiError, TransportError.
    """
    holder = f"{CLAIM_PREFIX}{policy or 'daemon'}"
    register = _register(world.client, world.clock, node.name, holder, node)
    for _ in range(_TRIES):
        world.must_lead()
        try:
            current = await register.read()
        except NotFoundError:
            current = None
        except ForbiddenError as error:
            return _without(node.name, error)
        if current is not None and _anothers(current, world.clock.now()):
            raise SparedError(f"{current.holder} holds the medik8s lease of the node")
        try:
            if current is not None and current.holder == holder:
                await register.renew(current)
            else:
                await register.claim(current)
        except ConflictError:
            continue  # somebody wrote in between: look again
        except (NotFoundError, ForbiddenError) as error:  # no such namespace, or no such right
            return _without(node.name, error)
        return ""
    raise SparedError("its medik8s lease changed under each of our tries")


def wanted_claims(incidents: Iterable[Incident]) -> dict[str, str]:
    """Return the nodes that are being worked on now, and the policy of each."""
    return {
        incident.subject.name: incident.plan.policy
        for incident in incidents
        if incident.subject.kind == "node" and incident.state in _WORKING and incident.plan
    }


class ClaimKeeper:
    """Renews the claims of nodes that are worked on, gives back all others of ours.

    It looks at what is there, so claims that a crash left behind are found, too.
    """

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        *,
        wanted: Callable[[], Mapping[str, str]],
        held: Callable[[], Iterable[NodeLeaseFacts]],
        leads: Callable[[], bool],
    ) -> None:
        self._client = client
        self._clock = clock
        self._wanted = wanted
        self._held = held
        self._leads = leads

    async def run(self) -> None:
        """Keep them until cancelled."""
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await self.keep()

    async def keep(self) -> None:
        """Renew or give back each claim of ours once."""
        for lease in list(self._held()):
            if not lease.holder.startswith(CLAIM_PREFIX) or not self._leads():
                continue
            try:
                await self._keep(lease, self._wanted())
            except (NotFoundError, ConflictError):
                continue  # gone, or written by somebody else: the next round sees
            except (ApiError, TransportError) as error:
                log.warning("node_claim_not_kept", node=lease.node, error=str(error))

    async def _keep(self, lease: NodeLeaseFacts, wanted: Mapping[str, str]) -> None:
        register = _register(self._client, self._clock, lease.node, lease.holder, None)
        current = await register.read()
        if not current.holder.startswith(CLAIM_PREFIX):
            return
        if lease.node in wanted:
            await register.renew(current)
            return
        metadata = current.document["metadata"]
        await self._client.delete(
            MEDIK8S_LEASES.object_path(f"node-{lease.node}"),
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            timeout_s=_TIMEOUT_S,
        )
        log.info("node_claim_given_back", node=lease.node)


def _register(
    client: KubeClient, clock: Clock, node: str, holder: str, owner: Node | None
) -> LeaseRegister:
    reference = None
    if owner is not None:
        reference = {"apiVersion": "v1", "kind": "Node", "name": owner.name, "uid": owner.uid}
    return LeaseRegister(
        client,
        namespace=MEDIK8S_LEASES.namespace,
        name=f"node-{node}",
        identity=holder,
        duration_s=DURATION_S,
        timeout_s=_TIMEOUT_S,
        clock=clock,
        owner=reference,
    )


def _anothers(lease: LeaseRecord, now: float) -> bool:
    """Whether another holds it, by medik8s' rule: renewed not in the future, and not run out.

    A holder whose clock is a little ahead of ours holds it all the same.
    """
    if not lease.holder or lease.holder.startswith(CLAIM_PREFIX):
        return False
    renewed_at = parse_time(lease.renew_time)
    return renewed_at is not None and renewed_at - _SKEW_S <= now < renewed_at + lease.duration_s


def _without(node: str, error: ApiError) -> str:
    log.info("node_not_claimed", node=node, why=str(error))
    return ""
