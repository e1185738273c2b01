"""Words of the engine: subjects, facts about the cluster, evidence, actions, proof, outcomes.

Everything here is a frozen record. Times end in ``_at`` and are seconds since the epoch on the
daemon's own clock, which never steps backward; durations end in ``_s``.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from remediator.engine.pod_rules import NodeTerm, PodNeeds


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of the leaf records: immutable, compared by value, invisible to the cyclic collector."""


# --- subjects -------------------------------------------------------------------------------------


class Subject(msgspec.Struct, frozen=True, order=True, gc=False):
    """What an incident, a signal or an action is about: a node, a VM, or the daemon itself."""

    kind: str  # "node", "vm", "daemon", or "vantage": a place that probes stand at
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        """``node/NAME``, ``vm/NAMESPACE/NAME``: the form used in logs, the CLI and records."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


def node_subject(name: str) -> Subject:
    """Return the subject of a node."""
    return Subject("node", name)


def vantage_subject(name: str) -> Subject:
    """Return the subject of a vantage point: a process that probes nodes from where it stands."""
    return Subject("vantage", name)


def vm_subject(namespace: str, name: str) -> Subject:
    """Return the subject of a virtual machine (or of a VMI that no VirtualMachine owns)."""
    return Subject("vm", name, namespace)


# --- signals --------------------------------------------------------------------------------------


class Plane(enum.StrEnum):
    """One independent way of knowing whether a node lives."""

    LEASE = "lease"  # kubelet renews its Lease in kube-node-lease every 10 s
    KUBELET = "kubelet"  # the Ready condition that the node status reports
    HANDLER = "handler"  # virt-handler's heartbeat annotation, every 60 to 132 s
    NETWORK = "network"  # active probes
    STORAGE = "storage"  # what the storage says about the node's writes
    POWER = "power"  # what the BMC says
    MACHINE = "machine"  # Machine, MachineHealthCheck, cloud instance
    GUEST = "guest"  # of a VM: its probes, watchdog, panics


class Reading(enum.StrEnum):
    """What one observation on a plane said. On ``power``: up is on, down is verified off."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


# Bounds of a signal's words, in characters: a Kubernetes name fits into each but the zone, which is
# a label's value. They are checked where signals are read, and stand in the published schema.
_Words = Annotated[str, msgspec.Meta(max_length=253)]
# Seconds since the epoch; 1e11 is the year 5138, so that milliseconds are told apart.
_SourceTime = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class Signal(Record, frozen=True, kw_only=True):
    """One observation of one subject on one plane by one source: the public schema on NATS.

    Evidence is the newest signal per plane, source and aspect. ``at`` is the source's own clock: it
    orders the signals of one source and is otherwise never compared; how old a signal is, the
    engine measures from its arrival. ``first`` marks what was found when the source (or a new
    leader) started rather than seen to happen: a beat of unknown age starts a silence clock but
    does not prove life. ``detail`` is one short human sentence.
    """

    plane: Plane
    # Who says so: "lease watch", "redfish bmc", "vantage zone-a-0", "longhorn".
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    subject: Subject
    reading: Reading
    at: _SourceTime
    # Which of several things of this source: a condition type, a probe, an object.
    aspect: _Words = ""
    # Where the source stands (vantage points only).
    zone: Annotated[str, msgspec.Meta(max_length=63)] = ""
    detail: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    first: bool = False
    # The process that sent it, where that process must know its own again (Outlet.origin).
    by: Annotated[str, msgspec.Meta(max_length=63)] = ""


# --- facts: what the watchers know of the cluster -------------------------------------------------


class RunStrategy(enum.StrEnum):
    """KubeVirt's VirtualMachine run strategies; ``NONE`` stands for a VMI without a VM."""

    ALWAYS = "Always"
    RERUN_ON_FAILURE = "RerunOnFailure"
    MANUAL = "Manual"
    ONCE = "Once"
    HALTED = "Halted"
    WAIT_AS_RECEIVER = "WaitAsReceiver"
    NONE = ""


class NodeFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="Node"):
    """A Node object, narrowed to what a decision may need."""

    name: str
    uid: str
    boot_id: str = ""
    system_uuid: str = ""
    zone: str = ""
    ready: bool | None = None  # None: Ready is Unknown or absent
    unschedulable: bool = False
    control_plane: bool = False
    etcd: bool = False  # labelled as one that holds a member of etcd (RKE2, k3s)
    taints: tuple[str, ...] = ()  # "key=value:Effect", or "key:Effect" where the value is empty
    labels: dict[str, str] = {}  # only the keys that decisions read
    annotations: dict[str, str] = {}  # the same
    kubevirt: bool = False  # virt-handler runs here (label kubevirt.io/schedulable exists)
    schedulable: bool = True  # that label's value: virt-handler takes new VMs
    address: str = ""  # InternalIP, the first one; what probes connect to
    kubelet_port: int = 10250  # status.daemonEndpoints.kubeletEndpoint.Port
    machine: str = ""  # "namespace/name" of the Machine that made it (annotation), if any
    # What it can give to pods (status.allocatable); 0 where its kubelet has not said.
    cpu_m: int = 0  # millicores
    memory: int = 0  # bytes
    pods: int = 0
    extra: dict[str, int] = {}  # other resources that it has any of


class VmFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="VirtualMachine"):
    """A VirtualMachine object."""

    namespace: str
    name: str
    uid: str
    run_strategy: RunStrategy = RunStrategy.ALWAYS
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deleting: bool = False
    status: str = ""  # printableStatus: Running, CrashLoopBackOff, ErrorUnschedulable, …
    requests: tuple[str, ...] = ()  # status.stateChangeRequests, in order: Stop, Start


class VmiFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="VirtualMachineInstance"):
    """A VirtualMachineInstance object; its name is its VirtualMachine's, where it has one."""

    namespace: str
    name: str
    uid: str
    phase: str = ""
    node: str = ""
    owned: bool = True  # a VirtualMachine owns it
    ready: bool = False
    not_ready_why: str = ""  # reason of Ready=False: GuestNotRunning, PodTerminating, …
    agent_connected: bool = False
    # The AgentConnected condition is there, or was in this run: KubeVirt removes it when the agent
    # falls silent, so a lost agent is: known and not connected.
    agent_known: bool = False
    probes_muted: bool = False  # annotation kubevirt.io/pause-guest-agent-probes
    paused: str = ""  # reason of the Paused condition: PausedByUser, PausedIOError, …
    live_migratable: bool | None = None  # None: not said yet
    not_migratable_why: str = ""
    claims: tuple[str, ...] = ()  # PersistentVolumeClaims among its volumes (DataVolumes included)
    ephemeral: bool = False  # no persistent volume at all
    migrating_to: str = ""  # target node of a migration in flight
    evacuating_from: str = ""  # the node that KubeVirt was told to move it off
    deleting: bool = False


class PodFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="Pod"):
    """A launcher pod (label ``kubevirt.io=virt-launcher``)."""

    namespace: str
    name: str
    uid: str
    node: str = ""
    vmi: str = ""  # name of its VMI
    vmi_uid: str = ""
    phase: str = ""
    migration_target: bool = False
    gated: bool = False  # our scheduling gate is on it (admission gate)
    deleting: bool = False
    grace_s: float = 0.0  # of its deletion: metadata.deletionGracePeriodSeconds
    restarts: int = 0  # of its compute container
    waiting: str = ""  # why a container waits: CrashLoopBackOff, ImagePullBackOff, …
    unschedulable: str = ""  # message of PodScheduled=False/Unschedulable
    needs: PodNeeds | None = None  # what it takes and asks of its node; None: not known
    labels: dict[str, str] = {}  # only the keys that some pod's affinity or spread asks for
    group: str = ""  # the application that it is one copy of, as its labels say
    priority_class: str = ""
    priority: int = 0


class ClaimFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="PersistentVolumeClaim"):
    """A PersistentVolumeClaim."""

    namespace: str
    name: str
    uid: str
    volume: str = ""  # PersistentVolume that it is bound to
    access_modes: tuple[str, ...] = ()
    storage_class: str = ""
    # Annotation remediator.io/replica-nodes: where its data is, for storage that tells nobody.
    replica_nodes: tuple[str, ...] = ()


class VolumeFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="PersistentVolume"):
    """A PersistentVolume, and the hosts it is pinned to, if any."""

    name: str
    uid: str
    driver: str = ""
    access_modes: tuple[str, ...] = ()
    pinned_to: tuple[str, ...] = ()  # hostnames of a required node affinity
    handle: str = ""  # the driver's own name of it
    source: str = ""  # of a volume that no CSI driver serves: nfs, cephfs, local, hostPath, …
    node_terms: tuple[NodeTerm, ...] | None = None  # its whole required node affinity


class AttachmentFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="VolumeAttachment"):
    """A VolumeAttachment."""

    name: str
    uid: str
    node: str = ""
    volume: str = ""
    attached: bool = False


class NodeLeaseFacts(
    Record, frozen=True, kw_only=True, tag_field="kind", tag="NodeMaintenanceLease"
):
    """A medik8s node lease (``medik8s-leases/node-NAME``): somebody claims this node.

    ``renewed_at`` is the holder's own clock; ``seen_at`` ours, when the last change was seen.
    """

    name: str
    uid: str
    node: str
    holder: str = ""
    renewed_at: float = 0.0
    duration_s: float = 0.0
    seen_at: float = 0.0


class HandsOffFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="HandsOff"):
    """Somebody else is at work on a node, or on the whole cluster: a guard, not evidence.

    One per object that says so: a medik8s or Metal3 remediation in flight, a NodeMaintenance, an
    OpenShift upgrade. ``name`` is "KIND:NAME" of that object, since kinds share this table.
    """

    namespace: str = ""
    name: str
    uid: str
    node: str = ""  # empty: every node
    why: str = ""  # "SelfNodeRemediation … is processing"


class ReplicaSetFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="ReplicaSet"):
    """The nodes that hold the replicas of one replicated volume, as its storage says.

    ``name`` is "STORAGE:VOLUME", since several kinds of storage share this table. ``as_of`` is
    when its storage last said so, on our clock; 0.0 where that was not noted.
    """

    name: str
    uid: str
    nodes: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()  # those of them whose replica is known to be stale or failed
    as_of: float = 0.0


class NodeUseFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="NodeUse"):
    """What pods other than launchers take of one node, summed; ``name`` is the node's."""

    name: str
    uid: str
    cpu_m: int = 0
    memory: int = 0
    pods: int = 0
    extra: dict[str, int] = {}


class MigrationFacts(
    Record, frozen=True, kw_only=True, tag_field="kind", tag="VirtualMachineInstanceMigration"
):
    """A VirtualMachineInstanceMigration that has not ended."""

    namespace: str
    name: str
    uid: str
    vmi: str = ""
    phase: str = ""
    target: str = ""  # the node that was asked for (addedNodeSelector), or is known by now
    ours: str = ""  # the incident of ours that made it; empty: somebody else, or an eviction


class MigrationLimitsFacts(Record, frozen=True, kw_only=True, tag_field="kind", tag="KubeVirt"):
    """What the KubeVirt object says about live migrations; its own defaults where it says nothing.

    Defaults: kubevirt pkg/virt-config (facts/kubernetes-kubevirt-medik8s.md section 5.5).
    """

    namespace: str
    name: str
    uid: str
    at_once: int = 5  # parallelMigrationsPerCluster
    at_once_node: int = 2  # parallelOutboundMigrationsPerNode
    bandwidth: str = ""  # of each migration; empty: not limited
    progress_s: float = 150.0  # without any progress, KubeVirt ends it
    copy_s_per_gib: float = 150.0
    post_copy: bool = False


Facts = (
    NodeFacts
    | VmFacts
    | VmiFacts
    | PodFacts
    | ClaimFacts
    | VolumeFacts
    | AttachmentFacts
    | NodeLeaseFacts
    | HandsOffFacts
    | MigrationFacts
    | ReplicaSetFacts
    | NodeUseFacts
    | MigrationLimitsFacts
)


class FactKind(enum.StrEnum):
    """Kinds of facts; each is one watch, with its own synced mark. Values equal the facts' tags."""

    NODE = "Node"
    VM = "VirtualMachine"
    VMI = "VirtualMachineInstance"
    POD = "Pod"
    CLAIM = "PersistentVolumeClaim"
    VOLUME = "PersistentVolume"
    ATTACHMENT = "VolumeAttachment"
    NODE_LEASE = "NodeMaintenanceLease"
    HANDS_OFF = "HandsOff"
    MIGRATION = "VirtualMachineInstanceMigration"
    REPLICA_SET = "ReplicaSet"
    NODE_USE = "NodeUse"
    MIGRATION_LIMITS = "KubeVirt"


# --- verdicts -------------------------------------------------------------------------------------


