"""Kinds that the simulated API server knows, with the traits in which their strategies differ.

The traits are those of each kind's REST strategy in kubernetes/kubernetes ``pkg/registry`` and of
KubeVirt's CustomResourceDefinitions. Further kinds (Machine, BareMetalHost, remediation CRs…) are
registered at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

Convert = Callable[[dict[str, Any]], dict[str, Any]]


class ResourceType(msgspec.Struct, frozen=True, cache_hash=True):
    """One kind under one path, and how the server treats it.

    ``status_subresource``: PUT and PATCH of the object itself leave ``status`` alone.
    ``custom``: served from a CustomResourceDefinition: no strategic merge patch, an update must
    carry a resourceVersion, ``metadata.generation`` is kept.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status_subresource: bool = False
    custom: bool = True
    generation: bool = True  # metadata.generation counts changes of the specification
    unconditional_update: bool = False  # PUT without a resourceVersion is accepted
    create_on_update: bool = False  # PUT of an absent object creates it
    returns_deleted: bool = False  # DELETE answers with the object rather than a Status
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """``v1`` or ``GROUP/VERSION``: the object's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """``nodes`` or ``PLURAL.GROUP``: the name used in error messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the request path of the collection, of one object, or of its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts.extend(part for part in (name, subresource) if part)
        return "/".join(parts)


def _built_in(
    group: str,
    plural: str,
    kind: str,
    *,
    namespaced: bool,
    status: bool = False,
    generation: bool = False,
    unconditional_update: bool = True,
    create_on_update: bool = False,
    returns_deleted: bool = False,
    short_names: tuple[str, ...] = (),
) -> ResourceType:
    return ResourceType(
        group,
        "v1",
        plural,
        kind,
        namespaced,
        status,
        custom=False,
        generation=generation,
        unconditional_update=unconditional_update,
        create_on_update=create_on_update,
        returns_deleted=returns_deleted,
        short_names=short_names,
    )


NODES = _built_in("", "nodes", "Node", namespaced=False, status=True, short_names=("no",))
PODS = _built_in(
    "",
    "pods",
    "Pod",
    namespaced=True,
    status=True,
    generation=True,  # since 1.33 (PodObservedGenerationTracking)
    returns_deleted=True,
    short_names=("po",),
)
NAMESPACES = _built_in(
    "", "namespaces", "Namespace", namespaced=False, status=True, short_names=("ns",)
)
EVENTS = _built_in(
    "", "events", "Event", namespaced=True, create_on_update=True, short_names=("ev",)
)
PERSISTENT_VOLUMES = _built_in(
    "",
    "persistentvolumes",
    "PersistentVolume",
    namespaced=False,
    status=True,
    returns_deleted=True,
    short_names=("pv",),
)
PERSISTENT_VOLUME_CLAIMS = _built_in(
    "",
    "persistentvolumeclaims",
    "PersistentVolumeClaim",
    namespaced=True,
    status=True,
    returns_deleted=True,
    short_names=("pvc",),
)
SECRETS = _built_in("", "secrets", "Secret", namespaced=True)
CONFIG_MAPS = _built_in("", "configmaps", "ConfigMap", namespaced=True, short_names=("cm",))
LEASES = _built_in(
    "coordination.k8s.io",
    "leases",
    "Lease",
    namespaced=True,
    unconditional_update=False,
    create_on_update=True,
)
VOLUME_ATTACHMENTS = _built_in(
    "storage.k8s.io",
    "volumeattachments",
    "VolumeAttachment",
    namespaced=False,
    status=True,
    unconditional_update=False,
    returns_deleted=True,
)
STORAGE_CLASSES = _built_in(
    "storage.k8s.io",
    "storageclasses",
    "StorageClass",
    namespaced=False,
    returns_deleted=True,
    short_names=("sc",),
)
POD_DISRUPTION_BUDGETS = _built_in(
    "policy",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
    namespaced=True,
    status=True,
    generation=True,
    unconditional_update=False,
    short_names=("pdb",),
)
DAEMON_SETS = _built_in(
    "apps",
    "daemonsets",
    "DaemonSet",
    namespaced=True,
    status=True,
    generation=True,
    short_names=("ds",),
)
MUTATING_WEBHOOK_CONFIGURATIONS = _built_in(
    "admissionregistration.k8s.io",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
    generation=True,
    unconditional_update=False,
)
VIRTUAL_MACHINES = ResourceType(
    "kubevirt.io",
    "v1",
    "virtualmachines",
    "VirtualMachine",
    namespaced=True,
    status_subresource=True,
    short_names=("vm", "vms"),
)
# A VMI has no status subresource: anybody who may update it may write its status, and every such
# write counts in metadata.generation.
VIRTUAL_MACHINE_INSTANCES = ResourceType(
    "kubevirt.io",
    "v1",
    "virtualmachineinstances",
    "VirtualMachineInstance",
    namespaced=True,
    status_subresource=False,
    short_names=("vmi", "vmis"),
)
VIRTUAL_MACHINE_INSTANCE_MIGRATIONS = ResourceType(
    "kubevirt.io",
    "v1",
    "virtualmachineinstancemigrations",
    "VirtualMachineInstanceMigration",
    namespaced=True,
    status_subresource=True,
    short_names=("vmim", "vmims"),
)
VIRTUAL_MACHINE_SNAPSHOTS = ResourceType(
    "snapshot.kubevirt.io",
    "v1beta1",
    "virtualmachinesnapshots",
    "VirtualMachineSnapshot",
    namespaced=True,
    status_subresource=True,
    short_names=("vmsnapshot", "vmsnapshots"),
)

