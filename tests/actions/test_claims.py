"""medik8s' node lease: whose node it is, while somebody works on it."""

from __future__ import annotations

import asyncio
import random

import pytest

from remediator.actions.claims import DURATION_S, ClaimKeeper
from remediator.engine.model import NodeLeaseFacts, OutcomeStatus
from remediator.kube.client import KubeClient
from remediator.kube.metadata import format_micro_time
from remediator.sim.apiserver import ApiServer
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import LEASES, NAMESPACES, NODES, Registry
from remediator.sim.store import Store

CLAIM = ("medik8s-leases", "node-n1")


@pytest.fixture
def store(hands):
    """The real rules of an API server behind the hands."""
    store = Store(now=hands.clock.now, rng=random.Random(1))
    transport = MemoryTransport(ApiServer(store, Registry()), client_name="daemon")
    hands.runner._client = KubeClient(transport)
    store.create(NAMESPACES, {"metadata": {"name": "medik8s-leases"}})
    return store


@pytest.fixture
def cordon(store, make):
    uid = store.create(NODES, {**make.node_object(), "metadata": {"name": "n1"}})["metadata"]["uid"]
    return type(make.cordon)(node="n1", node_uid=uid, policy="node-lost")


def lease(store):
    return store.find(LEASES, *CLAIM)


def held_by(store, clock, holder: str, *, ago_s: float = 10.0, duration_s: int = 660) -> None:
    at = format_micro_time(clock.now() - ago_s)
    spec = {
        "holderIdentity": holder, "leaseDurationSeconds": duration_s, "acquireTime": at,
        "renewTime": at, "leaseTransitions": 3,
    }  # fmt: skip
    metadata = {"namespace": CLAIM[0], "name": CLAIM[1]}
    store.create(LEASES, {"metadata": metadata, "spec": spec})


async def test_a_node_is_claimed_before_it_is_touched(hands, store, cordon):
    outcome = await hands.do(cordon)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    claim = lease(store)
    assert claim["spec"]["holderIdentity"] == "remediator-node-lost"
    assert claim["spec"]["leaseDurationSeconds"] == DURATION_S
    (owner,) = claim["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Node", cordon.node_uid)


@pytest.mark.parametrize("ahead_s", [0.0, 5.0])
async def test_anothers_valid_lease_keeps_us_off(hands, store, cordon, ahead_s):
    held_by(store, hands.clock, "node-maintenance", ago_s=-ahead_s)
    outcome = await hands.do(cordon)
    assert outcome.status is OutcomeStatus.SPARED
    assert "node-maintenance" in outcome.detail
    assert "taints" not in store.get(NODES, "", "n1")["spec"]
    assert lease(store)["spec"]["holderIdentity"] == "node-maintenance"


@pytest.mark.parametrize(
    ("ago_s", "why"), [(700.0, "it has run out"), (-60.0, "its renewal lies in the future")]
)
async def test_a_lease_that_is_not_valid_is_taken_over(hands, store, cordon, ago_s, why):
    held_by(store, hands.clock, "NodeHealthCheck-x", ago_s=ago_s)
    assert (await hands.do(cordon)).status is OutcomeStatus.SUCCEEDED, why
    spec = lease(store)["spec"]
    assert spec["holderIdentity"] == "remediator-node-lost"
    assert spec["leaseTransitions"] == 4


async def test_a_second_action_renews_the_claim(hands, store, cordon):
    await hands.do(cordon)
    first = lease(store)["spec"]
    await asyncio.sleep(5.0)
    await hands.do(cordon)
    second = lease(store)["spec"]
    assert second["renewTime"] > first["renewTime"]
    assert second["acquireTime"] == first["acquireTime"]


async def test_without_medik8s_there_is_nobody_to_agree_with(hands, store, cordon):
    store.delete(NAMESPACES, "", "medik8s-leases")
    assert (await hands.do(cordon)).status is OutcomeStatus.SUCCEEDED
    assert lease(store) is None


def keeper(hands, wanted: dict[str, str], *, leads: bool = True) -> ClaimKeeper:
    facts = NodeLeaseFacts(name="node-n1", uid="x", node="n1", holder="remediator-node-lost")
    return ClaimKeeper(
        hands.runner._client,
        hands.clock,
        wanted=lambda: wanted,
        held=lambda: [facts],
        leads=lambda: leads,
    )


async def test_a_claim_is_renewed_while_the_node_is_worked_on_and_then_given_back(
    hands, store, cordon
):
    await hands.do(cordon)
    before = lease(store)["spec"]["renewTime"]
    await asyncio.sleep(30.0)
    await keeper(hands, {"n1": "node-lost"}).keep()
    assert lease(store)["spec"]["renewTime"] > before
    await keeper(hands, {}).keep()
    assert lease(store) is None


async def test_who_does_not_lead_keeps_and_gives_back_nothing(hands, store, cordon):
    await hands.do(cordon)
    await keeper(hands, {}, leads=False).keep()
    assert lease(store) is not None


async def test_a_claim_that_somebody_took_over_is_left(hands, store, cordon):
    await hands.do(cordon)

    def take(claim) -> None:
        claim["spec"]["holderIdentity"] = "node-maintenance"

    store.mutate(LEASES, *CLAIM, take)
    await keeper(hands, {}).keep()
    assert lease(store)["spec"]["holderIdentity"] == "node-maintenance"
