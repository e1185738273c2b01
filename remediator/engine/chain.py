"""The decision record, its canonical bytes, and the hash link that makes the log tamper-evident.

Record ``n`` carries the SHA-256 of record ``n-1``'s canonical bytes. Canonical bytes are msgspec's
JSON with sorted keys: one encoder, one form. ``seq`` equals the JetStream sequence, so a hole or a
foreign message shows too.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from remediator.engine.inputs import Inputs
from remediator.engine.model import Action, IncidentState, Outcome, Proof, Record, Subject, Verdict
from remediator.engine.start_rate import Learned

GENESIS = "0" * 64  # what the first record carries as ``prev``
# Raised when an older version would misread a record; readers refuse what is newer than they know.
# 2: records carry the inputs of decisions, and guard rows what they were answered from.
SCHEMA = 2

# Bytes of a record past which its inputs are left out: NATS takes messages of at most 1 MiB, and
# the headers and a snapshot's own words need some of it.
RECORD_MAX = 768 * 1024


class DecisionKind(enum.StrEnum):
    """What a record is about. Each kind is one arrow of an incident's story."""

    LEADING = "leading"  # a leader took over
    OPENED = "opened"  # an incident began
    VERDICT = "verdict"  # the verdict on an open incident's subject changed
    PLANNED = "planned"  # a policy matched and yielded a plan
    REFUSED = "refused"  # a guard or budget said no, or not yet
    ESCALATED = "escalated"  # the plan ran out of steps, or none may be taken: a human is asked
    STARTED = "started"  # an action is about to be handed to the runner
    RESUMED = "resumed"  # an action without an outcome is repeated after a take-over
    FINISHED = "finished"  # an action ended
    SKIPPED = "skipped"  # a step of the plan was not needed any more
    MOVED_ON = "moved-on"  # a step did not help, or does not apply: the plan's next one follows
    PROGRESS = "progress"  # a VM was requested, runs, or is left as it is, and why
    RESOLVED = "resolved"  # the incident is over
    COMMAND = "command"  # a person ordered something; the text says who, why, and whether obeyed
    FENCE_METHODS = "fence-methods"  # other fence configurations are in force from now on
    PACED = "paced"  # the pace of starts changed, or gates were adopted
    POLICIES = "policies"  # other policies are in force from now on
    OWN_HEALTH = "own-health"  # our own trouble suspends convictions, or no longer does


class Order(Record, frozen=True, kw_only=True):
    """What a person ordered, as the record of it keeps it."""

    verb: str
    target: str  # a subject, a scope or an incident, as it was given
    by: str
    reason: str
    obeyed: bool
    until: float | None = None  # when it ends by itself


class EvidenceRow(Record, frozen=True, kw_only=True):
    """What one plane said when the decision was made."""

    plane: str
    value: str  # "silent", "up", "off", "unknown"
    since_s: float  # how long it has been so, seconds
    source: str = ""
    detail: str = ""
    aspect: str = ""  # which of several things of this source: a condition type, an object


class ClauseRow(Record, frozen=True, kw_only=True):
    """One clause of one policy, and whether it held."""

    policy: str
    clause: str
    value: str
    held: bool


class GuardRow(Record, frozen=True, kw_only=True):
    """One guard or budget that was asked, and what it answered.

    ``saw`` is all that the answer was computed from, as plain JSON: ``guard_answers.again`` makes
    the same answer of it. Empty: the answer cannot be reproduced.
    """

    guard: str
    answer: str  # "grant", "wait" or "refuse"
    why: str
    until: float | None = None
    saw: dict[str, Any] = {}
    policy: str = ""  # of "approval": whose plan a person is asked to approve
    lifted: str = ""  # who has approved it although the guard withheld


class VmPlan(Record, frozen=True, kw_only=True):
    """One VM of a dead node: what its run strategy and disks mean for its recovery."""

    vm: Subject
    vmi_uid: str
    run_strategy: str
    treatment: str  # "restart", "leave-stopped": see planner.py
    why: str
    claims: tuple[str, ...] = ()
    agent: bool = False  # its guest agent answered before: it is up when it does again


class PlanLevel(Record, frozen=True, kw_only=True):
    """One level of the fence configuration that the plan may use."""

    index: int  # in the configuration, counted from 0
    name: str  # its devices
    proof: str
    attempts: int
    deadline_s: float


