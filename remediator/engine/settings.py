"""What the engine may be told from outside: detection, budgets, pace; each default's source."""

from __future__ import annotations

from remediator.engine.model import ProofKind, Record


class ConditionRule(Record, frozen=True, kw_only=True):
    """A node condition, besides Ready, that makes its node Degraded while the lease is renewed."""

    type: str  # "KernelDeadlock", as node-problem-detector and others write it
    bad: str = "True"  # the status that is bad
    hold_s: float = 60.0  # how long it must have stood


# node-problem-detector's permanent conditions, the kubelet's own pressures that hurt VMs, the cloud
# provider's NetworkUnavailable, and medik8s Storage Based Remediation's.
CONDITIONS: tuple[ConditionRule, ...] = (
    ConditionRule(type="KernelDeadlock"),
    ConditionRule(type="ReadonlyFilesystem"),
    ConditionRule(type="NetworkUnavailable"),
    ConditionRule(type="MemoryPressure", hold_s=300.0),
    ConditionRule(type="SBRStorageUnhealthy"),
)


class DetectionSettings(Record, frozen=True, kw_only=True):
    """When silence means something. All durations are seconds of *proven* watching."""

    # The kubelet renews its Lease every 10 s with 4 % jitter (kubelet: leaseDuration 40 s * 0.25).
    # 12 s leaves 1.6 s for a slow API server; a false alarm costs one look at the BMC, no more.
    # Both hold until a node's own rhythm is known; how far they are apart says how late a beat may
    # ordinarily be, and no node's own limit allows for less than that.
    lease_silent_after_s: float = 12.0
    # One renewal interval and its jitter: past this a node counts as overdue in the budgets.
    lease_overdue_after_s: float = 10.6
    # From when on a node with a known rhythm is overdue, and silent: suspicion levels (accrual.py).
    # 8 is what Akka and Cassandra convict at; for the kubelet's rhythm it comes after 12 s.
    lease_overdue_phi: float = 1.0
    lease_silent_phi: float = 8.0
    lease_adaptive: bool = True  # False: the seconds above hold for every node, whatever its rhythm
    # However fast a node renews, it is not silent before this: two periods of the canary lease.
    lease_silent_min_s: float = 3.0
    # virt-handler beats every 60 to 132 s (JitterUntil factor 1.2); below 150 s alarms are false.
    handler_silent_after_s: float = 150.0
    # Vantage points publish their life every 5 s; three of those, and its votes count no more.
    vantage_fresh_s: float = 15.0
    # A reading older than this says nothing about now (on suspicion there is one every second).
    network_fresh_s: float = 15.0
    # So many vantage points, besides more than half of their zones, must say down.
    network_quorum: int = 1
    # Storage that heard a node this long ago, and not since, is no sign of life any more.
    storage_fresh_s: float = 60.0
    # So many renewals in a row that did not come are a kubelet that is down, not one that was lost:
    # with the kubelet's defaults as many as its Lease is valid for (leaseDuration 40 s).
    lease_lost_after_beats: float = 4.0
    # The longest stretch between two signs of life of a watch that still counts as watching.
    # The canary lease makes a sign every second; node watches see bookmarks about once a minute.
    lease_watch_gap_s: float = 5.0
    node_watch_gap_s: float = 75.0
    # A power reading older than this says nothing about now (asked every 2 s on suspicion).
    power_fresh_s: float = 15.0
    # A lease renewed this long after the BMC first said "off" contradicts it (writes in flight).
    contradiction_after_s: float = 3.0
    # Ready=False with a renewing lease is an ordinary moment of start-up before this.
    degraded_after_s: float = 60.0
    # Conditions besides Ready that make a node Degraded.
    conditions: tuple[ConditionRule, ...] = CONDITIONS
    # A fenced node that renews its lease must show a new boot id within this.
    boot_known_within_s: float = 15.0


class OwnHealthSettings(Record, frozen=True, kw_only=True):
    """From when on the trouble is our own: see own_health.py. Durations in seconds."""

    # Each full multiple of one of these adds one to the local health multiplier.
    # A timer that late delays beats by as much; the lease's silence leaves 1.6 s for that.
    loop_lag_s: float = 0.5
    # The canary's own deadline, and what kubelets' renewals may take beyond what is left for them.
    api_latency_s: float = 2.0
    nats_latency_s: float = 1.0
    multiplier_max: int = 8  # Lifeguard's (arXiv 1707.00788) default
    # From this multiplier on nothing is convicted.
    suspend_at: int = 6
    # The multiplier is the worst of so many seconds past: a lease period and the time for it to be
    # late, in which every node that lives is heard.
    calm_s: float = 15.0
    # So many nodes overdue in the same interval, and more than the cluster's budget, are no chance.
    many_overdue: int = 3


class NodeLimits(Record, frozen=True, kw_only=True):
    """How many nodes may be disrupted; ``None`` sets no limit of its own."""

    # Being fenced, recovered or emptied at once. The shares below bound what is down already.
    at_once: int | None = None
    at_once_zone: int | None = None
    at_once_pool: int | None = None
    # Half again as many hosts as the largest storm of the benchmark loses (40).
    per_hour: int | None = 60
    # With the growing cool-down a host is fenced 3 times in its first 70 minutes of flapping.
    per_subject_per_hour: int | None = 3


