"""What ``remediator health`` shows: the answers that a leader gives, as records.

They are made by ``health_view`` (the cluster), ``node_view`` and ``vm_view``, and are the documents
of ``/api/v1/health``. Ages (``age_s``, ``since_s``) and waits (``in_s``) are seconds as of the
view's own ``at``, by the leader's clock. ``None`` means that there is no such time, never zero.
"""

from __future__ import annotations

from remediator.engine.model import Record, Subject, Verdict

STOPPED = "stopped"  # besides the verdicts: a VM without VMI that nobody wants to run


class WatchLine(Record, frozen=True, kw_only=True):
    """How one watch of the API server is."""

    name: str
    synced: bool
    absent: bool  # its CRD is not installed
    quiet_s: float | None  # since it last proved that it hears; None before its first list
    limit_s: float  # from when on that makes it stale


class Surroundings(Record, frozen=True, kw_only=True):
    """What a leader knows besides its engine. ``at`` is the time that the view is of."""

    at: float
    watches: tuple[WatchLine, ...] = ()


class Due(Record, frozen=True, kw_only=True):
    """Something that will happen next. ``in_s`` None: it waits for the world, not for time."""

    what: str
    in_s: float | None = None


class LeaderLine(Record, frozen=True, kw_only=True):
    """Who made this view."""

    identity: str
    epoch: int
    since_s: float
    mode: str  # observe, enforce


class OwnLine(Record, frozen=True, kw_only=True):
    """How the leader itself is."""

    multiplier: int = 1  # every silence limit is this many times as long
    suspended: bool = False  # nobody is convicted
    reasons: tuple[str, ...] = ()


class Unheard(Record, frozen=True, kw_only=True):
    """Something that this view knows nothing of, and why."""

    what: str
    why: str


class VantageLine(Record, frozen=True, kw_only=True):
    """A place that probes stand at."""

    name: str
    zone: str
    reading: str  # up; unknown: it does not reach its own references
    fresh: bool  # heard lately enough to have a vote
    age_s: float | None
    detail: str = ""


class ZoneLine(Record, frozen=True, kw_only=True):
    """The nodes of one zone by verdict."""

    zone: str
    nodes: int
    verdicts: dict[str, int]


class NodeLine(Record, frozen=True, kw_only=True):
    """One node that is not Healthy."""

    name: str
    zone: str
    verdict: Verdict
    row: str
    since_s: float | None = None
    incident: str = ""
    state: str = ""
    vms: int = 0
    due: Due | None = None


class VmLine(Record, frozen=True, kw_only=True):
    """One VM that is not well."""

    namespace: str
    name: str
    verdict: Verdict
    row: str
    node: str = ""
    since_s: float | None = None
    incident: str = ""
    due: Due | None = None


class BudgetLine(Record, frozen=True, kw_only=True):
    """One budget: what is used of it, and what it allows."""

    name: str  # zone-share, cluster-share, fences-at-once
    scope: str  # "zone zone-a", "cluster"
    used: int
    limit: int
    of: int  # of how many
    spent: bool  # no more is granted now
    why: str = ""


class ClusterView(Record, frozen=True, kw_only=True):
    """The whole cluster, or one zone of it."""

    at: float
    leader: LeaderLine
    zone: str  # empty: all
    own: OwnLine
    unheard: tuple[Unheard, ...]
    vantages: tuple[VantageLine, ...]
    zones: tuple[ZoneLine, ...]
    nodes: tuple[NodeLine, ...]  # that are not Healthy; the worst first
    nodes_more: int  # such nodes that are not listed
    suspicion: float  # the highest of any node's lease (phi)
    vms: int
    vm_verdicts: dict[str, int]
    sick: tuple[VmLine, ...]  # VMs that are not well
    sick_more: int
    budgets: tuple[BudgetLine, ...]


class SourceLine(Record, frozen=True, kw_only=True):
    """What one source said last about one thing."""

    plane: str
    source: str
    aspect: str
    reading: str
    age_s: float | None  # since it was last said
    since_s: float | None = None  # for how long it has been so
    detail: str = ""
    counts: bool = True  # False: too old, or its source has no vote


class PlaneLine(Record, frozen=True, kw_only=True):
    """What one plane adds up to: the key into the verdict table."""

    plane: str
    value: str
    weighed: bool  # the row that decides looks at it
    detail: str = ""
    sources: tuple[SourceLine, ...] = ()


class RowLine(Record, frozen=True, kw_only=True):
    """A row of a verdict table."""

    name: str
    verdict: Verdict
    means: str


