"""What the controllers do, told once and true of both: the simulated cluster and the real one.

No daemon takes part. Where a story fails on one face only, the simulated cluster is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from remediator.clock import Clock
from remediator.sim.cluster import SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.hosts.node_object import NODES_PATH
from remediator.sim.hosts.volumes import ATTACHMENTS_PATH
from remediator.sim.hosts.wire import STRATEGIC_PATCH, Obj, RefusedError
from tests.cluster.real_cluster import RealCluster
from tests.cluster.real_objects import RealObjects

SPEC = ClusterSpec(
    nodes=3,
    zones=1,
    vms=6,
    namespaces=("team-a",),
    run_strategies={"Always": 0.4, "RerunOnFailure": 0.3, "Once": 0.3},
    rwx_share=0.5,
    diskless_share=0.0,
    agent_share=1.0,
)
OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}
RESTARTED = ("Always", "RerunOnFailure")
NAMESPACE = "/apis/kubevirt.io/v1/namespaces/team-a"
PODS = "/api/v1/namespaces/team-a/pods"


class Face:
    """One of the two clusters, and an administrator's way to its API."""

    def __init__(self, cluster: SimCluster | RealCluster, objects: RealObjects) -> None:
        self.cluster = cluster
        self.ask = objects.ask
        self.cordon = objects.cordon

    async def vmi(self, vm: str) -> Obj | None:
        try:
            return await self.ask("GET", f"{NAMESPACE}/virtualmachineinstances/{name(vm)}")
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    async def pods(self, node: str) -> list[Obj]:
        found = (await self.ask("GET", PODS))["items"]
        return [pod for pod in found if pod["spec"].get("nodeName") == node]

    async def launcher(self, vm: str) -> Obj:
        uid = (await self.vmi(vm))["metadata"]["uid"]
        for pod in (await self.ask("GET", PODS))["items"]:
            if pod["metadata"]["labels"].get("kubevirt.io/created-by") == uid:
                return pod
        raise AssertionError(f"{vm} has no launcher pod")

    async def force_delete(self, pod: Obj) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self.ask("DELETE", f"{PODS}/{pod['metadata']['name']}", options)

    async def node_of(self, vm: str) -> str:
        return (await self.vmi(vm))["status"]["nodeName"]

    async def attached_to(self, node: str) -> list[str]:
        found = (await self.ask("GET", ATTACHMENTS_PATH))["items"]
        return [one["metadata"]["name"] for one in found if one["spec"]["nodeName"] == node]

    async def ready(self, node: str) -> str:
        found = await self.ask("GET", f"{NODES_PATH}/{node}")
        return next(
            one["status"] for one in found["status"]["conditions"] if one["type"] == "Ready"
        )

    def of(self, *strategies: str, mode: str = "") -> list[str]:
        return [
            key
            for key, vm in self.cluster.vms.items()
            if vm.run_strategy in strategies and mode in ("", vm.access_mode)
        ]

    async def until(
        self, condition: Callable[[], Awaitable[bool]], within_s: float, what: str
    ) -> float:
        """Return the seconds it took."""
        began = self.cluster.clock.now()
        while not await condition():
            took_s = self.cluster.clock.now() - began
            assert took_s < within_s, f"{what}: not within {within_s:g} s"
            await asyncio.sleep(0.1)
        return self.cluster.clock.now() - began

    async def is_new(self, vm: str, old_uid: str, *, running: bool = False) -> bool:
        vmi = await self.vmi(vm)
        if vmi is None or vmi["metadata"]["uid"] == old_uid:
            return False
        return not running or vmi["status"].get("phase") == "Running"


def name(vm: str) -> str:
    return vm.partition("/")[2]


@asynccontextmanager
async def simulated() -> AsyncIterator[Face]:
    cluster = SimCluster(SPEC, clock=Clock())
    await cluster.start()
    try:
        yield Face(cluster, RealObjects(cluster.memory_transport("suite")))
    finally:
        await cluster.stop()


@asynccontextmanager
async def real(plane) -> AsyncIterator[Face]:
    cluster = RealCluster(plane, SPEC)
    try:
        await cluster.start()
        yield Face(cluster, cluster.objects)
    finally:
        await cluster.stop()


@pytest.fixture(params=["simulated", "real"])
async def face(request) -> AsyncIterator[Face]:
    if request.param == "simulated":
        opened = simulated()
    else:
        opened = real(request.getfixturevalue("control_plane"))
    async with opened as made:
        yield made


async def test_a_launcher_that_vanishes_fails_its_vmi_and_the_run_strategy_decides(face):
    for vm in face.of(*RESTARTED):
        old = (await face.vmi(vm))["metadata"]["uid"]
        await face.force_delete(await face.launcher(vm))
        await face.until(lambda vm=vm, old=old: face.is_new(vm, old), 5.0, f"a new VMI of {vm}")
        await face.until(
            lambda vm=vm, old=old: face.is_new(vm, old, running=True), 30.0, f"{vm} to run"
        )
    once = face.of("Once")
    assert once
    for vm in once:
        old = (await face.vmi(vm))["metadata"]["uid"]
        await face.force_delete(await face.launcher(vm))

        async def failed(vm=vm) -> bool:
            return (await face.vmi(vm))["status"]["phase"] == "Failed"

        await face.until(failed, 5.0, f"{vm} to be Failed")
        await asyncio.sleep(3.0)
        assert not await face.is_new(vm, old)
    assert face.cluster.ledger.double_runs == ()


