"""Puts nodes, storage and VMs into a real API server, as administrators and kubelets do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from remediator.kube.transport import Transport, TransportError
from remediator.sim.cluster_objects import (
    CSI_DRIVER,
    STORAGE_CLASS,
    claim_name,
    vm_object,
    volume_name,
)
from remediator.sim.cluster_spec import VmSpec
from remediator.sim.hosts.node_object import (
    HEARTBEAT_ANNOTATION,
    LEASES_PATH,
    NODES_PATH,
    SCHEDULABLE_LABEL,
    new_lease,
    new_node,
    node_status,
)
from remediator.sim.hosts.settings import HostSettings, HostSpec
from remediator.sim.hosts.wire import (
    JSON,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Obj,
    RefusedError,
    decode_obj,
    encode,
)
from remediator.sim.timestamps import rfc3339

_TIMEOUT_S = 30.0
_TRIES = 60  # half a second apart: a new resource is "(re)initializing" for some seconds
_AT_ONCE = 32


class RealObjects:
    """Creates objects through one admin's transport. Raises RefusedError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(
        self, method: str, path: str, body: Obj | None = None, *, content_type: str = JSON
    ) -> Obj:
        """Send one request; try again while the server is not ready for it."""
        for attempt in range(_TRIES):
            try:
                async with self._gate:
                    response = await self._transport.request(
                        method,
                        path,
                        body=None if body is None else encode(body),
                        content_type=None if body is None else content_type,
                        timeout_s=_TIMEOUT_S,
                    )
            except TransportError:
                if attempt == _TRIES - 1:
                    raise
            else:
                if response.status < 400:
                    return decode_obj(response.body)
                if response.status not in (429, 500, 503) or attempt == _TRIES - 1:
                    raise RefusedError(method, path, response)
            await asyncio.sleep(0.5)
        raise AssertionError("unreachable")

    async def namespaces(self, names: Iterable[str]) -> None:
        """Create namespaces and wait for their default service accounts."""
        for name in names:
            await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for name in names:
            path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            async with asyncio.timeout(_TIMEOUT_S):
                while True:
                    try:
                        await self.ask("GET", path)
                        break
                    except RefusedError as error:
                        if error.status != 404:
                            raise
                    await asyncio.sleep(0.2)

    async def storage(self) -> None:
        """Create the CSI driver and the class of all disks: shared, also for ReadWriteOnce."""
        await self.ask(
            "POST",
            "/apis/storage.k8s.io/v1/csidrivers",
            {"metadata": {"name": CSI_DRIVER}, "spec": {"attachRequired": True}},
        )
        await self.ask(
            "POST",
            "/apis/storage.k8s.io/v1/storageclasses",
            {
                "metadata": {"name": STORAGE_CLASS},
                "provisioner": CSI_DRIVER,
                "reclaimPolicy": "Retain",
                "volumeBindingMode": "Immediate",
            },
        )

    async def node(self, host: HostSpec, boot_id: str, settings: HostSettings, now: float) -> None:
        """Register a node that is ready, with its lease, CSI driver and heartbeat."""
        node = new_node(host)
        if not host.control_plane:
            node["metadata"]["labels"][SCHEDULABLE_LABEL] = "true"
            node["metadata"]["annotations"][HEARTBEAT_ANNOTATION] = rfc3339(now)
        made = await self.ask("POST", NODES_PATH, node)
        status = node_status(host, boot_id=boot_id, volumes_in_use=[], now=now)
        for part in ("capacity", "allocatable"):
            # Launchers ask for it; later reports of the emulated kubelet leave it as it is.
            status[part]["ephemeral-storage"] = "100Gi"
        await self.ask(
            "PATCH",
            f"{NODES_PATH}/{host.name}/status",
            {"status": status},
            content_type=STRATEGIC_PATCH,
        )
        lease = new_lease(host, settings, node_uid=made["metadata"]["uid"], now=now)
        await self.ask("POST", LEASES_PATH, lease)
        await self.ask(
            "POST",
            "/apis/storage.k8s.io/v1/csinodes",
            {
                "metadata": {"name": host.name},
                "spec": {
                    "drivers": [{"name": CSI_DRIVER, "nodeID": host.name, "topologyKeys": []}]
                },
            },
        )

    async def cordon(self, node: str, *, on: bool) -> None:
        """Set the unschedulable mark."""
        body = {"spec": {"unschedulable": on}}
        await self.ask("PATCH", f"{NODES_PATH}/{node}", body, content_type=MERGE_PATCH)

    async def virtual_machine(self, vm: VmSpec) -> Obj:
        """Create a VM and its disk; return the VM."""
        if vm.access_mode:
            await self._disk(vm)
        obj = vm_object(vm)
        obj["apiVersion"], obj["kind"] = "kubevirt.io/v1", "VirtualMachine"
        devices = obj["spec"]["template"]["spec"]["domain"]["devices"]
        # Without interfaces its launcher asks for no tun or vhost device, which no host here has.
        devices["autoattachPodInterface"] = False
        path = f"/apis/kubevirt.io/v1/namespaces/{vm.namespace}/virtualmachines"
        return await self.ask("POST", path, obj)

    async def _disk(self, vm: VmSpec) -> None:
        capacity = {"storage": "30Gi"}
        claim = {"namespace": vm.namespace, "name": claim_name(vm)}
        common = {"accessModes": [vm.access_mode], "volumeMode": "Block"}
        common["storageClassName"] = STORAGE_CLASS
        await self.ask(
            "POST",
            "/api/v1/persistentvolumes",
            {
                "metadata": {"name": volume_name(vm)},
                "spec": {
                    **common,
                    "capacity": capacity,
                    "persistentVolumeReclaimPolicy": "Retain",
                    "csi": {"driver": CSI_DRIVER, "volumeHandle": f"vol-{volume_name(vm)}"},
                    "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **claim},
                },
            },
        )
        await self.ask(
            "POST",
            f"/api/v1/namespaces/{vm.namespace}/persistentvolumeclaims",
            {
                "metadata": claim,
                "spec": {
                    **common,
                    "volumeName": volume_name(vm),
                    "resources": {"requests": capacity},
                },
            },
        )