class WhatIf(Record, frozen=True, kw_only=True):
    """Another verdict, and the least that the evidence would have to say for it."""

    changes: tuple[str, ...]  # "power off"; two where one alone changes nothing like it
    verdict: Verdict
    row: str


class GuardLine(Record, frozen=True, kw_only=True):
    """A guard that would not grant a plan now."""

    guard: str
    answer: str  # wait, refuse
    why: str
    in_s: float | None = None


class PlacedVm(Record, frozen=True, kw_only=True):
    """A VM on a node."""

    namespace: str
    name: str
    state: str  # what its VMI and its recovery say, in a few words
    verdict: str = ""  # where it is not well


class MoveLine(Record, frozen=True, kw_only=True):
    """One VM of a node that is, or would be, emptied."""

    namespace: str
    name: str
    how: str  # live migration, restart elsewhere, stays
    why: str
    target: str = ""  # the node that it is sent to; empty: KubeVirt chooses
    stage: str = ""  # how far it has come; empty: nothing is under way
    since_s: float | None = None
    attempts: int = 0
    migration: str = ""  # KubeVirt's migration of it that is in flight


class DrainView(Record, frozen=True, kw_only=True):
    """What emptying one node would mean now, or how far it has come."""

    at: float
    leader: LeaderLine
    name: str
    wanted: str  # who wants it empty, and why; empty: nobody
    policy: str  # that empties it, or would; empty: none
    steps: tuple[str, ...]
    state: str
    limits: str
    guards: tuple[GuardLine, ...]  # that would withhold it now
    moves: tuple[MoveLine, ...]


class IncidentLine(Record, frozen=True, kw_only=True):
    """The open incident of a node or VM."""

    id: str
    state: str
    verdict: Verdict
    row: str
    since_s: float
    opened_s: float
    step: str = ""  # of the plan that is due
    plan: str = ""  # of a VM: policy and steps, the one that is due in brackets
    proof: str = ""


class NodeView(Record, frozen=True, kw_only=True):
    """Everything about one node."""

    at: float
    leader: LeaderLine
    own: OwnLine
    name: str
    zone: str
    boot_id: str
    verdict: Verdict
    row: RowLine
    since_s: float | None
    incident: IncidentLine | None
    hands_off: str
    marks: tuple[str, ...]  # cordoned, control plane, what we still owe it
    suspicion: float | None  # how unlikely its silence is, as a power of ten (phi)
    planes: tuple[PlaneLine, ...]
    settled: str  # why evidence turns the verdict no more, or ""
    what_if: tuple[WhatIf, ...]
    unasked: tuple[str, ...]  # planes that nothing here can speak on
    due: tuple[Due, ...]
    guards: tuple[GuardLine, ...]
    vms: tuple[PlacedVm, ...]
    vms_more: int


class FacetLine(Record, frozen=True, kw_only=True):
    """One facet of a VM: the key into the verdict table of VMs."""

    facet: str
    value: str
    weighed: bool  # the row that decides looks at it
    well: bool  # it is as of a VM that is well
    detail: str = ""


class FittingRow(Record, frozen=True, kw_only=True):
    """A row of the VM table that fits now, and how long it must before it counts."""

    name: str
    verdict: Verdict
    stood_s: float  # of proven watching; below 0 while a grace period lasts
    suspected_after_s: float
    confirmed_after_s: float


class PartLine(Record, frozen=True, kw_only=True):
    """One object of a VM: its VirtualMachine, VMI, launcher pods, migrations."""

    kind: str
    name: str
    state: str
    detail: str = ""


class VmView(Record, frozen=True, kw_only=True):
    """Everything about one virtual machine."""

    at: float
    leader: LeaderLine
    own: OwnLine
    namespace: str
    name: str
    run_strategy: str
    verdict: Verdict
    row: RowLine | None  # None: no row speaks against it
    since_s: float | None
    unjudged: str  # why nothing is concluded of it now, or ""
    incident: IncidentLine | None
    node: str
    node_verdict: str
    node_incident: str
    parts: tuple[PartLine, ...]
    facets: tuple[FacetLine, ...]
    fitting: tuple[FittingRow, ...]
    due: tuple[Due, ...]
    what_if: tuple[str, ...]
    cannot_move: tuple[str, ...]  # empty: nothing known speaks against a live migration
    if_host_dies: str  # what would be done with it; empty where it is on no host


class NoSuch(Record, frozen=True, kw_only=True):
    """What was asked for is not there."""

    subject: Subject
    detail: str  # one sentence, with names that are near
