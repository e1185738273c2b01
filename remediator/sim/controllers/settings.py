"""Every timing of the simulated control plane, each with the component it was read from.

Sources: "k8s" is kubernetes/kubernetes 1.36, "kv" kubevirt/kubevirt of 2026-08, "lab" what was seen
on a real control plane (12 nodes, 60 VMs) and no source states.
"""

from __future__ import annotations

import msgspec

Range = tuple[float, float]
"""A delay drawn uniformly between two bounds, in seconds."""


class ControlPlaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Timings of all controllers, in seconds; the defaults are those of a stock cluster."""

    # kube-controller-manager: node lifecycle
    node_monitor_period_s: float = 5.0
    """k8s --node-monitor-period."""
    node_monitor_grace_s: float = 50.0
    """k8s --node-monitor-grace-period: 50 s since 1.32, 40 s before."""
    node_startup_grace_s: float = 60.0
    """k8s --node-startup-grace-period: for a node that never reported."""
    unhealthy_zone_threshold: float = 0.55
    """k8s --unhealthy-zone-threshold: from this share of a zone on, evictions slow down or stop."""
    large_cluster_nodes: int = 50
    """k8s --large-cluster-size-threshold: a broken zone of at most so many nodes evicts nothing."""
    eviction_rate_per_s: float = 0.1
    """k8s --node-eviction-rate: NoExecute taints per second in a healthy zone."""
    secondary_eviction_rate_per_s: float = 0.01
    """k8s --secondary-node-eviction-rate: the same in a broken large zone."""

    # kube-controller-manager: pod garbage collection (the default tolerations of 300 s are
    # the API server's admission: sim.strategies)
    pod_gc_period_s: float = 20.0
    """k8s podgc gcCheckPeriod."""
    orphan_quarantine_s: float = 40.0
    """k8s podgc quarantineTime: between noticing a missing node and removing its pods."""

    # kube-controller-manager: attach-detach, and the CSI external-attacher
    force_detach_after_s: float = 360.0
    """k8s ReconcilerMaxWaitForUnmountDuration: a volume still in use on a sick node."""
    attach_verify_period_s: float = 60.0
    """k8s --attach-detach-reconcile-sync-period: notices attachments deleted by hand."""
    attach_s: Range = (0.2, 0.8)
    """lab: ControllerPublish of a network disk, from VolumeAttachment to attached."""
    detach_s: Range = (0.2, 0.8)
    """lab: ControllerUnpublish, from deletion of the VolumeAttachment to its end."""

    # kube-scheduler
    bind_s: Range = (0.02, 0.25)
    """lab: a new pod is bound in less than 0.3 s."""
    scheduling_retry_s: Range = (1.0, 10.0)
    """k8s --pod-initial-backoff-seconds, --pod-max-backoff-seconds: per pod, doubling."""

    # virt-controller
    vmi_latency_s: Range = (0.005, 0.04)
    """lab: pod object gone to VMI Failed in less than 50 ms."""
    vm_latency_s: Range = (0.03, 0.2)
    """lab: VMI Failed to a new VMI in 60 to 600 ms; two or three of these make it."""
    migration_latency_s: Range = (0.01, 0.08)
    """lab: source pod gone to migration Failed in 0.1 s."""
    heartbeat_timeout_s: float = 300.0
    """kv virt-controller node controller: heartbeat older than 5 min is unresponsive."""
    heartbeat_recheck_s: float = 60.0
    """kv virt-controller node controller: recheckInterval 1 min."""
    start_backoff_base_s: float = 10.0
    """kv vm.go: start failure n waits 10 s * n², up to half of that more."""
    start_backoff_cap_s: float = 300.0
    """kv defaultMaxCrashLoopBackoffDelaySeconds."""
    vmi_grace_s: int = 30
    """kv default terminationGracePeriodSeconds of a VMI."""
    launcher_extra_grace_s: int = 30
    """kv: the launcher pod gets 15 s + 15 s on top of the VMI's grace."""
    parallel_migrations_per_cluster: int = 5
    """kv parallelMigrationsPerCluster."""
    parallel_outbound_per_node: int = 2
    """kv parallelOutboundMigrationsPerNode."""
    target_unschedulable_timeout_s: float = 300.0
    """kv: an unschedulable migration target is deleted after 5 min."""
    target_pending_timeout_s: float = 900.0
    """kv: any pending migration target is deleted after 15 min."""
    launcher_overhead_mib: int = 256
    """kv: memory that a launcher pod asks for beyond the guest's (order of magnitude)."""

    # every controller
    controller_latency_s: Range = (0.002, 0.02)
    """lab: a controller without a slower documented delay acts in some milliseconds."""
    retry_s: Range = (0.005, 10.0)
    """client-go default rate limiter: 5 ms doubling; its cap of 1000 s is cut to 10 s."""
    leader_renew_deadline_s: float = 10.0
    """k8s and kv leader election: a controller that cannot reach the API server for this long
    exits and starts again with an empty memory."""
