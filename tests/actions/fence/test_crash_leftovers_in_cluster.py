"""What an earlier incident, a crash or another's mistake left lying about is no proof of now."""

from __future__ import annotations

import asyncio

import pytest
from cluster_lab import MACHINE, NAMESPACE, NETWORK_FENCE, SNR, SNR_TEMPLATE, Cluster

from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.machine import MachineDriver
from remediator.actions.fence.medik8s import Medik8sDriver
from remediator.actions.fence.network_fence import FENCED_MESSAGE, UNFENCED_MESSAGE
from remediator.actions.fence.network_fence import NetworkFenceDriver as NetworkDriver
from remediator.actions.world import SparedError
from remediator.clock import Clock
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import (
    Level,
    MachineFence,
    Medik8sFence,
    NetworkFence,
    NodeSelector,
    OperatorFence,
    Spec,
    TemplateRef,
)
from remediator.fence_config.loader import FenceConfig
from remediator.power import PowerReading

OWNED = {
    "ownerReferences": [
        {
            "apiVersion": "machine.openshift.io/v1beta1",
            "kind": "MachineSet",
            "name": "set",
            "uid": "set-uid",
            "controller": True,
        }
    ]
}


@pytest.fixture
async def cluster():
    cluster = Cluster()
    yield cluster
    await cluster.close()


def order(cluster: Cluster, action_id: str, within_s: float = 30.0) -> Order:
    async def nothing() -> None:
        pass

    return Order(action_id=action_id, deadline_at=cluster.clock.now() + within_s, last_look=nothing)


def storage(cluster: Cluster) -> None:
    """csi-addons: fences and unfences at once."""

    def reconcile(tree):
        fenced = tree["spec"]["fenceState"] == "Fenced"
        message = FENCED_MESSAGE if fenced else UNFENCED_MESSAGE
        if (tree.get("status") or {}).get("message") != message:
            status = {"result": "Succeeded", "message": message}
            cluster.status(NETWORK_FENCE, tree["metadata"]["name"], status)

    cluster.plays(NETWORK_FENCE, reconcile)


async def test_a_network_fence_of_other_addresses_is_made_anew(cluster):
    storage(cluster)
    driver = NetworkDriver(NetworkFence(name="net", class_name="ceph"), cluster.objects)
    before = cluster.target(addresses=("10.0.0.1",))
    assert isinstance(await driver.take_down(before, order(cluster, "inc-1/fence/1")), Down)
    after = cluster.target(addresses=("10.0.0.77",), boot_id="boot-2")
    down = await driver.take_down(after, order(cluster, "inc-2/fence/1"))
    (made,) = cluster.all(NETWORK_FENCE)
    assert isinstance(down, NotDown) or made["spec"]["cidrs"] == ["10.0.0.77/32"]
    assert isinstance(down, Down), down
    assert "10.0.0.77/32" in down.detail


async def test_the_success_of_an_earlier_incident_in_the_same_boot_is_no_proof(cluster):
    """It succeeded by its own words, yet the node went on: that word was wrong once."""
    cluster.create(SNR_TEMPLATE, "automatic", spec={"template": {"spec": {}}})
    answers = ["True", "False"]
    seen: list[str] = []

    def remediator(tree):
        uid = tree["metadata"]["uid"]
        if uid not in seen:
            seen.append(uid)
            conditions = [{"type": "Succeeded", "status": answers[len(seen) - 1]}]
            cluster.status(SNR, tree["metadata"]["name"], {"conditions": conditions})

    cluster.plays(SNR, remediator)
    ref = TemplateRef(
        api_version=SNR_TEMPLATE.api_version,
        kind=SNR_TEMPLATE.kind,
        name="automatic",
        namespace=NAMESPACE,
    )
    driver = Medik8sDriver(Medik8sFence(name="snr", template=ref), cluster.objects)
    first = await driver.take_down(cluster.target(), order(cluster, "inc-1/fence/1"))
    assert isinstance(first, Down)
    again = await driver.take_down(cluster.target(), order(cluster, "inc-1/fence/2"))
    assert isinstance(again, Down)  # the same incident goes on with the same object
    later = await driver.take_down(cluster.target(), order(cluster, "inc-9/fence/1"))
    assert isinstance(later, NotDown)
    assert len(seen) == 2


