"""Emulated hosts, storage and BMCs on a real control plane, with the same truth ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from remediator.clock import Clock
from remediator.kube.transport import Transport
from remediator.sim.api_faults import ApiFaults
from remediator.sim.bmc import Bmc, BmcService
from remediator.sim.bmc_server import BmcServer
from remediator.sim.cluster_spec import ClusterSpec, VmSpec
from remediator.sim.faults import Faults
from remediator.sim.hosts.fleet import Fleet
from remediator.sim.hosts.host import Host
from remediator.sim.hosts.node_object import NODES_PATH
from remediator.sim.hosts.vmi_status import node_of, phase_of
from remediator.sim.hosts.watch import SharedWatch
from remediator.sim.hosts.wire import Obj
from remediator.sim.ledger import Ledger
from remediator.sim.storage import SharedStorage
from tests.cluster.attacher import ExternalAttacher
from tests.cluster.control_plane import ControlPlane
from tests.cluster.real_objects import RealObjects
from tests.cluster.secure_transport import Connections

VMIS_PATH = "/apis/kubevirt.io/v1/virtualmachineinstances"
REVIVE_S = 2.0  # a kubelet waits 10 s before its first restart of a static pod's container
BOOT_S = 180.0  # for all VMs of a scenario to be up before its fault


@dataclass(slots=True)
class Instance:
    """One VMI as the API showed it. Times are epoch seconds at which it was seen."""

    vm: str
    uid: str
    made_at: float
    node: str = ""
    phase: str = ""
    running_at: float | None = None
    gone_at: float | None = None


@dataclass(slots=True)
class Instances:
    """Every VMI that was ever seen, by VM, oldest first."""

    clock: Clock
    by_vm: dict[str, list[Instance]] = field(default_factory=dict)

    def seen(self, vmi: Obj) -> None:
        meta = vmi["metadata"]
        vm = f"{meta['namespace']}/{meta['name']}"
        known = self.by_vm.setdefault(vm, [])
        if not known or known[-1].uid != meta["uid"]:
            known.append(Instance(vm, meta["uid"], self.clock.now()))
        newest = known[-1]
        newest.node, newest.phase = node_of(vmi), phase_of(vmi)
        if newest.phase == "Running" and newest.running_at is None:
            newest.running_at = self.clock.now()

    def gone(self, vmi: Obj, missed: bool) -> None:  # noqa: ARG002, FBT001 - SharedWatch's callback
        meta = vmi["metadata"]
        for instance in self.by_vm.get(f"{meta['namespace']}/{meta['name']}", ()):
            if instance.uid == meta["uid"]:
                instance.gone_at = self.clock.now()

    def newest(self, vm: str) -> Instance | None:
        known = self.by_vm.get(vm)
        return known[-1] if known else None


class RealCluster:
    """Looks like ``SimCluster`` to whoever plays with hosts, BMCs, faults and the ledger.

    Make it in the running loop; ``start`` registers all nodes and runs all VMs, ``stop`` ends the
    emulation. The control plane itself belongs to somebody else.
    """

    def __init__(self, plane: ControlPlane, spec: ClusterSpec) -> None:
        self.plane = plane
        self.spec = spec
        self.clock = Clock()
        self.ledger = Ledger(self.clock.now)
        self.instances = Instances(self.clock)
        self._connections = Connections(plane.ca)
        self.objects = RealObjects(self.transport("admin-setup", user="admin"))
        self.fleet = Fleet(
            spec.host_specs(),
            transport_for=self.transport,
            clock=self.clock,
            ledger=self.ledger,
            storage=SharedStorage(spec.storage),
            seed=spec.seed,
            settings=spec.hosts,
        )
        self.bmcs = {
            name: Bmc(host, user=spec.bmc_user, password=spec.bmc_password)
            for name, host in self.fleet.hosts.items()
        }
        self.faults = Faults(
            self.fleet, self.bmcs, ApiFaults(), clock=self.clock, delete_node=self._delete_node
        )
        self.vms: dict[str, VmSpec] = {vm.key: vm for vm in spec.vm_specs()}
        self._bmc_server = BmcServer(BmcService(self.bmcs))
        self._attacher = ExternalAttacher(
            self.transport("attacher"), seed=spec.seed, settings=spec.controllers
        )
        self._watch = SharedWatch(
            self.transport("observer"),
            VMIS_PATH,
            seen=self.instances.seen,
            gone=self.instances.gone,
            rng=self.fleet.hosts[spec.host_specs()[0].name].rng,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._deletions: set[asyncio.Task[Obj]] = set()
        self.bmc_url = ""

    @property
    def hosts(self) -> Mapping[str, Host]:
        """All hosts by node name."""
        return self.fleet.hosts

    def transport(self, client: str, *, user: str = "hosts") -> Transport:
        """Return a way to the API server under a client's name."""
        watches = client in ("fleet", "attacher", "observer")
        token = self.plane.tokens[user]
        return self._connections.transport(self.plane.url, client, token, watches=watches)

    async def start(
        self, *, all_on: str = "", vms: Callable[[RealCluster], Awaitable[None]] | None = None
    ) -> None:
        """Register nodes and start all VMs; returns when every guest is up.

        ``all_on``: every VM starts on this node. ``vms``: puts VMs that run for long there in
        another way, before the hosts are switched on. Raises TimeoutError.
        """
        objects, now = self.objects, self.clock.now()
        await objects.namespaces(("remediator", *self.spec.namespaces))
        await objects.storage()
        async with asyncio.TaskGroup() as group:
            for host in self.hosts.values():
                group.create_task(objects.node(host.spec, host.boot_id, self.spec.hosts, now))
        if vms is not None:
            await vms(self)
        self.bmc_url = await self._bmc_server.start()
        loop = asyncio.get_running_loop()
        for work in (self._attacher.run(), self._watch.run(), self._revive()):
            task = loop.create_task(work)
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)
        await self.fleet.start(warm=True)
        if vms is not None:
            return
        others = [name for name in self.hosts if all_on and name != all_on]
        for name in others:
            await objects.cordon(name, on=True)
        async with asyncio.TaskGroup() as group:
            for vm in self.vms.values():
                group.create_task(objects.virtual_machine(vm))
        await self.wait_until(self.all_up, timeout_s=BOOT_S)
        for name in others:
            await objects.cordon(name, on=False)

    async def stop(self) -> None:
        """End the emulation. Raises the first defect in it, if there was one."""
        self.faults.stop()
        try:
            await self.fleet.stop()
        finally:
            for task in (*self._tasks, *self._deletions):
                task.cancel()
            await asyncio.gather(*self._tasks, *self._deletions, return_exceptions=True)
            await self._bmc_server.stop()
            await self._connections.close()

    def all_up(self) -> bool:
        """Whether every guest is up and its VMI says Running."""
        return all(self.is_up(vm) for vm in self.vms)

    def is_up(self, vm: str) -> bool:
        """Whether this guest is up and its newest VMI says Running."""
        newest = self.instances.newest(vm)
        return newest is not None and newest.phase == "Running" and self.ledger.is_up(vm)

    def vms_on(self, node: str) -> list[str]:
        """Return the VMs that truly run on a node, by their ledger name."""
        return sorted(copy.vm for copy in self.ledger.running_on(node))

    async def wait_until(
        self, condition: Callable[[], bool], *, timeout_s: float, step_s: float = 0.1
    ) -> float:
        """Return the seconds it took until ``condition`` held. Raises TimeoutError."""
        began = self.clock.now()
        while not condition():
            if self.fleet.defect is not None:
                raise self.fleet.defect
            if self.clock.now() - began >= timeout_s:
                raise TimeoutError(f"not within {timeout_s:g} s")
            await asyncio.sleep(step_s)
        return self.clock.now() - began

    async def _revive(self) -> None:
        while True:
            self.plane.revive()
            await asyncio.sleep(REVIVE_S)

    def _delete_node(self, node: str) -> None:
        task = asyncio.get_running_loop().create_task(
            self.objects.ask("DELETE", f"{NODES_PATH}/{node}")
        )
        self._deletions.add(task)
        task.add_done_callback(self._deletions.discard)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fleet.failed(error)
