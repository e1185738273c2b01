"""Killed at any request of any method, before or after it took effect; the next process goes on.

Both parts are held: the fence is completed or safely repeated, and, once the node is healthy, the
clean-up leaves nothing of ours. The programs on the other side are ``sim.fence_operators``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster_lab import EPOCH, NAMESPACE

from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.runner import ActionRunner
from remediator.clock import Clock
from remediator.engine.model import (
    Action,
    Cordon,
    Fence,
    Outcome,
    OutcomeStatus,
    PowerOn,
    Uncordon,
    node_subject,
)
from remediator.fence_config.document import (
    AnyDevice,
    Credentials,
    Level,
    MachineFence,
    Medik8sFence,
    Metal3Fence,
    NetworkFence,
    NodeSelector,
    RedfishFence,
    Spec,
    TemplateRef,
)
from remediator.fence_config.loader import FenceConfig
from remediator.kube.client import KubeClient
from remediator.sim import fence_kinds as kinds
from remediator.sim.apiserver import ApiServer
from remediator.sim.bmc import Bmc, BmcMode, BmcService, MemoryHttpClient
from remediator.sim.fence_operators import FenceOperators, OperatorMode
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import LEASES, NAMESPACES, NODES, Registry
from remediator.sim.store import Store

UUID = "4c4c4544-0051-3510-8052-b4c04f4d3132"
RENEWED = "2026-11-20T08:00:00.000000Z"
REF = TemplateRef(
    api_version=kinds.SNR_TEMPLATE.api_version,
    kind=kinds.SNR_TEMPLATE.kind,
    name="automatic",
    namespace=NAMESPACE,
)


class Machine:
    """The host: what is done to it is counted."""

    name, system_uuid, serial = "n1", UUID, "S1"
    mains = network = True

    def __init__(self) -> None:
        self.powered = True
        self.storage_fenced = False
        self.cuts = self.boots = 0

    def power_on(self, *, boot_s=None) -> None:
        del boot_s
        self.boots += not self.powered
        self.powered = True

    def power_off(self, why: str) -> None:
        del why
        self.cuts += self.powered
        self.powered = False

    def press_power_button(self) -> None:
        raise AssertionError("nobody presses a dead node's button")

    def fence_storage(self) -> None:
        self.storage_fenced = True

    def unfence_storage(self) -> None:
        self.storage_fenced = False


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

    async def close(self) -> None:
        await self._inner.close()


class World:
    """One node, one configuration, and processes that come and go."""

    def __init__(
        self,
        password: str,
        devices: list[AnyDevice],
        *levels: tuple[str, ...],
        takes_s: float = 4.0,
    ) -> None:
        self.clock = Clock(epoch_at_start=EPOCH)
        self.store = Store(now=self.clock.now, rng=random.Random(1))
        self.server = ApiServer(self.store, Registry())
        kinds.install(self.server)
        self.machine = Machine()
        self.bmc = Bmc(self.machine, password=password)
        self.operators = FenceOperators(
            self.store, {"n1": self.machine}, self.clock.now, takes_s=takes_s
        )
        self._operating = asyncio.create_task(self.operators.run())
        chosen = levels or (tuple(device.name for device in devices),)
        self.config = FenceConfig(
            name="lab",
            source="test",
            content_hash="",
            spec=Spec(
                nodes=NodeSelector(names=("*",)),
                devices=tuple(devices),
                levels=tuple(Level(devices=names) for names in chosen),
            ),
        )
        self.requests = self.die_at = 0
        self.after_effect = False
        self.dead = asyncio.Event()
        self.last_beat: tuple[str, float] = (RENEWED, 0.0)
        self._fill()

    def _fill(self) -> None:
        for name in (NAMESPACE, "medik8s-leases", "kube-node-lease"):
            with contextlib.suppress(Exception):  # the server has some of its own
                self.store.create(
                    NAMESPACES,
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
                )
        annotations = {"machine.openshift.io/machine": f"{NAMESPACE}/n1-machine"}
        status = {
            "nodeInfo": {"bootID": "boot-1", "systemUUID": UUID},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        }
        metadata = {"name": "n1", "annotations": annotations}
        self.node_uid = self.store.create(
            NODES, {"metadata": metadata, "spec": {}, "status": status}
        )["metadata"]["uid"]
        where = {"name": "n1", "namespace": "kube-node-lease"}
        self.store.create(LEASES, {"metadata": where, "spec": {"renewTime": RENEWED}})
        self._create(
            kinds.SNR_TEMPLATE,
            "automatic",
            spec={"template": {"spec": {"remediationStrategy": "Automatic"}}},
        )
        self._create(
            kinds.METAL3_HOST,
            "n1",
            spec={"online": True},
            status={"poweredOn": True, "provisioning": {"state": "provisioned"}},
        )
        owner = {"kind": "MachineSet", "name": "set", "uid": "set-uid", "controller": True}
        self._create(
            kinds.OPENSHIFT_MACHINE,
            "n1-machine",
            metadata={"ownerReferences": [{**owner, "apiVersion": "machine.openshift.io/v1beta1"}]},
            spec={},
            status={"nodeRef": {"kind": "Node", "name": "n1"}},
        )

    def _create(self, kind, name, *, spec, metadata=None, status=None) -> None:
        tree = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, "namespace": NAMESPACE, **(metadata or {})},
            "spec": spec,
        }
        self.store.create(kind, tree)
        if status is not None:
            self.store.mutate(
                kind, NAMESPACE, name, lambda each: each.update(status=status), subresource="status"
            )

    async def close(self) -> None:
        self._operating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._operating

    async def die(self) -> None:
        self.dead.set()
        await asyncio.sleep(100_000)

    def come_back(self) -> None:
        """The node is healthy: in another boot, Ready."""
        self.machine.powered = True

        def change(node):
            node["status"]["nodeInfo"]["bootID"] = "boot-2"

        self.store.mutate(NODES, "", "n1", change, subresource="status")

    async def run(self, work, deadline_s: float = 150.0) -> Outcome | None:
        """Run an action in a new process; None where that process died."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        http = Door(MemoryHttpClient(BmcService({"n1": self.bmc})), self)
        client = KubeClient(Door(MemoryTransport(self.server, client_name="d"), self))
        factory = DriverFactory(self.clock, client=client, http=lambda _: http)
        runner = ActionRunner(
            client,
            FenceDevices([self.config], self.clock, factory),
            self.clock,
            last_beat=lambda _node: self.last_beat,
            rng=random.Random(1),
            on_finished=outcome.set_result,
        )
        self.requests = 0
        self.dead.clear()
        action = Action(
            id="inc-1/fence/1",
            incident="inc-1",
            subject=node_subject("n1"),
            attempt=1,
            deadline_s=deadline_s,
            work=work,
        )
        runner.start(action)
        dead = asyncio.create_task(self.dead.wait())
        await asyncio.wait({dead, outcome}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        await runner.stop()
        return outcome.result() if outcome.done() else None

    def fence(self, level: int = 0) -> Fence:
        return Fence(
            node="n1",
            node_uid=self.node_uid,
            boot_id="boot-1",
            method="lab",
            level=level,
            policy="p",
        )

    def uncordon(self) -> Uncordon:
        return Uncordon(
            node="n1", node_uid=self.node_uid, fenced_boot_id="boot-1", fence_method="lab"
        )

    def left_behind(self) -> list[str]:
        """What of ours is in the cluster, the node lease aside: the leader's keeper returns it."""
        found = [
            f"{kind.kind} {tree['metadata']['name']}"
            for kind in (kinds.SNR, kinds.NETWORK_FENCE)
            for tree in self.store.list(kind)
        ]
        for tree in self.store.list(kinds.METAL3_HOST):
            found += [f"annotation {key}" for key in tree["metadata"].get("annotations") or ()]
        node = self.store.get(NODES, "", "n1")
        found += [taint["key"] for taint in node["spec"].get("taints") or ()]
        found += [key for key in node["metadata"]["annotations"] if "remediator" in key]
        found += ["unschedulable"] * bool(node["spec"].get("unschedulable"))
        found += ["fenced at the storage"] * self.machine.storage_fenced
        return found


def redfish(password_file: str, **changes: Any) -> RedfishFence:
    known = {"name": "bmc", "endpoint": "https://bmc.example", "system": "/redfish/v1/Systems/n1"}
    return RedfishFence(
        **{**known, **changes},
        credentials=Credentials(username="admin", password_file=password_file),
    )


@pytest.fixture
def devices(tmp_path) -> dict[str, tuple[list[AnyDevice], tuple[tuple[str, ...], ...]]]:
    """Each method alone, two at once on one level, and two levels of which the first fails."""
    path = tmp_path / "password"
    path.write_text("sim")
    bmc = redfish(str(path))
    storage = NetworkFence(name="net", class_name="ceph")
    return {
        "redfish": ([bmc], ()),
        "medik8s": ([Medik8sFence(name="snr", template=REF)], ()),
        "metal3": ([Metal3Fence(name="bmh", namespace=NAMESPACE, host="{node}")], ()),
        "machine": ([MachineFence(name="machine")], ()),
        "networkFence": ([storage], ()),
        "redfish and networkFence": ([bmc, storage], ()),
        "second level": ([redfish(str(path), system="/nowhere"), storage], (("bmc",), ("net",))),
    }


METHODS = [
    "redfish",
    "medik8s",
    "metal3",
    "machine",
    "networkFence",
    "redfish and networkFence",
    "second level",
]
POWER = {"redfish", "metal3", "machine", "redfish and networkFence"}


@contextlib.asynccontextmanager
async def opened(chosen, **how) -> AsyncIterator[World]:
    devices, levels = chosen
    world = World("sim", devices, *levels, **how)
    try:
        yield world
    finally:
        await world.close()


async def fenced(world: World, method: str) -> Outcome | None:
    """Fence by the method; of two levels, the first one fails first."""
    if method == "second level":
        first = await world.run(world.fence(), 30.0)
        if first is None:
            return None
        assert first.status is OutcomeStatus.FAILED
        requests = world.requests
        world.die_at -= requests
        second = await world.run(world.fence(1))
        world.requests += requests
        world.die_at += requests
        return second
    return await world.run(world.fence())


def is_down(world: World, method: str) -> bool:
    if method == "medik8s":  # it reboots the host by itself
        return world.machine.cuts == 1
    off = not world.machine.powered and world.machine.cuts == 1
    storage = world.machine.storage_fenced
    return {"networkFence": storage, "second level": storage}.get(
        method, off and (storage or "and" not in method)
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
async def test_a_fence_killed_at_any_request_is_completed_or_safely_repeated(
    devices, method, after_effect
):
    async with opened(devices[method]) as undisturbed:
        outcome = await fenced(undisturbed, method)
        assert outcome is not None
        assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.detail
        assert is_down(undisturbed, method)
        total = undisturbed.requests
    # The polls at the end are alike: each of the first forty requests, then every fifth.
    steps = [n for n in range(1, total + 1) if n <= 40 or n % 5 == 0]
    for die_at in steps:
        async with opened(devices[method]) as world:
            world.die_at, world.after_effect = die_at, after_effect
            assert await fenced(world, method) is None, die_at
            world.die_at = 0
            outcome = await fenced(world, method)
            assert outcome is not None
            assert outcome.status is OutcomeStatus.SUCCEEDED, (die_at, outcome.detail)
            assert outcome.proof is not None
            assert outcome.proof.boot_id == "boot-1"
            assert is_down(world, method), die_at
            if method in POWER:
                assert world.machine.boots == 0, f"{die_at}: switched on"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
async def test_a_clean_up_killed_at_any_request_leaves_nothing_of_ours(
    devices, method, after_effect
):
    async def until_back(world: World) -> None:
        cordon = Cordon(node="n1", node_uid=world.node_uid, policy="p")
        assert (await world.run(cordon)).status is OutcomeStatus.SUCCEEDED
        assert (await fenced(world, method)).status is OutcomeStatus.SUCCEEDED
        world.come_back()

    async with opened(devices[method]) as undisturbed:
        await until_back(undisturbed)
        assert undisturbed.left_behind() != []
        outcome = await undisturbed.run(undisturbed.uncordon())
        assert outcome is not None
        assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.detail
        assert undisturbed.left_behind() == []
        total = undisturbed.requests

    for die_at in range(1, total + 1):
        async with opened(devices[method]) as world:
            await until_back(world)
            world.die_at, world.after_effect = die_at, after_effect
            assert await world.run(world.uncordon()) is None
            world.die_at = 0
            outcome = await world.run(world.uncordon())
            assert outcome is not None
            assert outcome.status is OutcomeStatus.SUCCEEDED, (die_at, outcome.detail)
            assert world.left_behind() == [], die_at


@pytest.mark.parametrize("method", ["redfish", "metal3", "networkFence", "machine"])
async def test_a_node_that_is_down_already_is_neither_switched_on_nor_taken_down_twice(
    devices, method
):
    async with opened(devices[method]) as world:
        assert (await fenced(world, method)).status is OutcomeStatus.SUCCEEDED
        for _ in range(3):
            outcome = await fenced(world, method)
            assert outcome is not None
            assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.detail
            assert not outcome.changed
        assert world.machine.boots == 0
        assert is_down(world, method)


@pytest.mark.parametrize("method", METHODS)
async def test_a_fence_killed_half_way_of_a_node_that_returns_leaves_nothing(devices, method):
    """It was convicted, its fence began, the daemon died, and the node came back by itself."""
    async with opened(devices[method]) as world:
        total = 0
        for die_at in range(1, 60):
            world.die_at, world.after_effect = die_at, True
            if await fenced(world, method) is not None:
                break
            total += 1
        assert total >= 3
        world.die_at = 0
        world.come_back()
        spared = await world.run(world.fence())
        assert spared is not None
        assert spared.status is OutcomeStatus.SPARED
        cleaned = await world.run(world.uncordon())
        assert cleaned is not None
        assert cleaned.status is OutcomeStatus.SUCCEEDED, cleaned.detail
        assert world.left_behind() == []


@pytest.mark.parametrize("method", ["redfish", "metal3"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
async def test_a_power_on_killed_at_any_request_is_repeated(devices, method, after_effect):
    async def off(world: World) -> PowerOn:
        assert (await fenced(world, method)).status is OutcomeStatus.SUCCEEDED
        return PowerOn(node="n1", node_uid=world.node_uid, method="lab", fenced_boot_id="boot-1")

    async def is_on(world: World) -> bool:
        await asyncio.sleep(10.0)
        return world.machine.powered and world.machine.boots == 1

    async with opened(devices[method]) as undisturbed:
        work = await off(undisturbed)
        outcome = await undisturbed.run(work, 60.0)
        assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.detail
        assert await is_on(undisturbed)
        total = undisturbed.requests
    for die_at in range(1, total + 1):
        async with opened(devices[method]) as world:
            work = await off(world)
            world.die_at, world.after_effect = die_at, after_effect
            assert await world.run(work, 60.0) is None
            world.die_at = 0
            outcome = await world.run(work, 60.0)
            assert outcome.status is OutcomeStatus.SUCCEEDED, (die_at, outcome.detail)
            assert await is_on(world), die_at


@pytest.mark.parametrize("mode", [OperatorMode.HANGS, OperatorMode.FAILS])
@pytest.mark.parametrize("method", ["medik8s", "metal3", "machine", "networkFence"])
async def test_a_method_that_fails_or_hangs_is_no_proof_and_leaves_nothing_at_the_end(
    devices, method, mode
):
    async with opened(devices[method]) as world:
        world.operators.mode["n1"] = mode
        outcome = await fenced(world, method)
        assert outcome is not None
        assert outcome.status is OutcomeStatus.FAILED
        assert outcome.proof is None
        world.operators.mode["n1"] = OperatorMode.OK
        world.come_back()
        for _ in range(3):
            outcome = await world.run(world.uncordon(), 30.0)
        assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.detail
        left = world.left_behind()
        assert left == [], left


async def test_a_bmc_that_ignores_its_order_is_no_proof(devices):
    async with opened(devices["redfish"]) as world:
        world.bmc.mode = BmcMode.IGNORES_RESET
        outcome = await world.run(world.fence(), 30.0)
        assert outcome is not None
        assert outcome.status is OutcomeStatus.FAILED
        assert world.machine.powered


async def test_a_stale_power_state_is_not_believed_because_a_crash_lies_in_between(devices):
    """The Metal3 operator looks once a minute: its "off" may be older than the host's last boot."""
    async with opened(devices["metal3"], takes_s=50.0) as world:
        world.store.mutate(
            kinds.METAL3_HOST,
            NAMESPACE,
            "n1",
            lambda each: each["status"].update(poweredOn=False),
            subresource="status",
        )
        world.die_at, world.after_effect = 1, False
        while not any(
            "reboot.metal3.io/remediator" in (tree["metadata"].get("annotations") or {})
            for tree in world.store.list(kinds.METAL3_HOST)
        ):
            world.after_effect = not world.after_effect
            world.die_at += world.after_effect
            assert await world.run(world.fence(), 200.0) is None
        world.die_at = 0
        outcome = await world.run(world.fence(), 200.0)
        assert outcome is not None
        assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.detail
        assert not world.machine.powered, f"proof of a running host: {outcome.detail}"


async def test_a_bmc_that_restarts_under_our_eyes_is_not_believed_after_one_second(devices):
    """It knows no state before the order, obeys nothing, and says off until it is up again."""
    async with opened(devices["redfish"]) as world:
        world.bmc.mode = BmcMode.NO_POWER_STATE
        answer = world.bmc.answer
        loop = asyncio.get_running_loop()

        def restarting(method, path, headers, body):
            if method == "POST" and world.bmc.mode is BmcMode.NO_POWER_STATE:
                world.bmc.mode = BmcMode.IGNORES_RESET
                said = answer(method, path, headers, body)
                world.bmc.mode = BmcMode.ALWAYS_OFF
                loop.call_later(5.0, lambda: setattr(world.bmc, "mode", BmcMode.IGNORES_RESET))
                return said
            if method == "POST":
                return None
            return answer(method, path, headers, body)

        world.bmc.answer = restarting
        outcome = await world.run(world.fence(), 60.0)
        assert outcome is not None
        assert world.machine.powered
        assert outcome.status is OutcomeStatus.FAILED, outcome.detail
