"""Machines, their health checks and bare metal hosts: OpenShift, Cluster API, Metal3.

One type serves every version of a resource. Cluster API moved its conditions between versions: in
v1beta1 the old ones are ``status.conditions`` and the new ones ``status.v1beta2.conditions``, in
v1beta2 the new ones are ``status.conditions`` and the old ``status.deprecated.v1beta1.conditions``.
A condition is looked up by its type, in the new ones first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from remediator.kube.metadata import Condition, KubeObject, KubeStruct, share_fields

# Machine API and Cluster API; both call their objects Machine.
OPENSHIFT = "machine.openshift.io"
CLUSTER_API = "cluster.x-k8s.io"

# Set by OpenShift's MachineHealthCheck with the strategy external-baremetal: the bare metal
# provider is to reboot the host.
EXTERNAL_REMEDIATION = "host.metal3.io/external-remediation"
# On a BareMetalHost: alone it asks for one reboot, with a suffix for staying off until removed.
REBOOT = "reboot.metal3.io"

_DELETING_PHASES = frozenset({"Deleting", "Deleted"})
# Cluster API deletes the Node only after the infrastructure is gone (reasons of Deleting=True).
_INFRASTRUCTURE_GONE = frozenset({"DeletingNode", "DeletionCompleted"})


class NodeRef(KubeStruct, frozen=True):
    """``status.nodeRef``; Cluster API v1beta2 has only the name."""

    name: str = ""
    uid: str = ""


class InfrastructureRef(KubeStruct, frozen=True):
    """``spec.infrastructureRef``: the provider's object, a Metal3Machine for instance."""

    kind: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        share_fields(self, "kind")


class MachineSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    infrastructure_ref: InfrastructureRef | None = None


class GroupedConditions(KubeStruct, frozen=True):
    """Conditions of another version than that of the object."""

    conditions: tuple[Condition, ...] | None = None


class DeprecatedStatus(KubeStruct, frozen=True):
    """``status.deprecated``."""

    v1beta1: GroupedConditions | None = None


class MachineStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None
    node_ref: NodeRef | None = None
    conditions: tuple[Condition, ...] | None = None
    v1beta2: GroupedConditions | None = None
    deprecated: DeprecatedStatus | None = None
    error_reason: str | None = None  # OpenShift
    failure_reason: str | None = None  # Cluster API v1beta1

    def __post_init__(self) -> None:
        share_fields(self, "phase")

    def all_conditions(self) -> Iterator[Condition]:
        """Yield the new conditions, then the old."""
        if self.v1beta2 is not None:
            yield from self.v1beta2.conditions or ()
        yield from self.conditions or ()
        if self.deprecated is not None and self.deprecated.v1beta1 is not None:
            yield from self.deprecated.v1beta1.conditions or ()


class Machine(KubeObject, frozen=True):
    """A host as something that is made and deleted."""

    spec: MachineSpec | None = None
    status: MachineStatus | None = None

    @property
    def phase(self) -> str:
        """Provisioning, Provisioned, Running, Deleting, Failed, …."""
        return (self.status.phase if self.status else None) or ""

    @property
    def node_ref(self) -> NodeRef:
        """The Node that it became; empty when none is known."""
        return (self.status.node_ref if self.status else None) or NodeRef()

    @property
    def infrastructure(self) -> InfrastructureRef:
        """The provider's object; empty for OpenShift."""
        return (self.spec.infrastructure_ref if self.spec else None) or InfrastructureRef()

    @property
    def failure(self) -> str:
        """The reason of a terminal failure, one word."""
        if self.status is None:
            return ""
        return self.status.error_reason or self.status.failure_reason or ""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, the newer of two styles; None when there is none."""
        if self.status is None:
            return None
        return next((each for each in self.status.all_conditions() if each.type == kind), None)

    @property
    def on_its_way_out(self) -> bool:
        """Its deletion was asked for and its controller is at it."""
        return self.deleting and self.phase in _DELETING_PHASES

    @property
    def instance_missing(self) -> str:
        """Why we may take its instance for gone while the Machine is there; "" when we may not.

        OpenShift's controller asks the provider (InstanceExists=False/InstanceMissing: it was
        there once); Cluster API's deletes the Node once the infrastructure object is gone.
        """
        exists = self.condition("InstanceExists")
        if exists and exists.status == "False" and exists.reason == "InstanceMissing":
            return "InstanceExists=False InstanceMissing"
        out = self.condition("Deleting")
        if self.deleting and out and out.status == "True" and out.reason in _INFRASTRUCTURE_GONE:
            return f"Deleting=True {out.reason}"
        return ""


class SelectorRequirement(KubeStruct, frozen=True):
    """One expression over labels."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether it holds; an operator that we do not know never does."""
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        has = labels.get(self.key) in (self.values or ()) and self.key in labels
        return has if self.operator == "In" else self.operator == "NotIn" and not has


