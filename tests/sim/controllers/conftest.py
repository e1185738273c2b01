"""A small cluster on virtual time: store, control plane, and hosts that do the least they must."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from remediator.clock import Clock
from remediator.kube.transport import Response
from remediator.sim.api_faults import ApiFaults
from remediator.sim.apiserver import ApiServer
from remediator.sim.controllers import ControlPlane, ControlPlaneSettings
from remediator.sim.resources import (
    EVENTS,
    LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VOLUME_ATTACHMENTS,
    Registry,
)
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339, rfc3339_micro
from remediator.sim.virtual_time import run

Obj = dict[str, Any]
NS = "default"
EPOCH = 1_800_000_000.0
OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}
DRIVER = "csi.sim"


class FakeHost:
    """A kubelet and a virt-handler: lease, heartbeat, pods up in 1 to 2 s, VMIs Running 1 s later.

    Without power, or cut off, it does nothing at all.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.alive = True
        self.handler_alive = True
        self.unmounts = True
        self.running: dict[str, Obj] = {}
        self.tasks = [asyncio.create_task(self._leases()), asyncio.create_task(self._beats())]
        cluster.store.subscribe(PODS, self._pod_changed)
        cluster.store.subscribe(VIRTUAL_MACHINE_INSTANCES, self._vmi_changed)

    def power_off(self) -> None:
        self.alive = False

    def power_on(self, boot_s: float = 5.0) -> None:
        self.cluster.spawn(self._boot(boot_s))

    async def _boot(self, boot_s: float) -> None:
        """Report the containers of before the power loss as lost, as a kubelet does."""
        await asyncio.sleep(boot_s)
        store = self.cluster.store
        self.alive = True
        self._write_lease()
        lost = store.list(PODS, fields=f"spec.nodeName={self.name}")
        self.running.clear()
        self._report()
        for pod in lost:
            self._set_pod(pod, lambda p: p["status"].update(phase="Failed", containerStatuses=[]))
        for vmi in store.list(
            VIRTUAL_MACHINE_INSTANCES, labels=f"kubevirt.io/nodeName={self.name}"
        ):
            if vmi["status"]["phase"] == "Running":
                self.cluster.set_vmi_phase(vmi, "Failed")
        for pod in lost:
            if "deletionTimestamp" in pod["metadata"]:
                store.delete(PODS, NS, pod["metadata"]["name"], grace_s=0)

    async def _leases(self) -> None:
        await asyncio.sleep(self.cluster.rng.uniform(0.0, 10.0))
        while True:
            if self.alive:
                self._write_lease()
            await asyncio.sleep(10.0)

    def _write_lease(self) -> None:
        def renew(lease: Obj) -> None:
            lease["spec"]["renewTime"] = rfc3339_micro(self.cluster.clock.now())

        store = self.cluster.store
        if store.find(NODES, "", self.name) is None:
            return
        store.mutate(LEASES, "kube-node-lease", self.name, renew)
        if self.cluster.ready(self.name) != "True":
            self._report()

    async def _beats(self) -> None:
        while True:
            if self.alive and self.handler_alive:
                self.cluster.beat(self.name)
            await asyncio.sleep(60.0 * self.cluster.rng.uniform(1.0, 2.2))

    def _report(self) -> None:
        """Write the node status: Ready, and the volumes in use."""
        in_use = sorted(
            f"kubernetes.io/csi/{DRIVER}^{volume}"
            for pod in self.running.values()
            for volume in self.cluster.volumes_of(pod)
        )

        def change(node: Obj) -> None:
            if self.unmounts or in_use:
                node["status"]["volumesInUse"] = in_use
            for condition in node["status"]["conditions"]:
                if condition["type"] == "Ready":
                    condition["status"] = "True"
                    condition["lastHeartbeatTime"] = rfc3339(self.cluster.clock.now())

        if self.cluster.store.find(NODES, "", self.name) is not None:
            self.cluster.store.mutate(NODES, "", self.name, change, subresource="status")

    def _set_pod(self, pod: Obj, change: Callable[[Obj], None]) -> None:
        name = pod["metadata"]["name"]
        if self.cluster.store.find(PODS, NS, name) is not None:
            self.cluster.store.mutate(PODS, NS, name, change, subresource="status")

    def _pod_changed(self, kind: str, pod: Obj, old: Obj | None) -> None:
        if pod["spec"].get("nodeName") != self.name or not self.alive:
            return
        if kind == "DELETED":
            if self.running.pop(pod["metadata"]["uid"], None) is not None:
                self.cluster.loop.call_later(1.0, self._report_if_alive)
        elif "deletionTimestamp" in pod["metadata"]:
            if old is not None and "deletionTimestamp" not in old["metadata"]:
                self.cluster.spawn(self._end(pod))
        elif old is None or not old["spec"].get("nodeName"):
            self.cluster.spawn(self._run(pod))

    def _report_if_alive(self) -> None:
        if self.alive:
            self._report()

    async def _run(self, pod: Obj) -> None:
        cluster = self.cluster
        uid = pod["metadata"]["uid"]
        volumes = cluster.volumes_of(pod)
        await cluster.until(
            lambda: all(cluster.attached(volume, self.name) for volume in volumes), within_s=3600
        )
        self.running[uid] = pod
        self._report_if_alive()
        await asyncio.sleep(cluster.rng.uniform(1.0, 2.0))
        if self.alive and uid in self.running:
            self._set_pod(pod, _pod_runs)

    async def _end(self, pod: Obj) -> None:
        await asyncio.sleep(2.0)
        if self.alive:
            self.running.pop(pod["metadata"]["uid"], None)
            self._report()
            if self.cluster.store.find(PODS, NS, pod["metadata"]["name"]) is not None:
                self.cluster.store.delete(PODS, NS, pod["metadata"]["name"], grace_s=0)

    def _vmi_changed(self, kind: str, vmi: Obj, old: Obj | None) -> None:
        if kind == "DELETED" or not (self.alive and self.handler_alive):
            return
        labels = vmi["metadata"].get("labels") or {}
        phase = (vmi.get("status") or {}).get("phase")
        was = ((old or {}).get("status") or {}).get("phase")
        if phase == "Scheduled" != was and labels.get("kubevirt.io/nodeName") == self.name:
            self.cluster.loop.call_later(1.0, self._guest_starts, vmi)

    def _guest_starts(self, vmi: Obj) -> None:
        if self.alive and self.handler_alive:
            now = self.cluster.store.find(VIRTUAL_MACHINE_INSTANCES, NS, vmi["metadata"]["name"])
            if now is not None and now["status"]["phase"] == "Scheduled":
                self.cluster.set_vmi_phase(now, "Running")


