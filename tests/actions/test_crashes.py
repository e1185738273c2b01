"""Killed at any request, before or after it took effect, and repeated by the next leader.

The actions run against the simulated API server and a simulated BMC, as the daemon's do.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.runner import ActionRunner
from remediator.clock import Clock
from remediator.engine.model import (
    Action,
    Cordon,
    Fence,
    ForceStop,
    Outcome,
    OutcomeStatus,
    Proof,
    ProofKind,
    Release,
    Uncordon,
    node_subject,
)
from remediator.fence_config.shorthand import from_device
from remediator.kube.client import KubeClient
from remediator.sim.apiserver import ApiServer
from remediator.sim.bmc import Bmc, BmcService, MemoryHttpClient
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import LEASES, NODES, PODS, VOLUME_ATTACHMENTS, Registry
from remediator.sim.store import Store

EPOCH = 1_800_000_000.0
UUID = "4c4c4544-0051-3510-8052-b4c04f4d3132"
MARKED = {
    "remediator.io/cordoned": "true",
    "remediator.io/out-of-service": "boot-1",
    "remediator.io/lease-at-release": "2026-11-20T08:00:00.000000Z",
}
OURS = {"key": "remediator.io/fenced", "effect": "NoSchedule"}
OUT = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}


class Machine:
    name, system_uuid, serial = "n1", UUID, "S1"
    mains = network = powered = True
    cuts = 0

    def power_on(self, *, boot_s=None):
        del boot_s
        self.powered = True

    def power_off(self, why):
        del why
        self.cuts += self.powered
        self.powered = False

    def press_power_button(self):
        raise AssertionError("nobody presses a dead node's button")


class Door:
    """Passes requests on until the one at which the daemon dies."""

    def __init__(self, inner: Any, world: World) -> None:
        self._inner = inner
        self._world = world

    async def request(self, method, where, **options):
        self._world.requests += 1
        dies = self._world.requests == self._world.die_at
        if dies and not self._world.after_effect:
            await self._world.die()
        answer = await self._inner.request(method, where, **options)
        if dies:
            await self._world.die()
        return answer

    async def close(self):
        await self._inner.close()


class World:
    def __init__(self, device) -> None:
        self.clock = Clock(epoch_at_start=EPOCH)
        self.store = Store(now=self.clock.now, rng=random.Random(1))
        self.server = ApiServer(self.store, Registry())
        self.machine = Machine()
        self.bmc = Bmc(self.machine)
        self.device = device
        self.requests = 0
        self.die_at = 0
        self.after_effect = False
        self.dead = asyncio.Event()
        renewed = {"renewTime": MARKED["remediator.io/lease-at-release"]}
        self.node_uid = self.store.create(
            NODES,
            {
                "metadata": {"name": "n1"},
                "spec": {},
                "status": {
                    "nodeInfo": {"bootID": "boot-1", "systemUUID": UUID},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )["metadata"]["uid"]
        where = {"name": "n1", "namespace": "kube-node-lease"}
        self.store.create(LEASES, {"metadata": where, "spec": renewed})
        self.pod_uid = self.store.create(
            PODS,
            {
                "metadata": {
                    "name": "virt-launcher-db-x",
                    "namespace": "default",
                    "labels": {"kubevirt.io": "virt-launcher"},
                },
                "spec": {"nodeName": "n1", "containers": [{"name": "compute", "image": "x"}]},
                "status": {"phase": "Running"},
            },
        )["metadata"]["uid"]

    @property
    def node(self):
        return self.store.get(NODES, "", "n1")

    @property
    def pods(self):
        return [pod["metadata"]["name"] for pod in self.store.list(PODS)]

    async def die(self):
        self.dead.set()
        await asyncio.sleep(1000)

    def mark(self) -> None:
        def change(node):
            node["spec"].update(taints=[OURS, OUT], unschedulable=True)
            node["metadata"]["annotations"] = dict(MARKED)

        self.store.mutate(NODES, "", "n1", change)

    def come_back(self) -> None:
        def change(node):
            node["status"]["nodeInfo"]["bootID"] = "boot-2"

        self.store.mutate(NODES, "", "n1", change, subresource="status")
        self.store.delete(PODS, "default", "virt-launcher-db-x", grace_s=0)

    async def run(self, work) -> Outcome | None:
        """Run an action in a new process; None where that process died."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        http = Door(MemoryHttpClient(BmcService({"n1": self.bmc})), self)
        # A new process has found the lease and never saw it change.
        renew_time = MARKED["remediator.io/lease-at-release"]
        runner = ActionRunner(
            KubeClient(Door(MemoryTransport(self.server, client_name="d"), self)),
            FenceDevices(
                [from_device(self.device)],
                self.clock,
                DriverFactory(self.clock, http=lambda _: http),
            ),
            self.clock,
            last_beat={"n1": (renew_time, 0.0)}.get,
            rng=random.Random(1),
            on_finished=outcome.set_result,
        )
        self.requests = 0
        self.dead.clear()
        runner.start(self.action(work))
        dead = asyncio.create_task(self.dead.wait())
        await asyncio.wait({dead, outcome}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        await runner.stop()
        return outcome.result() if outcome.done() else None

    def action(self, work):
        return Action(
            id="inc-1/x/1",
            incident="inc-1",
            subject=node_subject("n1"),
            attempt=1,
            deadline_s=30.0,
            work=work,
        )

    def proof(self) -> Proof:
        kind = ProofKind.POWER_OFF_VERIFIED
        return Proof(kind=kind, node="n1", boot_id="boot-1", at=EPOCH - 1, source="bmc")


def prepare(world: World, name: str):
    """Return the work, and what must be true of the world at its end."""
    node = {"node": "n1", "node_uid": world.node_uid}
    match name:
        case "cordon":
            return (
                Cordon(**node),
                lambda: (
                    world.node["spec"]["taints"] == [OURS]
                    and world.node["spec"]["unschedulable"]
                    and world.node["metadata"]["annotations"] == {"remediator.io/cordoned": "true"}
                ),
            )
        case "fence":
            return Fence(
                **node, boot_id="boot-1", method="lab"
            ), lambda: not world.machine.powered and world.machine.cuts == 1
        case "release":
            return (
                Release(**node, proof=world.proof()),
                lambda: (
                    world.node["spec"]["taints"] == [OUT]
                    and world.node["metadata"]["annotations"]["remediator.io/out-of-service"]
                    == "boot-1"
                ),
            )
        case "force-stop":
            world.mark()
            pod = {"namespace": "default", "vmi": "db", "pod": "virt-launcher-db-x"}
            work = ForceStop(**node, **pod, pod_uid=world.pod_uid, proof=world.proof())
            return work, lambda: world.pods == []
        case _:
            world.mark()
            world.come_back()
            return (
                Uncordon(**node, fenced_boot_id="boot-1"),
                lambda: (
                    not world.node["spec"].get("taints")
                    and not world.node["spec"].get("unschedulable")
                    and not world.node["metadata"].get("annotations")
                ),
            )


WORKS = ["cordon", "fence", "release", "force-stop", "uncordon"]


@pytest.fixture
def bmc_device(device, password_file):
    password_file.write_text("sim")
    return msgspec.structs.replace(device, endpoint="https://bmc.example")


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
async def test_a_daemon_killed_at_any_request_leaves_what_the_next_one_completes(
    bmc_device, name, after_effect
):
    undisturbed = World(bmc_device)
    work, done = prepare(undisturbed, name)
    outcome = await undisturbed.run(work)
    assert outcome is not None
    assert (outcome.status, outcome.changed) == (OutcomeStatus.SUCCEEDED, True), outcome.detail
    assert done()
    total = undisturbed.requests
    assert total >= 2

    for die_at in range(1, total + 1):
        world = World(bmc_device)
        work, done = prepare(world, name)
        world.die_at, world.after_effect = die_at, after_effect
        assert await world.run(work) is None
        world.die_at = 0
        outcome = await world.run(work)
        assert outcome is not None
        assert outcome.status is OutcomeStatus.SUCCEEDED, (die_at, outcome.detail)
        assert done(), die_at


@pytest.mark.parametrize("name", WORKS)
async def test_a_repeat_of_what_is_done_writes_nothing(bmc_device, name):
    world = World(bmc_device)
    work, done = prepare(world, name)
    await world.run(work)
    version = world.store.resource_version
    outcome = await world.run(work)
    assert outcome is not None
    assert (outcome.status, outcome.changed) == (OutcomeStatus.SUCCEEDED, False)
    assert world.store.resource_version == version
    assert done()


async def test_a_volume_that_is_being_detached_holds_the_marks(bmc_device):
    world = World(bmc_device)
    work, done = prepare(world, "uncordon")
    world.store.create(
        VOLUME_ATTACHMENTS,
        {
            "metadata": {"name": "va1", "finalizers": ["external-attacher/csi-sim"]},
            "spec": {
                "attacher": "csi.sim",
                "nodeName": "n1",
                "source": {"persistentVolumeName": "pv1"},
            },
        },
    )
    world.store.delete(VOLUME_ATTACHMENTS, "", "va1")
    outcome = await world.run(work)
    assert outcome is not None
    assert outcome.status is OutcomeStatus.FAILED
    assert "detached: va1" in outcome.detail
    assert not done()
