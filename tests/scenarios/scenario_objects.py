"""Verbs of a story about objects: custom kinds that are installed, made, changed and deleted.

Whoever does it (an operator, another controller) is not the daemon: none of it counts as its deed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remediator.kube.client import KubeClient, PatchKind
from remediator.sim.cluster import SimCluster
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.resources import NAMESPACES, PODS, ResourceType
from remediator.sim.timestamps import rfc3339

NOW = "<now>"  # in a manifest: the time at which the verb acts

# kind -> group/version, plural, namespaced. "Longhorn" stands before kinds whose names are taken.
KINDS = {
    "NodeMaintenance": ("nodemaintenance.medik8s.io/v1beta1", "nodemaintenances", False),
    "NodeHealthCheck": ("remediation.medik8s.io/v1alpha1", "nodehealthchecks", False),
    "SelfNodeRemediation": (
        "self-node-remediation.medik8s.io/v1alpha1",
        "selfnoderemediations",
        True,
    ),
    "FenceAgentsRemediation": (
        "fence-agents-remediation.medik8s.io/v1alpha1",
        "fenceagentsremediations",
        True,
    ),
    "Machine": ("machine.openshift.io/v1beta1", "machines", True),
    "MachineHealthCheck": ("machine.openshift.io/v1beta1", "machinehealthchecks", True),
    "BareMetalHost": ("metal3.io/v1alpha1", "baremetalhosts", True),
    "KubeVirt": ("kubevirt.io/v1", "kubevirts", True),
    "ClusterVersion": ("config.openshift.io/v1", "clusterversions", False),
    "LonghornNode": ("longhorn.io/v1beta2", "nodes", True),
    "LonghornReplica": ("longhorn.io/v1beta2", "replicas", True),
    "LonghornEngine": ("longhorn.io/v1beta2", "engines", True),
    "Resources": ("internal.linstor.linbit.com/v1-27-1", "resources", False),
    "StorageNode": ("core.libopenstorage.org/v1", "storagenodes", True),
    "CSIAddonsNode": ("csiaddons.openshift.io/v1alpha1", "csiaddonsnodes", True),
}
_PREFIX = "Longhorn"
FOREIGN = "backup.example.com/hold"


class ObjectVerbs:
    """The verbs ``do_…`` about objects of any kind that the cluster serves."""

    cluster: SimCluster
    _operator: KubeClient
    note: Callable[[str], None]

    def install(self, kind: str) -> None:
        group_version, plural, namespaced = KINDS[kind]
        group, version = group_version.split("/")
        CustomKinds(self.cluster.server).install(
            ResourceType(
                group,
                version,
                plural,
                kind.removeprefix(_PREFIX),
                namespaced,
                status_subresource=True,
            )
        )

    def do_install_crd(self, kind: str) -> None:
        self.note(f"the CRD of {kind} is installed")
        self.install(kind)

    async def do_create(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        spec: dict[str, Any] | None = None,
        status: dict[str, Any] | None = None,
        **metadata: Any,
    ) -> None:
        """Create an object, its status with it; further arguments are metadata."""
        resource = self._kind(kind)
        where = f"{namespace}/{name}" if namespace else name
        self.note(f"{kind} {where} appears{_said(status or {})}")
        meta = {"name": name, **metadata, **({"namespace": namespace} if namespace else {})}
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": meta,
            "spec": spec or {},
        }
        if namespace and self.cluster.store.find(NAMESPACES, "", namespace) is None:
            self.cluster.store.create(
                NAMESPACES,
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            )
        await self._operator.create(resource.path(namespace), self._timed(body))
        if status:
            await self._set_status(resource, namespace, name, status)

    async def do_status(
        self, kind: str, name: str, status: dict[str, Any], namespace: str = ""
    ) -> None:
        resource = self._kind(kind)
        where = f"{namespace}/{name}" if namespace else name
        self.note(f"{kind} {where}{_said(status)}")
        await self._set_status(resource, namespace, name, status)

    async def do_change(
        self, kind: str, name: str, patch: dict[str, Any], namespace: str = ""
    ) -> None:
        """Merge-patch an object: its metadata or its specification."""
        resource = self._kind(kind)
        self.note(f"{kind} {f'{namespace}/{name}' if namespace else name} is changed: {patch}")
        await self._operator.patch(
            resource.path(namespace, name), self._timed(patch), kind=PatchKind.MERGE
        )

    async def do_delete_object(self, kind: str, name: str, namespace: str = "") -> None:
        self.note(f"{kind} {f'{namespace}/{name}' if namespace else name} is deleted")
        await self._operator.delete(self._kind(kind).path(namespace, name))

    def do_hold_launcher(self, vm: str) -> None:
        """Put somebody's finalizer on a VM's launcher pod."""
        self.note(f"a finalizer of a backup tool is put on the launcher pod of vm/{vm}")
        self._on_launchers(vm, lambda meta: meta.setdefault("finalizers", []).append(FOREIGN))

    def do_release_launcher(self, vm: str) -> None:
        self.note(f"the backup tool takes its finalizer off the launcher pod of vm/{vm}")
        self._on_launchers(vm, lambda meta: meta.pop("finalizers", None))

    def _on_launchers(self, vm: str, change: Callable[[dict[str, Any]], object]) -> None:
        namespace, name = vm.split("/")
        for pod in self.cluster.store.list(PODS, namespace):
            meta = pod["metadata"]
            if meta["name"].startswith(f"virt-launcher-{name}-"):
                self.cluster.store.mutate(
                    PODS, namespace, meta["name"], lambda pod: change(pod["metadata"])
                )

    async def _set_status(
        self, resource: ResourceType, namespace: str, name: str, status: dict[str, Any]
    ) -> None:
        subresource = "status" if resource.status_subresource else ""
        path = resource.path(namespace, name, subresource)
        await self._operator.patch(path, {"status": self._timed(status)}, kind=PatchKind.MERGE)

    def _timed(self, value: Any) -> Any:
        """Put the present time where a manifest asks for it."""
        if isinstance(value, dict):
            return {key: self._timed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._timed(each) for each in value]
        return rfc3339(self.cluster.clock.now()) if value == NOW else value

    def _kind(self, kind: str) -> ResourceType:
        group_version = KINDS[kind][0] if kind in KINDS else ""
        name = kind.removeprefix(_PREFIX)
        for resource in self.cluster.registry:
            if resource.kind == name and group_version in ("", resource.api_version):
                return resource
        raise ValueError(f"the cluster does not serve {kind}")


def _said(status: dict[str, Any]) -> str:
    """Return what a status says, in as few words as an operator would use."""
    conditions = status.get("conditions", ())
    if isinstance(conditions, dict):  # Longhorn's
        conditions = conditions.values()
    parts = [f"{each['type']}={each['status']}" for each in conditions]
    parts += [f"{key} {value}" for key, value in status.items() if isinstance(value, (str, bool))]
    return f": {', '.join(parts)}" if parts else ""