class VmLimits(Record, frozen=True, kw_only=True):
    """How many living VMs may be disrupted: restarted, stopped or moved. ``None``: no limit."""

    # Twice KubeVirt's own parallelMigrationsPerCluster, since a restart takes less than a move.
    at_once: int | None = 10
    at_once_zone: int | None = None
    at_once_pool: int | None = None
    at_once_namespace: int | None = 5
    at_once_storage_class: int | None = 10
    per_hour: int | None = 300  # three full hosts emptied
    per_subject_per_hour: int | None = 6
    # A VM that we have restarted so often within the window is not helped by it: a human must look.
    restarts: int = 3
    restarts_window_s: float = 3600.0


class BudgetSettings(Record, frozen=True, kw_only=True):
    """How much may be disrupted. Shares are rounded down, but one node may always be treated."""

    # More than half of a zone or a third of the cluster silent is more likely our own trouble, or
    # a site's: Kubernetes' zone brake (55 %) and Node Healthcheck Operator's minHealthy 51 %.
    max_unhealthy_zone_share: float = 0.5
    max_unhealthy_cluster_share: float = 0.34
    # After such a silence the rest gets three lease periods to come back, before any is fenced.
    calm_s: float = 30.0
    max_fences_at_once: int = 2
    # A node that needs fencing again within this is flapping: a human should look at it.
    # Doubled with each further fence of it within ``flap_window_s``, up to ``flap_hold_max_s``.
    fence_cooldown_s: float = 600.0
    flap_window_s: float = 21_600.0
    flap_hold_max_s: float = 14_400.0
    # A node that was lost and came back unfenced so often within the window is held for so long
    # when it is lost again, twice as long with each further time. Proven off, it is not held.
    flaps: int = 3
    flap_hold_s: float = 60.0
    # More nodes than the larger of these lost within the window is a power cut, or a switch: no
    # node is taken down until none was lost for the cool-down. (Node Healthcheck Operator has a
    # stormCooldownDuration for the same.)
    storm_nodes: int = 5
    storm_share: float = 0.1
    storm_window_s: float = 300.0
    storm_cooldown_s: float = 300.0
    nodes: NodeLimits = NodeLimits()
    vms: VmLimits = VmLimits()
    node_pool_label: str = ""  # label of nodes whose value is their pool; "": there are no pools
    # VMs of one namespace with the same value of one of these are replicas of one application.
    replicated_app_labels: tuple[str, ...] = (
        "remediator.io/replicated-app",
        "app.kubernetes.io/instance",
    )
    # Each control-plane node holds one member of etcd (kubeadm, OpenShift, Talos). Nodes labelled
    # node-role.kubernetes.io/etcd (RKE2, k3s) are known to without being told.
    etcd_on_control_plane: bool = False


class RateSettings(Record, frozen=True, kw_only=True):
    """Bounds of the adaptive limit on boots at once; see start_rate.py."""

    # What the limit begins with where nothing was learned yet: what one storage of ordinary disks
    # serves (facts/lab.md section 6: 10 boots at once at full speed).
    initial: float = 10.0
    floor: int = 1
    # As many as the largest storages of the benchmark serve; an API server takes more.
    ceiling: int = 200


class PacingSettings(Record, frozen=True, kw_only=True):
    """How many VMs start at once, in which order. Durations in seconds; ``None``: no limit."""

    rate: RateSettings = RateSettings()  # the limit that is found by watching how long boots take
    # Fixed limits besides it, each for every one of its kind. 200: see RateSettings.ceiling.
    starts_at_once_cluster: int = 200
    starts_at_once_zone: int | None = None
    starts_at_once_storage_class: int | None = None
    starts_at_once_node: int = 4  # Proxmox HA: max_workers 4 per node
    starts_at_once_namespace: int | None = None
    starts_per_minute_cluster: int | None = None
    starts_per_minute_zone: int | None = None
    starts_per_minute_storage_class: int | None = None
    starts_per_minute_node: int | None = None
    starts_per_minute_namespace: int | None = None
    # Tiers that must be ready before anything less important starts, and for how long at most.
    gate_tiers: tuple[str, ...] = ("highest",)
    gate_timeout_s: float = 120.0
    # Tiers by namespace, as shell patterns, for VMs that say nothing; the first that fits.
    namespace_tiers: dict[str, str] = {}
    # When a VM counts as ready for those that wait for it, where its annotation does not say:
    # "up" (guest agent, or running for settle_s), "running", "agent", "ready", or seconds running.
    ready_when: str = "up"
    dependency_timeout_s: float = 600.0  # for remediator.io/start-after
    age_s: float = 600.0  # whoever waits so long counts as one tier higher
    # A start that failed is tried again after this, doubled each time up to the cap; after so many
    # a human is told, and it is tried at the cap's pace.
    retry_after_s: float = 10.0
    retry_cap_s: float = 300.0
    retries: int = 5
    # A guest without an agent counts as booted this long after its VMI runs.
    settle_s: float = 30.0
    # A restart that is not up after this gives its place to another, and a human is told.
    start_timeout_s: float = 300.0