class Verdict(enum.StrEnum):
    """What the evidence adds up to; the tables are in ``verdicts.py`` and ``vm_verdicts.py``."""

    UNKNOWN = "Unknown"  # not enough has been seen since this leader started
    HEALTHY = "Healthy"
    SUSPECT = "Suspect"
    DEAD = "Dead"
    UNREACHABLE = "Unreachable"
    ISOLATED = "Isolated"
    KUBELET_DOWN = "KubeletDown"
    HANDLER_DOWN = "HandlerDown"
    DEGRADED = "Degraded"
    CONTRADICTION = "Contradiction"
    MAINTENANCE = "Maintenance"  # it is well, and a person wants it empty
    # of VMs
    GUEST_SILENT = "GuestSilent"
    CRASHED = "Crashed"
    STUCK = "Stuck"
    PAUSED = "Paused"
    UNPLACEABLE = "Unplaceable"


class IncidentState(enum.StrEnum):
    """Life cycle of an incident; the transition table is in ``incidents.py``."""

    WATCHING = "watching"
    SUSPECTED = "suspected"
    CONFIRMED = "confirmed"
    FENCING = "fencing"
    FENCED = "fenced"
    RECOVERING = "recovering"
    REMEDYING = "remedying"  # of a VM: a step of its plan is under way, or its effect awaited
    EVACUATING = "evacuating"
    RESOLVED = "resolved"
    HELD = "held"
    ESCALATED = "escalated"


# --- proof ----------------------------------------------------------------------------------------


class ProofKind(enum.StrEnum):
    """Why we may believe that the old copy no longer writes, strongest first."""

    POWER_OFF_VERIFIED = "power-off-verified"
    REBOOTED = "rebooted"
    INSTANCE_GONE = "instance-gone"
    STORAGE_FENCED = "storage-fenced"
    KERNEL_DEAD = "kernel-dead"
    REMEDIATOR_SUCCEEDED = "remediator-succeeded"
    OPERATOR_CONFIRMED = "operator-confirmed"
    ASSUMED_AFTER = "assumed-after"


class Proof(Record, frozen=True, kw_only=True):
    """One proof about one boot of one node. It dies with the next boot of that node."""

    kind: ProofKind
    node: str
    boot_id: str  # the boot that is proven to have ended
    at: float
    source: str  # who says so: "redfish https://…/Systems/n3", "node status"
    detail: str = ""


# --- actions --------------------------------------------------------------------------------------


class Cordon(Record, frozen=True, kw_only=True, tag_field="do", tag="cordon"):
    """Claim the node, mark it unschedulable and add our own NoSchedule taint."""

    node: str
    node_uid: str
    policy: str = ""  # whose plan this is: the holder of the claim


class Fence(Record, frozen=True, kw_only=True, tag_field="do", tag="fence"):
    """Power the node off by its fence device and verify that it is off."""

    node: str
    node_uid: str
    boot_id: str
    method: str  # name of the fence configuration
    level: int = 0  # which of its levels
    policy: str = ""
    forced: bool = False  # a person's order: also where the node lives
    # A renewal of the Lease that was seen no later than this came before the fence device said off,
    # on our clock: it spares nobody. 0: the device did not say off, or to an earlier leader.
    off_since: float = 0.0


class Release(Record, frozen=True, kw_only=True, tag_field="do", tag="release"):
    """Add the out-of-service taint, so that volumes detach at once. Needs proof."""

    node: str
    node_uid: str
    proof: Proof


class ForceStop(Record, frozen=True, kw_only=True, tag_field="do", tag="force-stop"):
    """Delete one launcher pod of a proven dead node, by UID, with no grace. Never the VMI."""

    node: str
    node_uid: str
    namespace: str
    vmi: str
    pod: str
    pod_uid: str
    proof: Proof


class StartVm(Record, frozen=True, kw_only=True, tag_field="do", tag="start"):
    """Ask KubeVirt to start a VM whose run strategy does not bring it back by itself."""

    namespace: str
    vm: str
    vm_uid: str
    node: str = ""  # the dead node on whose account it is started


class Uncordon(Record, frozen=True, kw_only=True, tag_field="do", tag="uncordon"):
    """Take back what we put on a node: the two taints, and the cordon where it was ours.

    What its fence configuration left elsewhere (a NetworkFence, a remediation) goes first.

    Where ``fenced_boot_id`` is set, the node had been fenced: the out-of-service taint goes only
    once the node runs another boot and its old pods and attachments are gone.
    """

    node: str
    node_uid: str
    fenced_boot_id: str = ""
    fence_method: str = ""


class PowerOn(Record, frozen=True, kw_only=True, tag_field="do", tag="power-on"):
    """Switch a fenced host on again, once its VMs are back elsewhere."""

    node: str
    node_uid: str
    method: str
    fenced_boot_id: str


