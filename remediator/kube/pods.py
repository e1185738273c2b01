"""Pods: those of virt-launcher, in which a virtual machine runs, and those of virt-handler."""

from __future__ import annotations

from typing import Final

import msgspec

from remediator.kube.metadata import (
    Condition,
    KubeObject,
    KubeStruct,
    is_kubevirt_label,
    keep_labels,
    share_fields,
    status_of,
)

COMPUTE: Final = "compute"  # the container of a launcher pod in which the guest runs
PACING_GATE: Final = "remediator.io/pacing"  # our scheduling gate: the scheduler leaves it alone

# What every container waits for when its pod is new.
_ORDINARY_WAITS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
# The kubelet goes back and forth between trying and resting; it is one trouble.
_SAME_WAIT: Final = {"ErrImagePull": "ImagePullBackOff"}


class SchedulingGate(KubeStruct, frozen=True):
    """What keeps the scheduler from looking at a pod; gates can only be taken off."""

    name: str = ""


class PodSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    node_name: str | None = None
    scheduling_gates: tuple[SchedulingGate, ...] | None = None

    def __post_init__(self) -> None:
        share_fields(self, "node_name")


class PodCondition(KubeStruct, frozen=True):
    """A pod's condition; the scheduler says in ``message`` why no node will do."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None


class ContainerWaiting(KubeStruct, frozen=True):
    """Why a container does not run yet, or not again."""

    reason: str | None = None


class ContainerState(KubeStruct, frozen=True):
    """``state`` of a container, narrowed."""

    waiting: ContainerWaiting | None = None


class ContainerStatus(KubeStruct, frozen=True):
    """One container of a pod."""

    name: str = ""
    restart_count: int = 0
    state: ContainerState | None = None

    @property
    def waits_for(self) -> str:
        """Why it waits, where that is not the ordinary start of a pod; else ""."""
        waiting = self.state.waiting if self.state is not None else None
        reason = (waiting.reason if waiting is not None else None) or ""
        return "" if reason in _ORDINARY_WAITS else _SAME_WAIT.get(reason, reason)


class PodStatus(KubeStruct, frozen=True):
    """``status``, narrowed to what is out of order: of 50,000 pods nearly all are in order.

    The parts have no ``__post_init__`` of their own: there are ten in each pod, and a large
    cluster's first list is decoded on the event loop.
    """

    phase: str | None = None
    conditions: tuple[PodCondition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None

    def __post_init__(self) -> None:
        share_fields(self, "phase")
        if self.conditions:
            refused = tuple([c for c in self.conditions if c.status == "False" and _unplaced(c)])
            msgspec.structs.force_setattr(self, "conditions", refused or None)
        if self.container_statuses:
            odd = _out_of_order(self.container_statuses)
            msgspec.structs.force_setattr(self, "container_statuses", odd)
        if self.init_container_statuses:
            odd = _out_of_order(self.init_container_statuses)
            msgspec.structs.force_setattr(self, "init_container_statuses", odd)


def _unplaced(condition: PodCondition) -> bool:
    return condition.type == "PodScheduled"


def _out_of_order(containers: tuple[ContainerStatus, ...]) -> tuple[ContainerStatus, ...] | None:
    odd = [
        item
        for item in containers
        if item.restart_count
        or (item.state is not None and item.state.waiting is not None and item.waits_for)
    ]
    return tuple(odd) or None


class Pod(KubeObject, frozen=True):
    """A pod; the properties about VMIs make sense for virt-launcher pods only."""

    spec: PodSpec | None = None
    status: PodStatus | None = None

    def __post_init__(self) -> None:
        # A launcher carries every label of its VMI; the VMI and its VM have them too.
        if self.labels.get("kubevirt.io") == "virt-launcher":
            keep_labels(self.metadata, is_kubevirt_label)

    @property
    def node_name(self) -> str:
        """The node it is bound to."""
        return (self.spec.node_name if self.spec else None) or ""

    @property
    def gated(self) -> bool:
        """It waits for us: our scheduling gate is on it."""
        gates = (self.spec.scheduling_gates if self.spec else None) or ()
        return any(gate.name == PACING_GATE for gate in gates)

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Unknown."""
        return (self.status.phase if self.status else None) or ""

    @property
    def restarts(self) -> int:
        """How often the container with the guest was started again."""
        containers = (self.status.container_statuses if self.status else None) or ()
        return next((item.restart_count for item in containers if item.name == COMPUTE), 0)

    @property
    def waiting(self) -> str:
        """Why one of its containers waits: CrashLoopBackOff, ImagePullBackOff, …; else ""."""
        if self.status is None:
            return ""
        containers = (
            *(self.status.container_statuses or ()),
            *(self.status.init_container_statuses or ()),
        )
        return next((item.waits_for for item in containers if item.waits_for), "")

    @property
    def unschedulable(self) -> str:
        """Why the scheduler finds no node for it; "" when it has one, or was not tried yet."""
        conditions = (self.status.conditions if self.status else None) or ()
        if not conditions or conditions[0].reason != "Unschedulable":
            return ""
        return conditions[0].message or "Unschedulable"

    @property
    def vmi_name(self) -> str:
        """Its VMI. The owner reference is exact; labels may be cut off at 63 characters."""
        owner = self.owner("VirtualMachineInstance")
        if owner is not None:
            return owner.name
        return self.annotations.get("kubevirt.io/domain") or self.labels.get(
            "vm.kubevirt.io/name", ""
        )

    @property
    def vmi_uid(self) -> str:
        """UID of its VMI, from the label that virt-controller finds its pods by."""
        return self.labels.get("kubevirt.io/created-by", "")

    @property
    def migration_target(self) -> bool:
        """It was made to receive a live migration."""
        return "kubevirt.io/migrationJobUID" in self.labels


class HandlerPodStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    conditions: tuple[Condition, ...] | None = None

    def __post_init__(self) -> None:
        ready = tuple(item for item in self.conditions or () if item.type == "Ready")
        msgspec.structs.force_setattr(self, "conditions", ready or None)


class HandlerPod(KubeObject, frozen=True):
    """A pod of virt-handler: a DaemonSet has one on each node that may run VMs."""

    spec: PodSpec | None = None
    status: HandlerPodStatus | None = None

    @property
    def node_name(self) -> str:
        """The node it is bound to."""
        return (self.spec.node_name if self.spec else None) or ""

    @property
    def ready(self) -> bool:
        """It passes its readiness probe.

        One that was asked to go works on, for up to five minutes, until migrations have ended.
        """
        conditions = (self.status.conditions if self.status else None) or ()
        return status_of(conditions, "Ready") == "True"
