"""The custom resources that we look at where they are installed."""

from __future__ import annotations

from typing import Any

from remediator.kube.custom_watch import CustomResource
from remediator.kube.kubevirt import KubeVirt
from remediator.kube.machine_api import (
    CLUSTER_API,
    OPENSHIFT,
    BareMetalHost,
    Machine,
    MachineHealthCheck,
)
from remediator.kube.remediations import (
    ClusterVersion,
    NodeHealthCheck,
    NodeMaintenance,
    Remediation,
)
from remediator.kube.storage_objects import (
    CsiAddonsNode,
    LinstorResource,
    LonghornEngine,
    LonghornNode,
    LonghornReplica,
    StorageNode,
)

_LONGHORN = "longhorn.io"
_LONGHORN_VERSIONS = ("v1beta2", "v1beta1")

OPENSHIFT_MACHINES = CustomResource(
    group=OPENSHIFT, plural="machines", item=Machine, namespaced=True, known=("v1beta1",)
)
CAPI_MACHINES = CustomResource(
    group=CLUSTER_API,
    plural="machines",
    item=Machine,
    namespaced=True,
    known=("v1beta2", "v1beta1"),
)
OPENSHIFT_HEALTH_CHECKS = CustomResource(
    group=OPENSHIFT,
    plural="machinehealthchecks",
    item=MachineHealthCheck,
    namespaced=True,
    known=("v1beta1",),
)
CAPI_HEALTH_CHECKS = CustomResource(
    group=CLUSTER_API,
    plural="machinehealthchecks",
    item=MachineHealthCheck,
    namespaced=True,
    known=("v1beta2", "v1beta1"),
)
BARE_METAL_HOSTS = CustomResource(
    group="metal3.io",
    plural="baremetalhosts",
    item=BareMetalHost,
    namespaced=True,
    known=("v1alpha1",),
)
NODE_HEALTH_CHECKS = CustomResource(
    group="remediation.medik8s.io",
    plural="nodehealthchecks",
    item=NodeHealthCheck,
    namespaced=False,
    known=("v1alpha1",),
)


def _remediation(group: str, plural: str, *known: str) -> CustomResource[Remediation]:
    return CustomResource(
        group=group, plural=plural, item=Remediation, namespaced=True, known=known
    )


SELF_NODE_REMEDIATIONS = _remediation(
    "self-node-remediation.medik8s.io", "selfnoderemediations", "v1alpha1"
)
FENCE_AGENTS_REMEDIATIONS = _remediation(
    "fence-agents-remediation.medik8s.io", "fenceagentsremediations", "v1alpha1"
)
MACHINE_DELETION_REMEDIATIONS = _remediation(
    "machine-deletion-remediation.medik8s.io", "machinedeletionremediations", "v1alpha1"
)
METAL3_REMEDIATIONS = _remediation(
    "infrastructure.cluster.x-k8s.io", "metal3remediations", "v1beta2", "v1beta1"
)

NODE_MAINTENANCES = CustomResource(
    group="nodemaintenance.medik8s.io",
    plural="nodemaintenances",
    item=NodeMaintenance,
    namespaced=False,
    known=("v1beta1",),
)
# The same operator before it moved from KubeVirt to medik8s.
KUBEVIRT_NODE_MAINTENANCES = CustomResource(
    group="nodemaintenance.kubevirt.io",
    plural="nodemaintenances",
    item=NodeMaintenance,
    namespaced=False,
    known=("v1beta1",),
)
CLUSTER_VERSIONS = CustomResource(
    group="config.openshift.io",
    plural="clusterversions",
    item=ClusterVersion,
    namespaced=False,
    known=("v1",),
)

LONGHORN_NODES = CustomResource(
    group=_LONGHORN,
    plural="nodes",
    item=LonghornNode,
    namespaced=True,
    known=_LONGHORN_VERSIONS,
)
LONGHORN_REPLICAS = CustomResource(
    group=_LONGHORN,
    plural="replicas",
    item=LonghornReplica,
    namespaced=True,
    known=_LONGHORN_VERSIONS,
)
LONGHORN_ENGINES = CustomResource(
    group=_LONGHORN,
    plural="engines",
    item=LonghornEngine,
    namespaced=True,
    known=_LONGHORN_VERSIONS,
)
# LINSTOR's own tables, where its controller keeps them in the cluster (Piraeus does). Each release
# names a new version; the columns that are read here are in all of them.
LINSTOR_RESOURCES = CustomResource(
    group="internal.linstor.linbit.com",
    plural="resources",
    item=LinstorResource,
    namespaced=False,
    known=("v1-31-1", "v1-27-1", "v1-25-1", "v1-17-0", "v1-15-0"),
)
STORAGE_NODES = CustomResource(
    group="core.libopenstorage.org",
    plural="storagenodes",
    item=StorageNode,
    namespaced=True,
    known=("v1", "v1alpha1"),
)
CSI_ADDONS_NODES = CustomResource(
    group="csiaddons.openshift.io",
    plural="csiaddonsnodes",
    item=CsiAddonsNode,
    namespaced=True,
    known=("v1alpha1",),
)
KUBEVIRTS = CustomResource(
    group="kubevirt.io", plural="kubevirts", item=KubeVirt, namespaced=True, known=("v1",)
)

CUSTOM_RESOURCES: tuple[CustomResource[Any], ...] = (
    OPENSHIFT_MACHINES,
    CAPI_MACHINES,
    OPENSHIFT_HEALTH_CHECKS,
    CAPI_HEALTH_CHECKS,
    BARE_METAL_HOSTS,
    NODE_HEALTH_CHECKS,
    SELF_NODE_REMEDIATIONS,
    FENCE_AGENTS_REMEDIATIONS,
    MACHINE_DELETION_REMEDIATIONS,
    METAL3_REMEDIATIONS,
    NODE_MAINTENANCES,
    KUBEVIRT_NODE_MAINTENANCES,
    CLUSTER_VERSIONS,
    LONGHORN_NODES,
    LONGHORN_REPLICAS,
    LONGHORN_ENGINES,
    LINSTOR_RESOURCES,
    STORAGE_NODES,
    CSI_ADDONS_NODES,
    KUBEVIRTS,
)
