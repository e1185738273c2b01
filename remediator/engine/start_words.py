"""Words of the queue of starts: who wants to start, who does, what bounds it, and what for."""

from __future__ import annotations

import enum

from remediator.engine.model import Record, Subject


class Origin(enum.StrEnum):
    """How a start is carried out."""

    DELETION = "deletion"  # its old launcher pod is deleted: KubeVirt makes a new one
    GATE = "gate"  # its new launcher pod waits at our scheduling gate


class Candidate(Record, frozen=True, kw_only=True):
    """A VM that wants to start."""

    vm: Subject
    origin: Origin = Origin.DELETION
    incident: str = ""  # whose recovery it is part of; "" where somebody else restarts it
    pod: str = ""  # the launcher pod to delete, or to open the gate of
    pod_uid: str = ""
    tier: int = 0  # higher starts first; see TIERS
    after: tuple[Subject, ...] = ()  # must be ready before
    cpu_m: int = 0  # what it requests, in thousandths of a CPU
    memory_bytes: int = 0
    storage: tuple[str, ...] = ()  # storage classes of its disks
    zone: str = ""  # where it will run, if that is known
    since_at: float = 0.0  # when it began to wait
    not_before: float = 0.0  # end of its back-off
    attempts: int = 0


class Started(Record, frozen=True, kw_only=True):
    """A VM that was started lately: it boots, or is not ready, or counts for its minute."""

    vm: Subject
    started_at: float
    tier: int = 0
    booting: bool = True  # holds a place
    ready: bool = False  # whoever waits for it may start
    storage: tuple[str, ...] = ()
    zone: str = ""
    node: str = ""


class Bound(Record, frozen=True, kw_only=True):
    """How many starts one scope allows; ``None`` is no bound."""

    at_once: int | None = None
    per_minute: int | None = None


class Limits(Record, frozen=True, kw_only=True):
    """The bounds of all scopes. Those of zones and so on hold for each one of them."""

    cluster: Bound = Bound()
    zone: Bound = Bound()
    storage: Bound = Bound()
    node: Bound = Bound()
    namespace: Bound = Bound()
    # Exceptions by name: "storage:fast", "zone:a", "namespace:payments", "node:n1".
    named: dict[str, Bound] = {}


class Gate(Record, frozen=True, kw_only=True):
    """Nothing below ``tier`` starts before all at it or above it is ready, or its time is up."""

    tier: int
    timeout_s: float


class Rules(Record, frozen=True, kw_only=True):
    """How waiting is ordered and bounded, besides the limits. Durations in seconds."""

    gates: tuple[Gate, ...] = ()
    # Whoever waits so long counts as one tier higher, and so on.
    age_s: float = 600.0
    # A dependency that is not ready by then is waited for no longer.
    dependency_timeout_s: float = 600.0


class Fit(Record, frozen=True, kw_only=True):
    """Where a VM would go, or why it fits nowhere."""

    node: str = ""
    zone: str = ""
    why_not: str = ""
    why: str = ""  # what makes the node better than others, where its disks do


class Reason(enum.StrEnum):
    """What a VM waits for."""

    PLACES = "places"  # as many boot as the storage was found to serve, or the cluster may
    PER_MINUTE = "per-minute"
    ZONE = "zone"
    STORAGE = "storage"
    NODE = "node"
    NAMESPACE = "namespace"
    TIER = "tier"
    DEPENDENCY = "dependency"
    CAPACITY = "capacity"
    BACK_OFF = "back-off"