class LabelSelector(KubeStruct, frozen=True):
    """``metav1.LabelSelector``; an empty one matches everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[SelectorRequirement, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether all of it holds."""
        return all(
            labels.get(key) == value for key, value in (self.match_labels or {}).items()
        ) and (all(each.matches(labels) for each in self.match_expressions or ()))


class HealthCheckSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    selector: LabelSelector | None = None


class HealthCheckStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    expected_machines: int | None = None
    current_healthy: int | None = None
    targets: tuple[str, ...] | None = None  # Cluster API: names of Machines in its namespace


class MachineHealthCheck(KubeObject, frozen=True):
    """Counts the healthy Machines that its selector matches, and has the others remediated."""

    spec: HealthCheckSpec | None = None
    status: HealthCheckStatus | None = None

    @property
    def selector(self) -> LabelSelector:
        """Which Machines it looks at."""
        return (self.spec.selector if self.spec else None) or LabelSelector()

    @property
    def targets(self) -> tuple[str, ...]:
        """The Machines that it looks at, by name; () where it does not say (OpenShift)."""
        return (self.status.targets if self.status else None) or ()

    @property
    def expected(self) -> int:
        """How many Machines it looks at."""
        return (self.status.expected_machines if self.status else None) or 0

    @property
    def healthy(self) -> int | None:
        """How many of them are healthy; None when it has not counted yet."""
        return self.status.current_healthy if self.status else None


class ConsumerRef(KubeStruct, frozen=True):
    """``spec.consumerRef``: OpenShift's Machine, or the Metal3Machine of Cluster API."""

    kind: str = ""
    name: str = ""
    namespace: str = ""

    def __post_init__(self) -> None:
        share_fields(self, "kind", "namespace")


class HostSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    consumer_ref: ConsumerRef | None = None
    online: bool | None = None


class Provisioning(KubeStruct, frozen=True):
    """``status.provisioning``, narrowed."""

    state: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "state")


class HostStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    powered_on: bool | None = None
    operational_status: str | None = None
    error_type: str | None = None
    provisioning: Provisioning | None = None

    def __post_init__(self) -> None:
        share_fields(self, "operational_status", "error_type")


class BareMetalHost(KubeObject, frozen=True):
    """A physical machine and what the bare metal operator knows of its power."""

    spec: HostSpec | None = None
    status: HostStatus | None = None

    @property
    def consumer(self) -> ConsumerRef:
        """Who uses it; empty for nobody."""
        return (self.spec.consumer_ref if self.spec else None) or ConsumerRef()

    @property
    def in_use(self) -> bool:
        """It runs an installed system; before and after, its power says nothing of a node."""
        provisioning = self.status.provisioning if self.status else None
        state = (provisioning.state if provisioning else None) or ""
        return state in {"provisioned", "externally provisioned"}

    @property
    def powered_on(self) -> bool | None:
        """The power as the operator saw it last, by its own clock: every minute or so."""
        return self.status.powered_on if self.status else None

    @property
    def operational_status(self) -> str:
        """OK, error, detached, servicing, …."""
        return (self.status.operational_status if self.status else None) or ""

    @property
    def error_type(self) -> str:
        """What kind of error: "power management error", "registration error", …."""
        return (self.status.error_type if self.status else None) or ""

    @property
    def reboot_asked_by(self) -> tuple[str, ...]:
        """The annotations that ask for a reboot, or for being off until they are removed."""
        return tuple(
            sorted(key for key in self.annotations if key == REBOOT or key.startswith(f"{REBOOT}/"))
        )