class Plan(Record, frozen=True, kw_only=True):
    """The ordered steps that a policy yields for one incident."""

    policy: str
    policy_hash: str
    verdicts: tuple[Verdict, ...]  # under which the policy lets the plan go on
    steps: tuple[str, ...]
    required_proof: tuple[str, ...]
    fence_method: str  # name of the fence configuration, "" where the node has none
    vms: tuple[VmPlan, ...]
    levels: tuple[PlanLevel, ...] = ()  # those of its levels whose proof the policy takes


class Decision(Record, frozen=True, kw_only=True):
    """One record of the journal: a choice or an outcome, its inputs, and why."""

    seq: int
    prev: str
    at: float
    leader: str
    epoch: int
    kind: DecisionKind
    subject: Subject
    why: str
    mode: str = "observe"
    incident: str = ""
    state: IncidentState | None = None  # the incident's state after this record
    verdict: Verdict | None = None
    row: str = ""  # the row of the verdict table that decided
    evidence: tuple[EvidenceRow, ...] = ()
    clauses: tuple[ClauseRow, ...] = ()
    guards: tuple[GuardRow, ...] = ()
    plan: Plan | None = None
    action: Action | None = None
    outcome: Outcome | None = None
    proof: Proof | None = None
    boot_id: str = ""  # the node's boot that the incident is about
    uid: str = ""  # uid of the subject's object; of a COMMAND: the order's own id
    vm: VmPlan | None = None  # on PROGRESS: the VM, where the plan did not name it before
    stage: str = ""  # on PROGRESS: how far this VM's recovery has come
    retry_at: float | None = None  # when this will be tried or asked again
    order: Order | None = None  # on COMMAND: what was ordered
    inputs: Inputs | None = None  # what it was made from, where it weighs something
    learned: Learned | None = None  # on PACED: what is known of how many may boot at once
    schema: int = SCHEMA


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Decision)


class ChainError(Exception):
    """The log is not the one we wrote: names the first bad sequence and what is wrong with it."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(f"record {seq}: {problem}")
        self.seq = seq
        self.problem = problem


class Head(Record, frozen=True, kw_only=True):
    """The end of the chain: the last record's sequence and the hash of its bytes."""

    seq: int = 0
    digest: str = GENESIS


def encode(decision: Decision) -> bytes:
    """Return the canonical bytes of a record."""
    return _encoder.encode(decision)


def seal(decision: Decision) -> tuple[Decision, bytes]:
    """Return a record as it is appended, and its bytes: without inputs that would not fit."""
    payload = encode(decision)
    if len(payload) <= RECORD_MAX or decision.inputs is None:
        return decision, payload
    bare = msgspec.structs.replace(
        decision, inputs=Inputs(omitted=f"with its inputs the record has {len(payload)} bytes")
    )
    return bare, encode(bare)


def decode(payload: bytes, seq: int = 0) -> Decision:
    """Read a record back; ``seq`` only names it in the error.

    Raises ChainError when the bytes are not a record, or one of a newer schema.
    """
    try:
        decision = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ChainError(seq, f"not a decision record: {error}") from error
    if decision.schema > SCHEMA:
        raise ChainError(seq, f"schema {decision.schema} is newer than this version's {SCHEMA}")
    return decision


def advance(payload: bytes, seq: int) -> Head:
    """Return the head after a record with these bytes."""
    return Head(seq=seq, digest=hashlib.sha256(payload).hexdigest())


def check_link(head: Head, seq: int, payload: bytes) -> tuple[Head, Decision]:
    """Check that a record continues the chain at ``head``; return the new head and the record.

    Raises ChainError when a record is missing, moved, altered or not ours.
    """
    if seq != head.seq + 1:
        raise ChainError(head.seq + 1, f"missing: the stream goes on at sequence {seq}")
    decision = decode(payload, seq)
    if decision.seq != seq:
        raise ChainError(seq, f"says that it is record {decision.seq}")
    if decision.prev != head.digest:
        raise ChainError(seq, f"does not follow record {head.seq}: its link is broken")
    return advance(payload, seq), decision


def verify(records: Iterable[tuple[int, bytes]], head: Head | None = None) -> Head:
    """Walk records in order from ``head`` (the beginning, by default); return the new head.

    Raises ChainError at the first record that does not fit.
    """
    current = head or Head()
    for seq, payload in records:
        current, _ = check_link(current, seq, payload)
    return current