class GateSettings(Record, frozen=True, kw_only=True):
    """Scheduling gates on launcher pods: how long one may stay shut. Durations in seconds."""

    # By when a pod starts whatever the pace: past it the gate costs more than the storm would. The
    # longest storm of the benchmark, 2,000 VMs at 10 boots at once, cannot be over before 2,005 s
    # (docs/storm.md); this is three times that.
    max_age_s: float = 7200.0
    # How long nobody may attend to the gates before every replica opens what it finds: a new leader
    # is there within 15 s of the loss of the old one (election), and needs a whole picture.
    unattended_s: float = 60.0
    open_deadline_s: float = 10.0


class EvacuationSettings(Record, frozen=True, kw_only=True):
    """How VMs are moved off a node that lives. Durations in seconds."""

    nodes_at_once: int = 1  # one worker at a time: a drain is never urgent enough for more
    # KubeVirt's parallelMigrationsPerCluster and parallelOutboundMigrationsPerNode by default. What
    # the KubeVirt object says counts where it says less.
    migrations_at_once: int = 5
    migrations_at_once_node: int = 2
    attempts: int = 3  # migrations of one VM before what the policy says comes next
    # KubeVirt makes the migration of an eviction at once, and another one 20 s after a failure.
    accepted_within_s: float = 45.0
    # A place in KubeVirt's own queue: as long as it lets any target pod be pending (15 min).
    queued_s: float = 900.0
    # From a target pod to the first byte: a little more than KubeVirt's own 5 minutes for a pod
    # that fits nowhere. Where a virt-handler hangs it would wait for ever (facts/lab.md section 4).
    prepare_s: float = 330.0
    # KubeVirt ends a copy by itself (150 s per GiB, or 150 s without progress): this is for the
    # case that it does not.
    copy_s: float = 3600.0
    # For so long a VM that cannot be moved just now is waited for, before it counts as left.
    patience_s: float = 300.0
    restarted_within_s: float = 300.0  # from a restart to running elsewhere
    deadline_s: float = 15.0  # of one request to KubeVirt, read back included
    follow_up_s: float = 600.0  # VMs that were left are tried again this often


class StepSettings(Record, frozen=True, kw_only=True):
    """How each step is tried: repeated when it fails, then escalated, then retried slowly."""

    cordon_deadline_s: float = 10.0
    release_deadline_s: float = 10.0
    force_stop_deadline_s: float = 10.0
    start_deadline_s: float = 10.0
    uncordon_deadline_s: float = 15.0
    power_on_deadline_s: float = 60.0
    attempts: int = 3
    retry_after_s: float = 5.0  # doubled with each attempt, up to retry_cap_s
    retry_cap_s: float = 60.0
    # After the last attempt: escalated, and tried again this often. Nothing is given up.
    follow_up_s: float = 120.0


class RemedySettings(Record, frozen=True, kw_only=True):
    """How long a VM is given to be well again after each step, in seconds of proven watching."""

    # A guest that reboots has its agent back: the boot that a lost agent is allowed, and a minute.
    soft_reboot_s: float = 180.0
    # KubeVirt's default grace and the launcher's own (60 s), then as long as a start may take.
    restart_s: float = 360.0
    force_stop_s: float = 360.0
    # A path that is still broken stops the guest again within moments.
    unpause_s: float = 60.0
    snapshot_s: float = 300.0  # KubeVirt's own failureDeadline
    call_deadline_s: float = 15.0  # of one request to KubeVirt, read back included
    # Nothing helped, or nothing may be done: a human was told, and the plan begins anew this late.
    follow_up_s: float = 900.0


class FenceLevel(Record, frozen=True, kw_only=True):
    """Devices that take a node down together: one level of a fencing topology."""

    name: str = "1"  # its devices, for people: "pdu-left and pdu-right"
    proof: ProofKind = ProofKind.POWER_OFF_VERIFIED  # the weakest that its devices give
    attempts: int = 3
    deadline_s: float = 30.0


class FenceMethod(Record, frozen=True, kw_only=True):
    """A fence configuration: the nodes it is for, and its levels in the order of trying."""

    name: str
    nodes: tuple[str, ...]  # shell patterns of names
    labels: dict[str, str] = {}  # all must be present with these values
    levels: tuple[FenceLevel, ...] = (FenceLevel(),)
    power_on: bool = False  # switch the host on again once its VMs are back
    leaves_objects: bool = False  # some of its devices leave objects in the cluster


class EngineSettings(Record, frozen=True, kw_only=True):
    """All of it."""

    detection: DetectionSettings = DetectionSettings()
    budgets: BudgetSettings = BudgetSettings()
    pacing: PacingSettings = PacingSettings()
    gates: GateSettings = GateSettings()
    evacuation: EvacuationSettings = EvacuationSettings()
    steps: StepSettings = StepSettings()
    remedies: RemedySettings = RemedySettings()
    own_health: OwnHealthSettings = OwnHealthSettings()
