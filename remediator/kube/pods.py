"""Pods: those of virt-launcher, in which a virtual machine runs, and those of virt-handler."""

from __future__ import annotations

from typing import Final

import msgspec

from remediator.engine.pod_rules import NO_NEEDS, PodNeeds
from remediator.kube.metadata import (
    Condition,
    KubeObject,
    KubeStruct,
    is_kubevirt_label,
    keep_labels,
    share_fields,
    shared,
    status_of,
)
from remediator.kube.scheduling import Container, needs_of, rules_of

COMPUTE: Final = "compute"  # the container of a launcher pod in which the guest runs
PACING_GATE: Final = "remediator.io/pacing"  # our scheduling gate: the scheduler leaves it alone

# What every container waits for when its pod is new.
_ORDINARY_WAITS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
# The kubelet goes back and forth between trying and resting; it is one trouble.
_SAME_WAIT: Final = {"ErrImagePull": "ImagePullBackOff"}


# The application that a VM is one copy of, by the first of these labels that it has.
_GROUP_LABELS: Final = (
    "kubevirt.io/vmpool",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app",
)
_RAW_FIELDS: Final = ("node_selector", "affinity", "tolerations", "topology_spread_constraints")
_NOTHING: Final = msgspec.Raw()
_SHARED_MAX: Final = 20_000  # different needs, or sets of labels, that are kept once

_needs: dict[PodNeeds, PodNeeds] = {}
_labels: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}


def _shared_needs(needs: PodNeeds) -> PodNeeds:
    if len(_needs) >= _SHARED_MAX:
        _needs.clear()
    return _needs.setdefault(needs, needs)


def _shared_labels(labels: dict[str, str]) -> dict[str, str]:
    if len(_labels) >= _SHARED_MAX:
        _labels.clear()
    return _labels.setdefault(tuple(sorted(labels.items())), labels)


class SchedulingGate(KubeStruct, frozen=True):
    """What keeps the scheduler from looking at a pod; gates can only be taken off."""

    name: str = ""


class PodSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    node_name: str | None = None
    scheduling_gates: tuple[SchedulingGate, ...] | None = None
    priority_class_name: str | None = None
    priority: int | None = None
    # What binds a scheduler; all of it becomes ``needs`` as soon as it is decoded.
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    overhead: dict[str, str | int | float] | None = None
    node_selector: msgspec.Raw = msgspec.Raw()
    affinity: msgspec.Raw = msgspec.Raw()
    tolerations: msgspec.Raw = msgspec.Raw()
    topology_spread_constraints: msgspec.Raw = msgspec.Raw()
    needs: PodNeeds = NO_NEEDS

    def __post_init__(self) -> None:
        share_fields(self, "node_name", "priority_class_name")
        rules = rules_of(
            self.node_selector, self.affinity, self.tolerations, self.topology_spread_constraints
        )
        needs = needs_of(self.containers, self.init_containers, self.overhead, rules)
        set_field = msgspec.structs.force_setattr
        set_field(self, "needs", _shared_needs(needs))
        for name in ("containers", "init_containers", "overhead"):
            set_field(self, name, None)
        for name in _RAW_FIELDS:
            set_field(self, name, _NOTHING)  # a Raw holds the whole page that it was decoded from


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
    # What its owner labelled it with: the same for all copies of an application, and kept once.
    app_labels: dict[str, str] | None = None

    def __post_init__(self) -> None:
        # A launcher carries every label of its VMI.
        if self.labels.get("kubevirt.io") == "virt-launcher":
            others = {key: v for key, v in self.labels.items() if not is_kubevirt_label(key)}
            if others:
                msgspec.structs.force_setattr(self, "app_labels", _shared_labels(others))
            keep_labels(self.metadata, is_kubevirt_label)

    @property
    def needs(self) -> PodNeeds | None:
        """What it takes and asks of its node."""
        return self.spec.needs if self.spec is not None else None

    @property
    def priority_class(self) -> str:
        """Name of its PriorityClass."""
        return (self.spec.priority_class_name if self.spec else None) or ""

    @property
    def priority(self) -> int:
        """The priority that its class gave it."""
        return (self.spec.priority if self.spec else None) or 0

    def label(self, key: str) -> str | None:
        """Return one of its labels, its owner's or KubeVirt's."""
        return (self.app_labels or {}).get(key, self.labels.get(key))

    @property
    def group(self) -> str:
        """The application that it is one copy of: its namespace, and a label's value."""
        for key in _GROUP_LABELS:
            value = self.label(key)
            if value:
                return shared(f"{self.namespace}/{value}")
        return ""

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


class OtherPodStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None


class OtherPod(KubeObject, frozen=True):
    """A pod that is no launcher, for what it takes of its node."""

    spec: PodSpec | None = None
    status: OtherPodStatus | None = None

    @property
    def node_name(self) -> str:
        """The node it is bound to."""
        return (self.spec.node_name if self.spec else None) or ""

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Unknown."""
        return (self.status.phase if self.status else None) or ""

    @property
    def needs(self) -> PodNeeds:
        """What it takes of its node."""
        return self.spec.needs if self.spec is not None else NO_NEEDS


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
