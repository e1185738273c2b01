"""KubeVirt's virtual machines and their instances."""

from __future__ import annotations

import re

from remediator.kube.metadata import (
    Condition,
    KubeObject,
    KubeStruct,
    condition_of,
    share_fields,
    status_of,
)

_MUTES_AGENT_PROBES = "kubevirt.io/pause-guest-agent-probes"
# What Go's strconv.ParseBool takes for true; virt-launcher reads the annotation with it.
_TRUE = re.compile("1|t|T|true|TRUE|True")


class VirtualMachineSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    run_strategy: str | None = None
    running: bool | None = None  # deprecated; still written by older tools

    def __post_init__(self) -> None:
        share_fields(self, "run_strategy")


class StateChangeRequest(KubeStruct, frozen=True):
    """What KubeVirt was asked for and has not done yet; only the first of them counts."""

    action: str = ""  # Start or Stop


class VirtualMachineStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    printable_status: str | None = None
    state_change_requests: tuple[StateChangeRequest, ...] | None = None

    def __post_init__(self) -> None:
        share_fields(self, "printable_status")


class VirtualMachine(KubeObject, frozen=True):
    """A KubeVirt VirtualMachine."""

    spec: VirtualMachineSpec | None = None
    status: VirtualMachineStatus | None = None

    @property
    def run_strategy(self) -> str:
        """The run strategy as KubeVirt reads it: ``running`` is Always, neither is Halted."""
        if self.spec is None:
            return "Halted"
        return self.spec.run_strategy or ("Always" if self.spec.running else "Halted")

    @property
    def printable_status(self) -> str:
        """KubeVirt's own summary: Running, Stopped, CrashLoopBackOff, …."""
        return (self.status.printable_status if self.status else None) or ""

    @property
    def requests(self) -> tuple[str, ...]:
        """What KubeVirt was asked for and has not done yet, in order: Stop, Start."""
        requests = (self.status.state_change_requests if self.status else None) or ()
        return tuple(request.action for request in requests)


class VolumeSnapshotStatus(KubeStruct, frozen=True):
    """Whether one volume of a VM can be kept by a snapshot."""

    name: str = ""
    enabled: bool = False
    reason: str = ""


class StorageStatus(KubeStruct, frozen=True):
    """``status``, narrowed to what KubeVirt says of snapshots."""

    volume_snapshot_statuses: tuple[VolumeSnapshotStatus, ...] | None = None


class ClaimSource(KubeStruct, frozen=True):
    """A PersistentVolumeClaim as a volume."""

    claim_name: str = ""
    hotpluggable: bool | None = None


class DataVolumeSource(KubeStruct, frozen=True):
    """A DataVolume as a volume; its claim has the same name."""

    name: str = ""
    hotpluggable: bool | None = None


class HostDisk(KubeStruct, frozen=True):
    """A disk image in a directory of the host."""

    path: str = ""


class Volume(KubeStruct, frozen=True):
    """One volume of a VMI; None of these: a container disk, cloud-init, a secret, …."""

    name: str = ""
    persistent_volume_claim: ClaimSource | None = None
    data_volume: DataVolumeSource | None = None
    memory_dump: ClaimSource | None = None
    host_disk: HostDisk | None = None

    def __post_init__(self) -> None:
        share_fields(self, "name")

    @property
    def claim(self) -> str:
        """The claim that it writes to, "" when there is none."""
        if self.persistent_volume_claim is not None:
            return self.persistent_volume_claim.claim_name
        if self.data_volume is not None:
            return self.data_volume.name
        return self.memory_dump.claim_name if self.memory_dump is not None else ""

    @property
    def hotplugged(self) -> bool:
        """It was added to the running machine."""
        source = self.persistent_volume_claim or self.data_volume or self.memory_dump
        return bool(source and source.hotpluggable)


class InstanceTemplateSpec(KubeStruct, frozen=True):
    """``spec.template.spec``, narrowed to the volumes."""

    volumes: tuple[Volume, ...] | None = None


class InstanceTemplate(KubeStruct, frozen=True):
    """``spec.template``, narrowed."""

    spec: InstanceTemplateSpec | None = None


class StorageSpec(KubeStruct, frozen=True):
    """``spec``, narrowed to the template of its instances."""

    template: InstanceTemplate | None = None


class VirtualMachineStorage(KubeObject, frozen=True):
    """A VirtualMachine, narrowed to what its storage can do. Read only when that is asked."""

    spec: StorageSpec | None = None
    status: StorageStatus | None = None

    @property
    def unkept(self) -> tuple[VolumeSnapshotStatus, ...]:
        """Its persistent volumes that KubeVirt says no snapshot keeps; others keep nothing."""
        template = self.spec.template if self.spec is not None else None
        inside = template.spec if template is not None else None
        persistent = {
            each.name for each in (inside.volumes if inside else None) or () if each.claim
        }
        said = (self.status.volume_snapshot_statuses if self.status else None) or ()
        return tuple(each for each in said if each.name in persistent and not each.enabled)


class VmiSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    volumes: tuple[Volume, ...] | None = None
    eviction_strategy: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "eviction_strategy")


class MigrationState(KubeStruct, frozen=True):
    """``status.migrationState``: the newest migration, in flight or over."""

    source_node: str | None = None
    target_node: str | None = None
    target_pod: str | None = None
    migration_uid: str | None = None
    completed: bool | None = None
    failed: bool | None = None

    def __post_init__(self) -> None:
        share_fields(self, "source_node", "target_node")

    @property
    def in_flight(self) -> bool:
        """Neither completed nor failed."""
        return not self.completed and not self.failed


class VmiStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None
    node_name: str | None = None
    conditions: tuple[Condition, ...] | None = None
    migration_state: MigrationState | None = None
    evacuation_node_name: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "phase", "node_name", "evacuation_node_name")


class VirtualMachineInstance(KubeObject, frozen=True):
    """A KubeVirt VirtualMachineInstance: one run of a machine."""

    spec: VmiSpec | None = None
    status: VmiStatus | None = None

    @property
    def phase(self) -> str:
        """Pending, Scheduling, Scheduled, Running, Succeeded, Failed, …; "" when just made."""
        return (self.status.phase if self.status else None) or ""

    @property
    def node_name(self) -> str:
        """The node it runs on."""
        return (self.status.node_name if self.status else None) or ""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions."""
        return (self.status.conditions if self.status else None) or ()

    @property
    def ready(self) -> bool:
        """The Ready condition is True."""
        return status_of(self.conditions, "Ready") == "True"

    @property
    def agent_connected(self) -> bool:
        """The guest agent answers."""
        return status_of(self.conditions, "AgentConnected") == "True"

    @property
    def agent_known(self) -> bool:
        """The AgentConnected condition is there; KubeVirt removes it when the agent is lost."""
        return condition_of(self.conditions, "AgentConnected") is not None

    @property
    def not_ready_why(self) -> str:
        """Reason of a Ready condition that is not True: GuestNotRunning, ContainersNotReady, …."""
        ready = condition_of(self.conditions, "Ready")
        return (ready.reason or "") if ready is not None and ready.status != "True" else ""

    @property
    def paused(self) -> str:
        """Why it is paused: PausedByUser, PausedIOError, …; "" when it is not."""
        paused = condition_of(self.conditions, "Paused")
        if paused is None or paused.status != "True":
            return ""
        return paused.reason or "Paused"

    @property
    def live_migratable(self) -> bool | None:
        """It can move while it runs; None when KubeVirt has not said yet."""
        return {"True": True, "False": False}.get(status_of(self.conditions, "LiveMigratable"))

    @property
    def not_migratable_why(self) -> str:
        """Reason of LiveMigratable=False: DisksNotLiveMigratable, …."""
        condition = condition_of(self.conditions, "LiveMigratable")
        if condition is None or condition.status != "False":
            return ""
        return condition.reason or ""

    @property
    def probes_muted(self) -> bool:
        """Its owner has asked KubeVirt to let guest-agent probes pass."""
        return _TRUE.fullmatch(self.annotations.get(_MUTES_AGENT_PROBES, "")) is not None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """All volumes."""
        return (self.spec.volumes if self.spec else None) or ()

    @property
    def claims(self) -> tuple[str, ...]:
        """PersistentVolumeClaims that it writes to, DataVolumes' included, without repeats."""
        return tuple(dict.fromkeys(volume.claim for volume in self.volumes if volume.claim))

    @property
    def ephemeral(self) -> bool:
        """Nothing that it writes outlives it: no claim, and no disk on the host."""
        return not any(volume.claim or volume.host_disk for volume in self.volumes)

    @property
    def migration(self) -> MigrationState | None:
        """The newest migration, in flight or over."""
        return self.status.migration_state if self.status else None

    @property
    def migrating_to(self) -> str:
        """Target node of a migration in flight, "" when there is none or it is not known yet."""
        state = self.migration
        return (state.target_node or "") if state is not None and state.in_flight else ""

    @property
    def evacuating_from(self) -> str:
        """The node that an eviction asked it to leave, "" when none did."""
        return (self.status.evacuation_node_name if self.status else None) or ""

    @property
    def vm_name(self) -> str:
        """Its VirtualMachine, "" for a VMI that somebody made by hand."""
        owner = self.owner("VirtualMachine")
        return owner.name if owner is not None else ""
