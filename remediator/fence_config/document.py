"""The FenceConfig document as it stands in a file or in a CustomResource of the same schema.

A topology as in Pacemaker: levels are tried in order, the next one when a level has failed; all
devices of one level must succeed (two power supplies are two devices of one level).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

API_VERSION = "remediator.io/v1alpha1"
KIND = "FenceConfig"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of all parts of the document."""


class SecretKeys(Part, frozen=True, kw_only=True):
    """Keys of a Kubernetes Secret."""

    name: str
    namespace: str = ""  # empty: the daemon's own
    username_key: str = "username"
    password_key: str = "password"  # noqa: S105 - the name of a key


class Credentials(Part, frozen=True, kw_only=True):
    """Who logs in to the device: from files or from a Secret, read anew at each use.

    ``username`` may stand here in plain text; a password never does.
    """

    username: str = ""
    username_file: str = ""
    password_file: str = ""
    secret: SecretKeys | None = None


class Device(Part, frozen=True, kw_only=True, tag_field="method"):
    """What all methods have. ``{node}`` in texts stands for the node's name."""

    name: str
    # From the order to the verified end, retries included. 0 means the method's own default.
    timeout_s: NotNegative = msgspec.field(name="timeout", default=0.0)
    # Within one attempt of its level; the level itself is tried ``attempts`` times.
    retries: Annotated[int, msgspec.Meta(ge=0)] = 0
    # Waited before the order: against fence races between two daemons, or on a shared device.
    delay_s: NotNegative = msgspec.field(name="delay", default=0.0)
    # Orders under way at once on this device, over all nodes: a shared PDU takes one.
    concurrency: Count = 4


class RedfishFence(Device, frozen=True, kw_only=True, tag="redfish"):
    """A BMC that speaks Redfish. Proves ``power-off-verified``."""

    endpoint: str  # "https://bmc-{node}.example"
    system: str = (
        ""  # path of the ComputerSystem; empty: the one that the service lists, if only one
    )
    credentials: Credentials
    verify_tls: bool = True
    ca_file: str = ""
    session: bool = False  # log in once and carry a token, instead of a password in each request
    request_timeout_s: Positive = msgspec.field(name="requestTimeout", default=5.0)
    already_off_for_s: NotNegative = msgspec.field(name="alreadyOffFor", default=10.0)


class AgentFence(Device, frozen=True, kw_only=True, tag="agent"):
    """A ClusterLabs fence agent. Proves ``power-off-verified``; fence_kdump ``kernel-dead``."""

    program: str  # "fence_ipmilan"; looked up in the daemon's agent directories
    parameters: dict[str, str] = {}  # as in the agent's metadata, without action and password
    node_parameters: dict[str, dict[str, str]] = {}  # node -> parameters of its own
    credentials: Credentials | None = None


class TemplateRef(Part, frozen=True, kw_only=True):
    """A medik8s remediation template."""

    api_version: str
    kind: str  # ends in "Template"
    name: str
    namespace: str


class Medik8sFence(Device, frozen=True, kw_only=True, tag="medik8s"):
    """Another remediator by its template. Proves ``remediator-succeeded``."""

    template: TemplateRef


class Metal3Fence(Device, frozen=True, kw_only=True, tag="metal3"):
    """Power off the node's BareMetalHost by annotation. Proves ``power-off-verified``."""

    namespace: str = "openshift-machine-api"
    host: str = ""  # empty: found by the node's Machine or the consumerRef; may hold {node}


class MachineFence(Device, frozen=True, kw_only=True, tag="machine"):
    """Delete the node's Machine (OpenShift or Cluster API). Proves ``instance-gone``."""


class NetworkFence(Device, frozen=True, kw_only=True, tag="networkFence"):
    """A csi-addons NetworkFence for the node's addresses. Proves ``storage-fenced``."""

    class_name: str = ""  # NetworkFenceClass; or driver with its secret
    driver: str = ""
    secret: SecretKeys | None = None
    parameters: dict[str, str] = {}
    cidrs: tuple[str, ...] = ()  # empty: CSIAddonsNode's, else the node's InternalIPs


class OperatorFence(Device, frozen=True, kw_only=True, tag="operator"):
    """Hold until a person confirms that the host is off. Proves ``operator-confirmed``."""


AnyDevice = (
    RedfishFence
    | AgentFence
    | Medik8sFence
    | Metal3Fence
    | MachineFence
    | NetworkFence
    | OperatorFence
)


class NodeSelector(Part, frozen=True, kw_only=True):
    """Which nodes: a name pattern (any of them) and labels (all of them); empty parts match all."""

    names: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class Level(Part, frozen=True, kw_only=True):
    """Devices that must all succeed, and how often that is tried before the next level."""

    devices: tuple[str, ...]
    attempts: Count = 2


class Spec(Part, frozen=True, kw_only=True):
    """Nodes, devices, and the order in which they are tried."""

    nodes: NodeSelector = NodeSelector()
    devices: tuple[AnyDevice, ...]
    levels: tuple[Level, ...]
    # Switch the host on again once its VMs run elsewhere: it comes back in another boot.
    power_on: bool = False
    # How often each device is asked for its state in peace; spread over the nodes.
    check_period_s: Positive = msgspec.field(name="checkPeriod", default=300.0)
    priority: int = 100  # lower is asked first; the first config whose selector fits a node is its


class Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Names the document."""

    name: str


class FenceConfigDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One document."""

    api_version: Literal["remediator.io/v1alpha1"]
    kind: Literal["FenceConfig"]
    metadata: Metadata
    spec: Spec