class Ungate(Record, frozen=True, kw_only=True, tag_field="do", tag="ungate"):
    """Take our scheduling gate off one launcher pod, by UID: the scheduler places it then."""

    namespace: str
    vmi: str
    pod: str
    pod_uid: str
    prefer: str = ""  # the node that it is asked to go to, where one is better than others
    node: str = ""  # the dead node on whose account it starts, if any


class Migrate(Record, frozen=True, kw_only=True, tag_field="do", tag="migrate"):
    """Ask KubeVirt to move one VM off a node that lives, while it runs.

    Without ``target`` its launcher pod is evicted, which KubeVirt turns into a live migration;
    never where the eviction would be granted, for that would stop the VM. With one, a migration is
    made under the name ``migration``.
    """

    node: str
    node_uid: str
    namespace: str
    vmi: str
    vmi_uid: str
    pod: str
    pod_uid: str
    migration: str
    target: str = ""


class CancelMigration(Record, frozen=True, kw_only=True, tag_field="do", tag="cancel-migration"):
    """Take back what a Migrate asked for: the evacuation, and the migration in flight, if any."""

    node: str
    namespace: str
    vmi: str
    vmi_uid: str
    migration: str = ""
    migration_uid: str = ""


class SoftReboot(Record, frozen=True, kw_only=True, tag_field="do", tag="soft-reboot"):
    """Ask the guest to reboot itself, by its agent or its power button: the same VMI goes on."""

    namespace: str
    vmi: str
    vmi_uid: str
    node: str
    agent_lost: bool = False  # its agent was lost: where it answers again, nothing is done


class RestartVm(Record, frozen=True, kw_only=True, tag_field="do", tag="restart"):
    """Ask KubeVirt to stop this run of a VM and start another, as its run strategy allows."""

    namespace: str
    vm: str
    vm_uid: str
    vmi_uid: str
    node: str = ""
    forced: bool = False  # with the shortest grace that KubeVirt gives, 1 s


class KillPod(Record, frozen=True, kw_only=True, tag_field="do", tag="kill-pod"):
    """Delete one launcher pod on a host that lives, by UID; the kubelet ends it, never we.

    Never without grace: that would remove the object while the guest may still write.
    """

    namespace: str
    vmi: str
    pod: str
    pod_uid: str
    node: str = ""  # empty: the pod is bound to none
    grace_s: int | None = None  # at least 1; None: the pod's own


class Unpause(Record, frozen=True, kw_only=True, tag_field="do", tag="unpause"):
    """Let a guest go on that KubeVirt paused by itself; never one that a person paused."""

    namespace: str
    vmi: str
    vmi_uid: str
    node: str
    reason: str  # of its Paused condition


class Snapshot(Record, frozen=True, kw_only=True, tag_field="do", tag="snapshot"):
    """Make a VirtualMachineSnapshot under this name and wait until it is ready to use."""

    namespace: str
    vm: str
    vm_uid: str
    name: str
    node: str = ""


RemedyWork = SoftReboot | RestartVm | KillPod | Unpause | Snapshot
REMEDIES = (SoftReboot, RestartVm, KillPod, Unpause, Snapshot)


Work = (
    RemedyWork
    | Cordon
    | Fence
    | Release
    | ForceStop
    | StartVm
    | Uncordon
    | PowerOn
    | Migrate
    | CancelMigration
    | Ungate
)


class Action(Record, frozen=True, kw_only=True):
    """One attempt to change the world. Ids are deterministic, so that a repeat is recognised."""

    id: str  # "inc-17/fence/1", "inc-17/force-stop/payments/db/1"
    incident: str
    subject: Subject
    attempt: int
    deadline_s: float
    work: Work


class OutcomeStatus(enum.StrEnum):
    """How an action ended."""

    SUCCEEDED = "succeeded"  # the effect was read back
    FAILED = "failed"  # it did not happen, or could not be verified: unknown is a failure
    SPARED = "spared"  # the recheck found that the ground for acting is gone; nothing was touched


class Outcome(Record, frozen=True, kw_only=True):
    """What came of an action: the answer to "recheck, act, prove"."""

    action_id: str
    status: OutcomeStatus
    detail: str
    started_at: float
    finished_at: float
    changed: bool = True  # False: the world was already as wanted (a repeat after a crash)
    proof: Proof | None = None
