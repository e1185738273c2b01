"""Timings of emulated hosts, each with its source.

"k8s" is kubernetes/kubernetes, "kv" kubevirt/kubevirt, "lab" is facts/lab.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Range = tuple[float, float]
"""A duration drawn uniformly between two bounds, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """How fast hosts are. All in seconds."""

    lease_period_s: float = 10.0
    """k8s kubelet: nodeLeaseDurationSeconds 40 s times 0.25."""
    lease_jitter: float = 0.04
    """k8s component-helpers lease controller: JitterUntil factor 0.04."""
    lease_duration_s: int = 40
    """k8s kubelet: nodeLeaseDurationSeconds."""
    lease_lost_share: float = 0.0
    """Of the renewals: so many are never sent. A real kubelet loses none in peace."""
    lease_tries: int = 5
    """k8s lease controller: maxUpdateRetries, one after the other."""
    status_check_s: float = 10.0
    """k8s kubelet: nodeStatusUpdateFrequency; a change is reported within this time."""
    status_report_s: float = 300.0
    """k8s kubelet: nodeStatusReportFrequency; without any change it is reported this often."""
    heartbeat_s: float = 60.0
    """kv virt-handler: heartbeat period before jitter."""
    heartbeat_jitter: float = 1.2
    """kv virt-handler: JitterUntil factor, so 60 to 132 s."""
    request_timeout_s: float = 10.0
    """k8s kubelet: timeout of the heartbeat client, one lease period."""
    retry_s: Range = (0.5, 2.0)
    """Before a failed status write is tried again (client-go backoff, shortened to its usual)."""
    reconnect_s: Range = (0.2, 1.0)
    """From the end of a partition to a working watch (client-go reflector backoff 0.8 s)."""
    pod_start_s: Range = (1.0, 2.5)
    """lab section 10: from bound and attached to containers running."""
    container_exit_s: float = 0.3
    """From the end of the main process to the kubelet's report (PLEG event, then status)."""
    grace_min_s: float = 1.0
    """k8s kubelet, lab section 2: also a pod deleted with grace 0 is killed with 1 s grace."""
    domain_start_s: Range = (0.8, 1.2)
    """lab section 10: from a Scheduled VMI to a running domain."""
    launcher_silent_s: float = 180.0
    """kv virt-handler: a Scheduled VMI whose launcher is silent for 3 min is Failed."""
    guest_shutdown_s: Range = (4.0, 6.0)
    """lab section 2: an orderly shutdown of a guest; it writes until its end."""
    os_boot_s: float = 30.0
    """From power on to running kubelet; real servers take minutes, scenarios set their own."""
    handler_start_s: float = 1.0
    """From the kubelet's start to virt-handler running; with it a reboot of 5 s has its VMs Running
    at 9 to 10 s (lab section 7)."""
    handler_ready_s: float = 15.0
    """kv virt-handler's readiness probe: initialDelaySeconds 15."""
    migration_prepare_s: Range = (0.5, 1.0)
    """lab section 5: source and target virt-handlers agree on the way."""
    migration_copy_s: Range = (2.0, 5.0)
    """Copying memory; depends on the guest, here simply drawn."""
    os_shutdown_max_s: float = 60.0
    """A graceful OS shutdown cuts the power by then, whatever guests do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """One host's hardware and place."""

    name: str
    system_uuid: str
    serial: str = ""
    address: str = "10.0.0.1"
    kubelet_port: int = 10250
    zone: str = ""
    control_plane: bool = False
    cpus: int = 32
    memory_mib: int = 131_072
    pods_max: int = 250
    labels: dict[str, str] = field(default_factory=dict)
