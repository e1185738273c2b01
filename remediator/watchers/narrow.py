"""Kubernetes objects to the facts that decisions read, and nothing more.

What is left out here can cause no event: a status heartbeat that changes no fact is not published.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
import structlog

from remediator.engine.model import (
    AttachmentFacts,
    ClaimFacts,
    MigrationFacts,
    MigrationLimitsFacts,
    NodeFacts,
    PodFacts,
    RunStrategy,
    VmFacts,
    VmiFacts,
    VolumeFacts,
)
from remediator.engine.pod_rules import HOSTNAME, PodNeeds
from remediator.kube.kubevirt import KubeVirt
from remediator.kube.objects import (
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    VirtualMachine,
    VirtualMachineInstance,
    VirtualMachineInstanceMigration,
    VolumeAttachment,
)
from remediator.kube.scheduling import beyond

log = structlog.get_logger(__name__)

ZONE = "topology.kubernetes.io/zone"
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_ETCD = "node-role.kubernetes.io/etcd"
_SCHEDULABLE = "kubevirt.io/schedulable"  # virt-handler writes it with every heartbeat
# KubeVirt goes back and forth between them with the kubelet; it is one trouble.
_SAME_STATUS = {"ErrImagePull": "ImagePullBackOff"}
_INCIDENT = "remediator.io/incident"  # on migrations that we made (actions.migrate)
_TEXT_LIMIT = 300  # of messages, which list what is wrong with each node

# Ours, and medik8s' exclude-from-remediation and its kin.
_KEPT_DOMAINS = ("remediator.io/", "remediation.medik8s.io/")

_OPENSHIFT_MACHINE = "machine.openshift.io/machine"  # "namespace/name"
_CAPI_MACHINE = "cluster.x-k8s.io/machine"  # only a name; the next one says where
_CAPI_NAMESPACE = "cluster.x-k8s.io/cluster-namespace"
_KEPT_KEYS = frozenset({_OPENSHIFT_MACHINE, _CAPI_MACHINE})


def kept(marks: Mapping[str, str], also: Collection[str] = ()) -> dict[str, str]:
    """Return the labels or annotations whose keys decisions read; ``also`` names further keys."""
    return {
        key: value
        for key, value in marks.items()
        if key.startswith(_KEPT_DOMAINS) or key in _KEPT_KEYS or key in also
    }


def node_facts(node: Node, label_keys: Collection[str] = ()) -> NodeFacts:
    """Narrow a Node, keeping the labels that policies select by (``label_keys``).

    Taints are sorted, so that a new order alone is no change.
    """
    labels, given = node.labels, node.allocatable
    return NodeFacts(
        name=node.name,
        uid=node.uid,
        boot_id=node.boot_id,
        system_uuid=node.system_uuid,
        zone=labels.get(ZONE, ""),
        ready=node.ready,
        unschedulable=node.unschedulable,
        control_plane=any(key in labels for key in _CONTROL_PLANE),
        etcd=_ETCD in labels,
        taints=tuple(sorted(str(taint) for taint in node.taints)),
        labels=kept(labels, label_keys),
        annotations=kept(node.annotations),
        kubevirt=_SCHEDULABLE in labels,
        # Anything but "true" keeps new VMs away: that is what their node selector asks for.
        schedulable=labels.get(_SCHEDULABLE, "true") == "true",
        address=node.internal_ip,
        kubelet_port=node.kubelet_port,
        machine=_machine(node.annotations),
        cpu_m=given.get("cpu", 0),
        memory=given.get("memory", 0),
        pods=given.get("pods", 0),
        extra=beyond(given),
    )


def _machine(annotations: Mapping[str, str]) -> str:
    """Return "namespace/name" of the Machine that a node was made from, "" where none is named."""
    openshift = annotations.get(_OPENSHIFT_MACHINE, "")
    if openshift:
        return openshift
    name, namespace = annotations.get(_CAPI_MACHINE, ""), annotations.get(_CAPI_NAMESPACE, "")
    return f"{namespace}/{name}" if name and namespace else ""


def vm_facts(vm: VirtualMachine, label_keys: Collection[str] = ()) -> VmFacts:
    """Narrow a VirtualMachine, keeping the labels that policies read (``label_keys``).

    A run strategy that we do not know is left alone, as Halted.
    """
    try:
        strategy = RunStrategy(vm.run_strategy)
    except ValueError:
        log.warning("run_strategy_unknown", vm=f"{vm.namespace}/{vm.name}", is_=vm.run_strategy)
        strategy = RunStrategy.HALTED
    return VmFacts(
        namespace=vm.namespace,
        name=vm.name,
        uid=vm.uid,
        run_strategy=strategy,
        labels=kept(vm.labels, label_keys),
        annotations=kept(vm.annotations),
        deleting=vm.deleting,
        status=_SAME_STATUS.get(vm.printable_status, vm.printable_status),
        requests=vm.requests,
    )


def vmi_facts(vmi: VirtualMachineInstance, *, agent_seen: bool = False) -> VmiFacts:
    """Narrow a VirtualMachineInstance; ``agent_seen``: its guest agent answered before.

    KubeVirt removes the condition when the agent falls silent, so a lost agent and one that was
    never there look alike to whoever has not seen it.
    """
    return VmiFacts(
        namespace=vmi.namespace,
        name=vmi.name,
        uid=vmi.uid,
        phase=vmi.phase,
        node=vmi.node_name,
        owned=bool(vmi.vm_name),
        ready=vmi.ready,
        not_ready_why=vmi.not_ready_why,
        agent_connected=vmi.agent_connected,
        agent_known=agent_seen or vmi.agent_known,
        probes_muted=vmi.probes_muted,
        paused=vmi.paused,
        live_migratable=vmi.live_migratable,
        not_migratable_why=vmi.not_migratable_why,
        claims=vmi.claims,
        ephemeral=vmi.ephemeral,
        migrating_to=vmi.migrating_to,
        evacuating_from=vmi.evacuating_from,
        deleting=vmi.deleting,
    )


def pod_facts(pod: Pod, label_keys: Collection[str] = ()) -> PodFacts:
    """Narrow a launcher pod, keeping the labels that some pod's affinity asks for."""
    told = {key: value for key in sorted(label_keys) if (value := pod.label(key)) is not None}
    return PodFacts(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        node=pod.node_name,
        vmi=pod.vmi_name,
        vmi_uid=pod.vmi_uid,
        phase=pod.phase,
        migration_target=pod.migration_target,
        gated=pod.gated,
        deleting=pod.deleting,
        grace_s=pod.deletion_grace_s,
        restarts=pod.restarts,
        waiting=pod.waiting,
        unschedulable=pod.unschedulable[:_TEXT_LIMIT],
        needs=_own_needs(pod),
        labels=told,
        group=pod.group,
        priority_class=pod.priority_class,
        priority=pod.priority,
    )