async def test_the_out_of_service_taint_frees_pods_and_volumes_once_the_node_is_not_ready(face):
    vms = face.of(*RESTARTED)
    node = await face.node_of(vms[0])
    victims = [vm for vm in vms if await face.node_of(vm) == node]
    uids = {vm: (await face.vmi(vm))["metadata"]["uid"] for vm in victims}
    pods = await face.pods(node)
    began = face.cluster.clock.now()
    face.cluster.faults.power_loss(node)
    patch = {"spec": {"taints": [OUT_OF_SERVICE]}}
    await face.ask("PATCH", f"{NODES_PATH}/{node}", patch, content_type=STRATEGIC_PATCH)

    async def all_end() -> bool:
        return all("deletionTimestamp" in pod["metadata"] for pod in await face.pods(node))

    await face.until(all_end, 5.0, "the eviction")
    await asyncio.sleep(15.0)
    assert len(await face.pods(node)) == len(pods)  # still Ready: nothing removes them

    async def not_ready() -> bool:
        return await face.ready(node) != "True"

    await face.until(not_ready, 60.0, "NotReady")
    assert 38.0 <= face.cluster.clock.now() - began <= 60.0

    async def freed() -> bool:
        return not await face.pods(node) and not await face.attached_to(node)

    await face.until(freed, 30.0, "pod garbage collection and detach")
    for vm in victims:
        await face.until(
            lambda vm=vm: face.is_new(vm, uids[vm], running=True), 30.0, f"{vm} to run"
        )
        assert await face.node_of(vm) != node


async def test_deleting_the_vmi_of_a_dead_node_does_nothing_until_its_pod_goes(face):
    vm = face.of("Always")[0]
    node = await face.node_of(vm)
    old = (await face.vmi(vm))["metadata"]["uid"]
    launcher = await face.launcher(vm)
    face.cluster.faults.power_loss(node)
    await face.cordon(node, on=True)
    await face.ask("DELETE", f"{NAMESPACE}/virtualmachineinstances/{name(vm)}")
    await asyncio.sleep(8.0)
    stuck = await face.vmi(vm)
    assert stuck["metadata"]["uid"] == old
    assert "deletionTimestamp" in stuck["metadata"]
    assert stuck["status"]["phase"] == "Running"

    await face.force_delete(launcher)
    await face.until(lambda: face.is_new(vm, old), 5.0, "a new VMI")


async def test_without_the_taint_only_shared_volumes_follow_at_once(face):
    shared = face.of(*RESTARTED, mode="ReadWriteMany")[0]
    own = face.of(*RESTARTED, mode="ReadWriteOnce")[0]
    for vm in (shared, own):
        node = await face.node_of(vm)
        old = (await face.vmi(vm))["metadata"]["uid"]
        launcher = await face.launcher(vm)
        face.cluster.faults.power_loss(node)
        await face.cordon(node, on=True)
        await face.force_delete(launcher)
        if vm == shared:
            await face.until(
                lambda vm=vm, old=old: face.is_new(vm, old, running=True), 30.0, f"{vm} to run"
            )
        else:
            await face.until(lambda vm=vm, old=old: face.is_new(vm, old), 5.0, "a new VMI")
            await asyncio.sleep(20.0)
            assert not await face.is_new(vm, old, running=True)
            assert await face.attached_to(node)
        # one dead node at a time, so that there is always somewhere to go
        face.cluster.faults.power_restore(node, boot_s=1.0)
        await face.cordon(node, on=False)
        await asyncio.sleep(5.0)


async def test_a_migration_moves_the_guest_and_ends_the_source_pod(face):
    vm = face.of(*RESTARTED, mode="ReadWriteMany")[0]
    source = await face.launcher(vm)
    before = await face.vmi(vm)
    path = f"{NAMESPACE}/virtualmachineinstancemigrations"
    await face.ask(
        "POST",
        path,
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {"name": "moves", "namespace": "team-a"},
            "spec": {"vmiName": name(vm)},
        },
    )

    async def succeeded() -> bool:
        status = (await face.ask("GET", f"{path}/moves")).get("status") or {}
        return status.get("phase") == "Succeeded"

    await face.until(succeeded, 60.0, "the migration")
    after = await face.vmi(vm)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["nodeName"] != before["status"]["nodeName"]

    async def source_ended() -> bool:
        pod = await face.ask("GET", f"{PODS}/{source['metadata']['name']}")
        return pod["status"]["phase"] == "Succeeded"

    await face.until(source_ended, 30.0, "the source pod to end")
    assert face.cluster.ledger.double_runs == ()