BUILT_IN: tuple[ResourceType, ...] = (
    NODES,
    PODS,
    NAMESPACES,
    EVENTS,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    CONFIG_MAPS,
    LEASES,
    VOLUME_ATTACHMENTS,
    STORAGE_CLASSES,
    POD_DISRUPTION_BUDGETS,
    DAEMON_SETS,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    VIRTUAL_MACHINES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_SNAPSHOTS,
)


class Registry:
    """The kinds that one server serves; starts with ``BUILT_IN``.

    A kind may be served in further versions than the one it is stored in (``alias``).
    """

    def __init__(self, types: Iterable[ResourceType] = BUILT_IN) -> None:
        self._by_path: dict[tuple[str, str, str], ResourceType] = {}
        self._converted: dict[tuple[str, str, str], Convert] = {}
        for res in types:
            self.register(res)

    def register(self, res: ResourceType) -> None:
        """Serve one more kind. Raises ValueError when its path is taken by another."""
        key = (res.group, res.version, res.plural)
        if self._by_path.setdefault(key, res) != res:
            raise ValueError(f"{res.group_resource} is registered with other traits")

    def alias(self, res: ResourceType, version: str, convert: Convert) -> None:
        """Serve a stored kind in another version, too: ``convert`` makes it of the stored one."""
        key = (res.group, version, res.plural)
        self._by_path[key] = res
        self._converted[key] = convert

    def unregister(self, group: str, version: str, plural: str) -> None:
        """Serve a kind no longer under this version."""
        self._by_path.pop((group, version, plural), None)
        self._converted.pop((group, version, plural), None)

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        """Return the kind served under this path, None when there is none."""
        return self._by_path.get((group, version, plural))

    def conversion(self, group: str, version: str, plural: str) -> Convert | None:
        """Return how objects are converted for this path, None where they are as stored."""
        return self._converted.get((group, version, plural))

    def versions(self, group: str, plural: str) -> list[str]:
        """Return the versions that a kind is served in."""
        return [v for (g, v, p) in self._by_path if (g, p) == (group, plural)]

    def __iter__(self) -> Iterator[ResourceType]:
        """Iterate over every kind, once per served version, in the order of registration."""
        for (_, version, _), res in self._by_path.items():
            same = version == res.version
            yield res if same else msgspec.structs.replace(res, version=version)