def _own_needs(pod: Pod) -> PodNeeds | None:
    """Return a pod's needs, without the host that one migration was sent to."""
    needs = pod.needs
    if needs is None or not pod.migration_target:
        return needs
    rules = needs.rules
    kept = tuple(pair for pair in rules.node_selector if pair[0] != HOSTNAME)
    if kept == rules.node_selector:
        return needs
    return msgspec.structs.replace(needs, rules=msgspec.structs.replace(rules, node_selector=kept))


def migration_facts(migration: VirtualMachineInstanceMigration) -> MigrationFacts:
    """Narrow a VirtualMachineInstanceMigration."""
    return MigrationFacts(
        namespace=migration.namespace,
        name=migration.name,
        uid=migration.uid,
        vmi=migration.vmi_name,
        phase=migration.phase,
        target=migration.target,
        ours=migration.labels.get(_INCIDENT, ""),
    )


def migration_limits(kubevirt: KubeVirt) -> MigrationLimitsFacts:
    """Narrow the KubeVirt object to its limits on live migrations."""
    said, default = kubevirt.migrations, MigrationLimitsFacts(namespace="", name="", uid="")
    bandwidth = said.bandwidth_per_migration
    at_once = said.parallel_migrations_per_cluster
    at_once_node = said.parallel_outbound_migrations_per_node
    return MigrationLimitsFacts(
        namespace=kubevirt.namespace,
        name=kubevirt.name,
        uid=kubevirt.uid,
        at_once=default.at_once if at_once is None else at_once,
        at_once_node=default.at_once_node if at_once_node is None else at_once_node,
        bandwidth="" if bandwidth in (None, 0, "0") else str(bandwidth),
        progress_s=float(said.progress_timeout or default.progress_s),
        copy_s_per_gib=float(said.completion_timeout_per_gi_b or default.copy_s_per_gib),
        post_copy=bool(said.allow_post_copy),
    )


def claim_facts(claim: PersistentVolumeClaim) -> ClaimFacts:
    """Narrow a PersistentVolumeClaim."""
    return ClaimFacts(
        namespace=claim.namespace,
        name=claim.name,
        uid=claim.uid,
        volume=claim.volume_name,
        access_modes=claim.access_modes,
        storage_class=claim.storage_class,
        replica_nodes=claim.replica_nodes,
    )


def volume_facts(volume: PersistentVolume) -> VolumeFacts:
    """Narrow a PersistentVolume."""
    return VolumeFacts(
        name=volume.name,
        uid=volume.uid,
        driver=volume.driver,
        access_modes=volume.access_modes,
        pinned_to=volume.pinned_to,
        handle=volume.volume_handle,
        source=volume.source,
        node_terms=volume.node_terms,
    )


def attachment_facts(attachment: VolumeAttachment) -> AttachmentFacts:
    """Narrow a VolumeAttachment."""
    return AttachmentFacts(
        name=attachment.name,
        uid=attachment.uid,
        node=attachment.node_name,
        volume=attachment.volume_name,
        attached=attachment.attached,
    )
