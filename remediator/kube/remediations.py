"""What others do to nodes: medik8s and Metal3 remediations, maintenance, an OpenShift upgrade."""

from __future__ import annotations

import msgspec

from remediator.kube.metadata import Condition, KubeObject, KubeStruct, share_fields

# medik8s/common pkg/annotations: the node that a remediation is for; asked to stop (a time).
NODE_NAME = "remediation.medik8s.io/node-name"
TIMED_OUT = "remediation.medik8s.io/nhc-timed-out"


class RemediationStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    conditions: tuple[Condition, ...] | None = None
    phase: str | None = None  # Metal3: Running, Waiting, Deleting machine, Failed

    def __post_init__(self) -> None:
        share_fields(self, "phase")


class Remediation(KubeObject, frozen=True):
    """One remediation of one node by SelfNodeRemediation, FenceAgentsRemediation, ….

    medik8s' kinds say Processing (True, then False) and Succeeded (Unknown, then True or False);
    Metal3Remediation says a phase and is deleted at its end.
    """

    status: RemediationStatus | None = None

    @property
    def node_name(self) -> str:
        """The node that it names itself; "" where only its owner or its own name tells."""
        return self.annotations.get(NODE_NAME, "")

    @property
    def phase(self) -> str:
        """Metal3's phase, "" otherwise."""
        return (self.status.phase if self.status else None) or ""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, None when there is none."""
        conditions = (self.status.conditions if self.status else None) or ()
        return next((each for each in conditions if each.type == kind), None)

    @property
    def in_flight(self) -> bool:
        """Somebody works on the node, or is about to.

        Processing=True says so whatever else is said. Over it is when it succeeded or failed, when
        it was asked to stop or is being deleted. A new one has no conditions yet, and counts.
        """
        processing, succeeded = self.condition("Processing"), self.condition("Succeeded")
        if processing is not None and processing.status == "True":
            return True
        if self.deleting or TIMED_OUT in self.annotations or self.phase == "Failed":
            return False
        return succeeded is None or succeeded.status not in {"True", "False"}


class ResourceRef(KubeStruct, frozen=True):
    """A reference to a remediation."""

    kind: str = ""
    name: str = ""
    namespace: str = ""

    def __post_init__(self) -> None:
        share_fields(self, "kind", "namespace")


class NodeRemediation(KubeStruct, frozen=True):
    """One remediation of an unhealthy node, as its NodeHealthCheck tracks it."""

    resource: ResourceRef = msgspec.field(default_factory=ResourceRef)
    timed_out: str | None = None


class UnhealthyNode(KubeStruct, frozen=True):
    """One node that a NodeHealthCheck counts as unhealthy."""

    name: str = ""
    remediations: tuple[NodeRemediation, ...] | None = None
    conditions_healthy_timestamp: str | None = None  # healthy again, its remediation not yet gone
    healthy_delayed: bool | None = None  # healthy again, and waiting (spec.healthyDelay)

    @property
    def healthy_again(self) -> bool:
        """Its conditions are good; only the end of the remediation is awaited."""
        return self.conditions_healthy_timestamp is not None or bool(self.healthy_delayed)


class NodeHealthCheckStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None  # Disabled, Paused, Remediating, Enabled
    unhealthy_nodes: tuple[UnhealthyNode, ...] | None = None
    in_flight_remediations: dict[str, str] | None = None  # deprecated: node -> when it began

    def __post_init__(self) -> None:
        share_fields(self, "phase")


class NodeHealthCheck(KubeObject, frozen=True):
    """Watches nodes by their conditions and has the unhealthy ones remediated."""

    status: NodeHealthCheckStatus | None = None

    @property
    def disabled(self) -> bool:
        """It does nothing, and what it says of nodes is as old as that."""
        return bool(self.status and self.status.phase == "Disabled")

    @property
    def unhealthy_nodes(self) -> tuple[UnhealthyNode, ...]:
        """The nodes that it counts as unhealthy; of old operators those under remediation."""
        if self.status is None:
            return ()
        if self.status.unhealthy_nodes is not None:
            return self.status.unhealthy_nodes
        return tuple(UnhealthyNode(name=name) for name in self.status.in_flight_remediations or ())


class NodeMaintenanceSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    node_name: str = ""
    reason: str | None = None


class NodeMaintenance(KubeObject, frozen=True):
    """Somebody wants a node drained and left alone."""

    spec: NodeMaintenanceSpec | None = None

    @property
    def node_name(self) -> str:
        """The node."""
        return self.spec.node_name if self.spec else ""

    @property
    def reason(self) -> str:
        """What for, in the words of whoever asked."""
        return (self.spec.reason if self.spec else None) or ""


class Release(KubeStruct, frozen=True):
    """A release of OpenShift."""

    version: str | None = None


class ClusterVersionStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    conditions: tuple[Condition, ...] | None = None
    desired: Release | None = None


class ClusterVersion(KubeObject, frozen=True):
    """OpenShift's version of the cluster; there is one, called "version"."""

    status: ClusterVersionStatus | None = None

    @property
    def progressing(self) -> bool:
        """An upgrade is under way."""
        conditions = (self.status.conditions if self.status else None) or ()
        return any(each.type == "Progressing" and each.status == "True" for each in conditions)

    @property
    def desired(self) -> str:
        """The version that the cluster is brought to."""
        release = self.status.desired if self.status else None
        return (release.version if release else None) or ""
