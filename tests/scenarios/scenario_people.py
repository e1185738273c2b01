"""Verbs of a story about people: operators, owners of VMs, other remediators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.objects import (
    MEDIK8S_LEASES,
    NODES,
    VIRTUAL_MACHINES,
    virtual_machine_action,
)
from remediator.sim.cluster import SimCluster
from remediator.sim.timestamps import rfc3339_micro


class PeopleVerbs:
    """The verbs ``do_…`` of people."""

    cluster: SimCluster
    _operator: KubeClient
    note: Callable[[str], None]

    async def do_label_node(self, node: str, key: str, value: str | None) -> None:
        self.note(f"label node {node} {key}={value}" if value else f"unlabel node {node} {key}")
        await self._patch(NODES.object_path(node), {"metadata": {"labels": {key: value}}})

    async def do_annotate_node(self, node: str, key: str, value: str | None) -> None:
        said = f"{key}={value}" if value is not None else f"{key}-"
        self.note(f"annotate node {node} {said}")
        await self._patch(NODES.object_path(node), {"metadata": {"annotations": {key: value}}})

    async def do_node_lease(self, node: str, holder: str, duration_s: int) -> None:
        self.note(f"medik8s lease of {node} taken by {holder} for {duration_s} s")
        now = rfc3339_micro(self.cluster.clock.now())
        await self._operator.create(
            MEDIK8S_LEASES.collection("medik8s-leases"),
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": f"node-{node}", "namespace": "medik8s-leases"},
                "spec": {
                    "holderIdentity": holder,
                    "leaseDurationSeconds": duration_s,
                    "acquireTime": now,
                    "renewTime": now,
                },
            },
        )

    async def do_delete_node_lease(self, node: str) -> None:
        self.note(f"medik8s lease of {node} given up")
        await self._operator.delete(MEDIK8S_LEASES.object_path(f"node-{node}", "medik8s-leases"))

    async def do_delete_vm(self, vm: str) -> None:
        self.note(f"owner deletes vm/{vm}")
        namespace, name = vm.split("/")
        await self._operator.delete(VIRTUAL_MACHINES.object_path(name, namespace))

    async def do_stop_vm(self, vm: str) -> None:
        self.note(f"owner stops vm/{vm}")
        await self._operator.replace(virtual_machine_action(*vm.split("/"), "stop"), {})

    async def do_label_vm(self, vm: str, key: str, value: str | None) -> None:
        self.note(
            f"owner labels vm/{vm} {key}={value}" if value else f"owner unlabels vm/{vm} {key}"
        )
        namespace, name = vm.split("/")
        path = VIRTUAL_MACHINES.object_path(name, namespace)
        await self._patch(path, {"metadata": {"labels": {key: value}}})

    async def do_annotate_vm(self, vm: str, key: str, value: str | None) -> None:
        said = f"{key}={value}" if value is not None else f"{key}-"
        self.note(f"owner annotates vm/{vm} {said}")
        namespace, name = vm.split("/")
        path = VIRTUAL_MACHINES.object_path(name, namespace)
        await self._patch(path, {"metadata": {"annotations": {key: value}}})

    async def do_start_vm(self, vm: str) -> None:
        self.note(f"owner starts vm/{vm}")
        await self._operator.replace(virtual_machine_action(*vm.split("/"), "start"), {})

    async def do_migrate_vm(self, vm: str, to: str) -> None:
        self.note(f"vm/{vm} begins to migrate to {to}")
        body = {"addedNodeSelector": {"kubernetes.io/hostname": to}}
        await self._operator.replace(virtual_machine_action(*vm.split("/"), "migrate"), body)

    async def do_cordon_by_hand(self, node: str) -> None:
        self.note(f"somebody cordons {node}")
        await self._patch(NODES.object_path(node), {"spec": {"unschedulable": True}})

    async def do_uncordon_by_hand(self, node: str) -> None:
        self.note(f"somebody uncordons {node}")
        await self._patch(NODES.object_path(node), {"spec": {"unschedulable": None}})

    async def _patch(self, path: str, patch: dict[str, Any]) -> None:
        await self._operator.patch(path, patch, kind=PatchKind.MERGE)
