"""The policy document as it stands in a file; ``loader.py`` makes the engine's ``Policy`` of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from remediator.engine.model import ProofKind, Verdict
from remediator.engine.rules import Approval, DiskKind, OnFailure, Policy, SubjectKind
from remediator.engine.vm_verdicts import TABLE as VM_TABLE

API_VERSION = "remediator.io/v1alpha1"
KIND = "RemediationPolicy"

# Verdicts on VMs: no policy of nodes can answer them.
OF_VMS = frozenset(row.verdict for row in VM_TABLE)
# Verdicts on nodes whose VMs do not run any more, or cannot be told from such, and of nodes that
# live. What is to be done differs so much that one policy cannot answer both.
OF_LOST_NODES = (Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED)
OF_LIVING_NODES = (
    Verdict.DEGRADED,
    Verdict.KUBELET_DOWN,
    Verdict.HANDLER_DOWN,
    Verdict.MAINTENANCE,
)
OF_NODES = (*OF_LOST_NODES, *OF_LIVING_NODES)

# A step's word in documents -> what it is called where it is carried out.
STEP_WORDS: dict[str, tuple[str, ...]] = {
    "cordon": ("cordon",),
    "fence": ("fence",),
    "reschedule": ("release", "recover"),
    "release": ("release",),
    "recover": ("recover",),
    "migrate": ("migrate",),
    "softReboot": ("soft-reboot",),
    "restart": ("restart",),
    "forceStop": ("force-stop",),
    "unpause": ("unpause",),
    "snapshot": ("snapshot",),
    "notify": ("notify",),
    "hold": ("hold",),
}
# What may be done about each, and in which order where the order matters.
STEPS_OF_LOST_NODES = ("cordon", "fence", "release", "recover")
STEPS_OF_LIVING_NODES = ("cordon", "migrate", "restart", "notify", "hold")
STEPS_OF_VMS = ("soft-reboot", "restart", "force-stop", "unpause", "snapshot", "notify", "hold")

_DEFAULTS = Policy(name="", source="", content_hash="", verdicts=())
_Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Names the policy; the name stands in every record that the policy leads to."""

    name: str


class NodeSelector(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes the policy is for: all labels must be present with these values."""

    labels: dict[str, str] = {}


class VmSelector(msgspec.Struct, frozen=True, kw_only=True):
    """Which VMs the policy is for: their namespace, and labels of the VirtualMachine."""

    namespaces: tuple[str, ...] = ()  # shell patterns; none named: all
    labels: dict[str, str] = {}


class ForVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """How long single verdicts must have stood; what is left out stands for as long as ``for``."""

    dead_s: float | None = msgspec.field(name="Dead", default=None)
    unreachable_s: float | None = msgspec.field(name="Unreachable", default=None)
    isolated_s: float | None = msgspec.field(name="Isolated", default=None)
    degraded_s: float | None = msgspec.field(name="Degraded", default=None)
    kubelet_down_s: float | None = msgspec.field(name="KubeletDown", default=None)
    handler_down_s: float | None = msgspec.field(name="HandlerDown", default=None)
    maintenance_s: float | None = msgspec.field(name="Maintenance", default=None)
    guest_silent_s: float | None = msgspec.field(name="GuestSilent", default=None)
    crashed_s: float | None = msgspec.field(name="Crashed", default=None)
    stuck_s: float | None = msgspec.field(name="Stuck", default=None)
    paused_s: float | None = msgspec.field(name="Paused", default=None)
    unplaceable_s: float | None = msgspec.field(name="Unplaceable", default=None)

    def by_verdict(self) -> dict[Verdict, float]:
        """Return the verdicts that are named, with their seconds."""
        named = {
            Verdict(field.encode_name): getattr(self, field.name)
            for field in msgspec.structs.fields(self)
        }
        return {verdict: for_s for verdict, for_s in named.items() if for_s is not None}


class Step(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One step: a word alone, or how it is tried, and what follows when it has failed."""

    bare: ClassVar[str] = "do"

    do: Literal[
        "cordon",
        "fence",
        "reschedule",
        "release",
        "recover",
        "migrate",
        "softReboot",
        "restart",
        "forceStop",
        "unpause",
        "snapshot",
        "notify",
        "hold",
    ]
    timeout_s: float | None = msgspec.field(name="timeout", default=None)
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    on_failure: OnFailure | None = None


# All that is done about a lost node.
DEFAULT_STEPS = (Step(do="cordon"), Step(do="fence"), Step(do="reschedule"))


class LimitsDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How much this policy may disrupt, within the daemon's own limits."""

    at_once: _Count | None = None
    per_hour: _Count | None = None
    per_subject_per_hour: _Count | None = None


class ApprovalDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A person must say yes first: ``remediator approve ID``."""

    required: bool = True
    by: tuple[str, ...] = ()  # users, or "group:NAME"; none named: any operator
    lapses_after_s: float = msgspec.field(name="lapsesAfter", default=Approval().lapses_after_s)
    then: Literal["hold", "proceed"] = "hold"  # when nobody has answered by then


class ActiveWindow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A time in which the policy is active: opened by cron, for so long."""

    schedule: str
    duration_s: float = msgspec.field(name="duration")
    time_zone: str = "UTC"


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """When, then, limits."""

    subject: SubjectKind = SubjectKind.NODE
    verdicts: tuple[Verdict, ...]
    node_selector: NodeSelector = NodeSelector()
    vm_selector: VmSelector = VmSelector()
    for_s: float = msgspec.field(name="for", default=0.0)
    for_verdict: ForVerdict = ForVerdict()
    condition: str | None = None  # CEL
    mode: Literal["observe", "enforce"] = "enforce"  # the stricter of this and the daemon's wins
    steps: tuple[Step, ...] = DEFAULT_STEPS  # of a policy about lost nodes; others name theirs
    required_proof: tuple[ProofKind, ...] = _DEFAULTS.required_proof
    required_proof_by_disk: dict[DiskKind, tuple[ProofKind, ...]] = {}
    limits: LimitsDocument = LimitsDocument()
    approval: ApprovalDocument | None = None
    active_windows: tuple[ActiveWindow, ...] = ()
    start_manual: bool = _DEFAULTS.start_manual
    priority: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = _DEFAULTS.priority


class PolicyDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One document of a policy file."""

    api_version: Literal["remediator.io/v1alpha1"]
    kind: Literal["RemediationPolicy"]
    metadata: Metadata
    spec: Spec


# Verdicts after which this version has a plan. Others are reported and never acted on.
ACTED_ON = frozenset({*OF_NODES, *OF_VMS})
