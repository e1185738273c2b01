"""A policy as the engine knows it: which subjects, when, what then, within which limits."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

from remediator.engine.model import ProofKind, Record, Verdict

STEPS: tuple[str, ...] = ("cordon", "fence", "release", "recover")


class SubjectKind(enum.StrEnum):
    """What a policy is about."""

    NODE = "Node"
    VM = "VirtualMachine"


class OnFailure(enum.StrEnum):
    """What comes after a step that has failed as often as it may."""

    NEXT = "next"  # the next step: a stronger one
    HOLD = "hold"  # nothing more, until the evidence changes
    ESCALATE = "escalate"  # a human is told, and the step is tried again slowly


class ConditionError(Exception):
    """A condition could not be evaluated on these facts; one line."""


class Condition(Protocol):
    """A compiled expression over facts: pure, bounded, and typed when it was compiled."""

    @property
    def text(self) -> str:
        """The expression as it was written."""

    @property
    def names(self) -> tuple[str, ...]:
        """The facts that it reads, by name."""

    def holds(self, facts: Mapping[str, object]) -> bool:
        """Evaluate it. Raises ConditionError."""


class Window(Protocol):
    """A time in which a policy is active, such as "22:00 for 6 h, Europe/Berlin"."""

    @property
    def text(self) -> str:
        """The window as it was written."""

    def active(self, at: float) -> bool:
        """Whether ``at``, in seconds since the epoch, lies in the window."""

    def opens_at(self, after: float) -> float | None:
        """Return when it opens next; None where it never does again."""


class StepOptions(Record, frozen=True, kw_only=True):
    """How one step of a policy is tried; ``None`` takes the step's own default."""

    timeout_s: float | None = None
    attempts: int | None = None
    on_failure: OnFailure = OnFailure.ESCALATE


class Approval(Record, frozen=True, kw_only=True):
    """A person must say yes first."""

    by: tuple[str, ...] = ()  # users and groups ("group:NAME") who may; none named: any operator
    lapses_after_s: float = 3600.0
    proceeds: bool = False  # what follows when nobody has answered by then: True acts, False holds


class Limits(Record, frozen=True, kw_only=True):
    """How much one policy may disrupt; ``None`` sets no limit besides the daemon's own."""

    at_once: int | None = None
    per_hour: int | None = None
    per_subject_per_hour: int | None = None


class DiskKind(enum.StrEnum):
    """What a VM's proof protects: its most delicate disk."""

    READ_WRITE_ONCE = "readWriteOnce"  # a single node writes it; also every claim not known
    READ_WRITE_MANY = "readWriteMany"  # all of its claims may be written by many nodes
    NONE = "none"  # no persistent disk


class Policy(Record, frozen=True, kw_only=True):
    """One rule that a person wrote: when, then, limits. Built by ``remediator.policy``."""

    name: str
    source: str  # file it came from, for messages
    content_hash: str  # SHA-256 of the document
    verdicts: tuple[Verdict, ...]
    steps: tuple[str, ...] = STEPS  # a prefix of STEPS: each step makes the next one safe
    node_labels: dict[str, str] = {}  # all must be present with these values
    for_s: float = 0.0  # how long the verdict must have stood
    for_verdict: dict[Verdict, float] = {}  # the same for single verdicts, in place of ``for_s``
    enforce: bool = True  # False: this policy only says what it would do
    required_proof: tuple[ProofKind, ...] = (
        ProofKind.POWER_OFF_VERIFIED,
        ProofKind.REBOOTED,
        ProofKind.INSTANCE_GONE,
        ProofKind.STORAGE_FENCED,
        ProofKind.KERNEL_DEAD,
        ProofKind.OPERATOR_CONFIRMED,
    )
    # Per kind of disk: what of ``required_proof`` is taken for it; a kind not named takes all.
    required_proof_by_disk: dict[DiskKind, tuple[ProofKind, ...]] = {}
    start_manual: bool = False  # also start VMs whose run strategy is Manual
    priority: int = 100  # lower is asked first; then by name
    subject: SubjectKind = SubjectKind.NODE
    namespaces: tuple[str, ...] = ()  # of VMs: shell patterns; none named: all
    vm_labels: dict[str, str] = {}  # of the VirtualMachine: all must be present with these values
    condition: Condition | None = None  # must hold, besides all that is above
    windows: tuple[Window, ...] = ()  # one of them must be open; none: always
    approval: Approval | None = None
    limits: Limits = Limits()
    step_options: dict[str, StepOptions] = {}  # by step; a step not named has the defaults

    def stands_for_s(self, verdict: Verdict) -> float:
        """Return how long this verdict must have stood before the policy answers it."""
        return self.for_verdict.get(verdict, self.for_s)

    @property
    def labels(self) -> dict[str, str]:
        """The labels that a subject must have, with these values."""
        return self.node_labels if self.subject is SubjectKind.NODE else self.vm_labels

    def options(self, step: str) -> StepOptions:
        """Return how this step is to be tried."""
        return self.step_options.get(step, StepOptions())