def _pod_runs(pod: Obj) -> None:
    pod["status"]["phase"] = "Running"
    pod["status"]["containerStatuses"] = [
        {"name": "compute", "ready": True, "state": {"running": {}}}
    ]
    pod["status"].setdefault("conditions", []).append(
        {"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"}
    )


class Cluster:
    """The whole of it, with what a test wants to do and to ask."""

    def __init__(self, seed: int, settings: ControlPlaneSettings) -> None:
        self.loop = asyncio.get_running_loop()
        self.rng = random.Random(seed)
        self.clock = Clock(epoch_at_start=EPOCH)
        self.faults = ApiFaults()
        self.store = Store(now=self.clock.now, rng=random.Random(seed + 1))
        self.plane = ControlPlane(
            self.store,
            clock=self.clock,
            rng=random.Random(seed + 2),
            faults=self.faults,
            settings=settings,
        )
        self.server = ApiServer(self.store, Registry(), faults=self.faults)
        self.plane.serve(self.server)
        self.hosts: dict[str, FakeHost] = {}
        self.defects: list[dict[str, Any]] = []
        self.pods_seen: list[Obj] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop.set_exception_handler(lambda _loop, context: self.defects.append(context))
        self.store.subscribe(PODS, self._note_pod)

    def _note_pod(self, kind: str, pod: Obj, _old: Obj | None) -> None:
        if kind == "ADDED":
            self.pods_seen.append(pod)

    def spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def add_node(self, name: str, *, zone: str = "z1", cpu: str = "32") -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {
                    "kubernetes.io/hostname": name,
                    "topology.kubernetes.io/zone": zone,
                    "kubevirt.io/schedulable": "true",
                },
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {},
        }
        made = self.store.create(NODES, node)
        self.store.mutate(
            NODES,
            "",
            name,
            lambda n: n.update(
                status={
                    "allocatable": {"cpu": cpu, "memory": "128Gi", "pods": "110"},
                    "conditions": [
                        {
                            "type": "Ready",
                            "status": "True",
                            "lastHeartbeatTime": rfc3339(self.clock.now()),
                            "lastTransitionTime": rfc3339(self.clock.now()),
                        }
                    ],
                }
            ),
            subresource="status",
        )
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": made["metadata"]["uid"]}
        self.store.create(
            LEASES,
            {
                "metadata": {
                    "name": name,
                    "namespace": "kube-node-lease",
                    "ownerReferences": [owner],
                },
                "spec": {
                    "holderIdentity": name,
                    "leaseDurationSeconds": 40,
                    "renewTime": rfc3339_micro(self.clock.now()),
                },
            },
        )
        self.hosts[name] = FakeHost(self, name)

    def add_vm(
        self,
        name: str,
        *,
        strategy: str = "Always",
        mode: str | None = "ReadWriteMany",
        spec: Obj | None = None,
    ) -> None:
        volumes = []
        if mode is not None:
            self.store.create(
                PERSISTENT_VOLUMES,
                {
                    "metadata": {"name": f"pv-{name}"},
                    "spec": {
                        "accessModes": [mode],
                        "csi": {"driver": DRIVER, "volumeHandle": f"pv-{name}"},
                    },
                },
            )
            self.store.create(
                PERSISTENT_VOLUME_CLAIMS,
                {
                    "metadata": {"name": f"disk-{name}", "namespace": NS},
                    "spec": {"accessModes": [mode], "volumeName": f"pv-{name}"},
                },
            )
            volumes = [{"name": "root", "persistentVolumeClaim": {"claimName": f"disk-{name}"}}]
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "domain": {"cpu": {"cores": 2}, "memory": {"guest": "2Gi"}},
                "volumes": volumes,
                **(spec or {}),
            },
        }
        self.store.create(
            VIRTUAL_MACHINES,
            {
                "metadata": {"name": name, "namespace": NS},
                "spec": {"runStrategy": strategy, "template": template},
            },
        )

    # What a test does.

    def beat(self, node: str) -> None:
        def change(obj: Obj) -> None:
            annotations = obj["metadata"].setdefault("annotations", {})
            annotations["kubevirt.io/heartbeat"] = rfc3339(self.clock.now())
            obj["metadata"]["labels"]["kubevirt.io/schedulable"] = "true"

        if self.store.find(NODES, "", node) is not None:
            self.store.mutate(NODES, "", node, change)

    def taint(self, node: str, taint: Obj) -> None:
        self.store.mutate(
            NODES, "", node, lambda n: n["spec"].setdefault("taints", []).append(dict(taint))
        )

    def cordon(self, node: str) -> None:
        self.taint(node, {"key": "remediator.io/held", "effect": "NoSchedule"})

    def force_delete(self, pod: Obj) -> None:
        meta = pod["metadata"]
        self.store.delete(PODS, NS, meta["name"], uid=meta["uid"], grace_s=0)

    def set_vmi_phase(self, vmi: Obj, phase: str) -> None:
        def change(obj: Obj) -> None:
            obj["status"]["phase"] = phase
            obj["status"].setdefault("phaseTransitionTimestamps", []).append(
                {"phase": phase, "phaseTransitionTimestamp": rfc3339(self.clock.now())}
            )

        self.store.mutate(VIRTUAL_MACHINE_INSTANCES, NS, vmi["metadata"]["name"], change)

    # What a test asks.

    def ask(self, method: str, path: str, body: Obj | None = None) -> tuple[int, str]:
        """Send a request; return its status, and the message of a refusal."""
        headers = {"content-type": "application/json", "user-agent": "someone"}
        answer = self.server.answer(method, path, (), headers, msgspec.json.encode(body or {}))
        assert isinstance(answer, Response)
        said = msgspec.json.decode(answer.body) if answer.body else {}
        return answer.status, said.get("message", "")

    def vm(self, name: str) -> Obj:
        return self.store.get(VIRTUAL_MACHINES, NS, name)

    def vmi(self, name: str) -> Obj | None:
        return self.store.find(VIRTUAL_MACHINE_INSTANCES, NS, name)

    def vmi_uid(self, name: str) -> str:
        vmi = self.vmi(name)
        return "" if vmi is None else vmi["metadata"]["uid"]

    def phase(self, name: str) -> str:
        vmi = self.vmi(name)
        return "" if vmi is None else (vmi.get("status") or {}).get("phase", "")

    def node_of(self, name: str) -> str:
        vmi = self.vmi(name)
        return "" if vmi is None else vmi["status"].get("nodeName", "")

    def pods(self, name: str) -> list[Obj]:
        return self.store.list(PODS, labels=f"vm.kubevirt.io/name={name}")

    def pod(self, name: str) -> Obj:
        pods = self.pods(name)
        assert len(pods) == 1, [p["metadata"]["name"] for p in pods]
        return pods[0]

    def migration(self, name: str) -> Obj | None:
        return self.store.find(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, NS, name)

    def ready(self, node: str) -> str:
        conditions = self.store.get(NODES, "", node)["status"]["conditions"]
        return next(c["status"] for c in conditions if c["type"] == "Ready")

    def taints(self, node: str) -> set[tuple[str, str]]:
        spec = self.store.get(NODES, "", node)["spec"]
        return {(t["key"].rpartition("/")[2], t["effect"]) for t in spec.get("taints", ())}

    def volumes_of(self, pod: Obj) -> list[str]:
        return [
            "pv-" + v["persistentVolumeClaim"]["claimName"].removeprefix("disk-")
            for v in pod["spec"].get("volumes") or ()
            if v.get("persistentVolumeClaim")
        ]

    def attachments(self, volume: str) -> dict[str, bool]:
        return {
            va["spec"]["nodeName"]: va["status"]["attached"]
            for va in self.store.list(VOLUME_ATTACHMENTS)
            if va["spec"]["source"]["persistentVolumeName"] == volume
        }

    def attached(self, volume: str, node: str) -> bool:
        return self.attachments(volume).get(node, False)

    def warnings(self, reason: str) -> list[str]:
        return [e["message"] for e in self.store.list(EVENTS) if e["reason"] == reason]

    def now(self) -> float:
        return self.loop.time()

    async def until(self, holds: Callable[[], object], *, within_s: float) -> float:
        """Wait until it holds; return how long that took, in seconds."""
        begun = self.loop.time()
        while not holds():
            assert self.loop.time() - begun <= within_s, f"not within {within_s} s"
            await asyncio.sleep(0.01)
        return self.loop.time() - begun

    async def never(self, holds: Callable[[], object], *, for_s: float) -> None:
        """Look every second, for so long: it must not hold."""
        begun = self.loop.time()
        while self.loop.time() - begun < for_s:
            assert not holds(), f"held after {self.loop.time() - begun:.1f} s"
            await asyncio.sleep(1.0)


Story = Callable[[Cluster], Awaitable[None]]


@pytest.fixture
def simulate() -> Callable[..., None]:
    """Tell a story in a cluster of some nodes, on virtual time."""

    def tell(
        story: Story, *, nodes: int = 4, seed: int = 7, settings: ControlPlaneSettings | None = None
    ) -> None:
        async def main() -> None:
            cluster = Cluster(seed, settings or ControlPlaneSettings())
            for index in range(nodes):
                cluster.add_node(f"n{index}", zone=f"z{index % 3}")
            cluster.plane.start()
            await story(cluster)
            cluster.plane.stop()
            if cluster.defects:
                raise AssertionError(f"callbacks failed: {cluster.defects}")

        run(main())

    return tell


async def start_vm_on_dead_node(cluster: Cluster, name: str = "vm", **vm: Any) -> str:
    """Start a VM, let it run, cut its node's power; return the node."""
    cluster.add_vm(name, **vm)
    await cluster.until(lambda: cluster.phase(name) == "Running", within_s=30)
    await asyncio.sleep(30)
    node = cluster.node_of(name)
    cluster.hosts[node].power_off()
    return node


@pytest.fixture
def dead_node() -> Callable[..., Awaitable[str]]:
    return start_vm_on_dead_node