@pytest.mark.parametrize("whose", ["n2", "n1", ""])
async def test_a_machine_that_is_another_nodes_is_never_deleted(cluster, whose):
    """A wrong annotation on the Node, or one that was copied."""
    status = {"nodeRef": {"kind": "Node", "name": whose}} if whose else {}
    cluster.create(MACHINE, "n1-machine", spec={}, metadata=OWNED, status=status)
    driver = MachineDriver(MachineFence(name="machine"), cluster.objects)
    answer = await driver.take_down(cluster.target(), order(cluster, "inc-1/fence/1", 5.0))
    checked = await driver.check(cluster.target())
    if whose == "n2":
        assert isinstance(answer, NotDown)
        assert answer.detail.startswith("WrongMachine")
        assert "n2" in answer.detail
        assert len(cluster.all(MACHINE)) == 1
        assert checked.owner == "differs"
        assert checked.fault
    else:
        assert isinstance(answer, Down), answer
        assert cluster.all(MACHINE) == []


class Outlet:
    """A device that looks, waits a little, and orders; as every driver does."""

    proof = ProofKind.POWER_OFF_VERIFIED
    tells_power = True
    leaves_objects = False
    timeout_s = 20.0

    def __init__(self, name: str, clock: Clock, looks: list[Exception | None]) -> None:
        self.name = name
        self._clock = clock
        self._looks = looks
        self.ordered_at: list[float] = []
        self.busy = self.most_busy = 0

    def source(self, node: str) -> str:
        return f"{self.name} of {node}"

    async def check(self, target: Target) -> Checked:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(2.0)
        self.busy -= 1
        said = PowerReading(reading=Reading.UP, source=self.source(target.node), detail="on")
        return Checked(power=said)

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(2.0)
            await order.last_look()
            if self._looks and (error := self._looks.pop(0)) is not None:
                raise error
            self.ordered_at.append(self._clock.now())
            await asyncio.sleep(2.0)
        finally:
            self.busy -= 1
        source = self.source(target.node)
        return Down(at=self._clock.now(), source=source, detail="off", ordered=True)

    async def bring_up(self, _target: Target, _order: Order) -> str:
        raise AssertionError("nobody asked")

    async def take_back(self, target: Target) -> str:
        del target
        return ""

    async def close(self) -> None:
        pass


class Factory:
    """Gives the prepared outlets for the devices of a configuration, by name."""

    def __init__(self, outlets: dict[str, Outlet]) -> None:
        self._outlets = outlets

    def build(self, device: OperatorFence) -> Outlet:
        return self._outlets[device.name]


def pair(clock: Clock, a: Outlet, b: Outlet, *, delay_s: float = 0.0) -> FenceDevices:
    devices = (
        OperatorFence(name=a.name, concurrency=1),
        OperatorFence(name=b.name, concurrency=1, delay_s=delay_s),
    )
    config = FenceConfig(
        name="pair",
        source="test",
        content_hash="",
        spec=Spec(
            nodes=NodeSelector(names=("*",)),
            devices=devices,
            levels=(Level(devices=(a.name, b.name)),),
        ),
    )
    return FenceDevices([config], clock, Factory({a.name: a, b.name: b}))


@pytest.mark.parametrize("error", [SparedError("it lives"), RuntimeError("a defect")])
async def test_when_one_of_two_power_supplies_is_spared_nothing_is_sent_to_the_other(
    cluster, error
):
    a, b = Outlet("a", cluster.clock, [error]), Outlet("b", cluster.clock, [None])
    devices = pair(cluster.clock, a, b, delay_s=1.0)
    with pytest.raises(type(error)):
        await devices.take_down(
            devices.configs[0], 0, cluster.target(), order(cluster, "inc-1/fence/1")
        )
    await asyncio.sleep(60.0)
    assert b.ordered_at == []


async def test_a_cancelled_fence_sends_nothing_more_to_any_of_its_devices(cluster):
    a, b = Outlet("a", cluster.clock, []), Outlet("b", cluster.clock, [])
    devices = pair(cluster.clock, a, b)
    work = devices.take_down(
        devices.configs[0], 0, cluster.target(), order(cluster, "inc-1/fence/1")
    )
    task = asyncio.create_task(work)
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.sleep(60.0)
    assert a.ordered_at == b.ordered_at == []


async def test_a_device_that_takes_one_at_a_time_is_not_asked_while_it_is_ordered(cluster):
    a, b = Outlet("a", cluster.clock, []), Outlet("b", cluster.clock, [])
    devices = pair(cluster.clock, a, b)
    orders = [
        asyncio.create_task(
            devices.take_down(
                devices.configs[0], 0, cluster.target(node=node), order(cluster, "inc-1/fence/1")
            )
        )
        for node in ("n1", "n2", "n3")
    ]
    readings = [
        asyncio.create_task(devices.power_state(cluster.target(node=node), {}))
        for node in ("n4", "n5")
    ]
    answers = await asyncio.gather(*orders)
    await asyncio.gather(*readings)
    assert all(isinstance(answer, Down) for answer in answers)
    assert (a.most_busy, b.most_busy) == (1, 1)
