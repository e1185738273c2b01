"""Policies in order, first match wins, with a trace of every clause that was looked at."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from remediator.engine.chain import ClauseRow
from remediator.engine.model import NodeFacts, ProofKind, Record, Verdict

STEPS: tuple[str, ...] = ("cordon", "fence", "release", "recover")


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

    def stands_for_s(self, verdict: Verdict) -> float:
        """Return how long this verdict must have stood before the policy answers it."""
        return self.for_verdict.get(verdict, self.for_s)


class Match(Record, frozen=True, kw_only=True):
    """What the policies said: the first that matched, if any, and every clause on the way."""

    policy: Policy | None
    clauses: tuple[ClauseRow, ...]
    due_at: float | None = None  # a policy would match at this time if the verdict stands


def first_match(
    policies: Sequence[Policy], node: NodeFacts, verdict: Verdict, since_at: float, now: float
) -> Match:
    """Return the first policy all of whose clauses hold for this node's verdict."""
    clauses: list[ClauseRow] = []
    due_at: float | None = None
    for policy in sorted(policies, key=lambda each: (each.priority, each.name)):
        wanted = ", ".join(policy.verdicts)
        held = verdict in policy.verdicts
        clauses.append(_row(policy, f"verdict in [{wanted}]", verdict, held=held))
        if not held:
            continue
        missing = {
            key: value for key, value in policy.node_labels.items() if node.labels.get(key) != value
        }
        for key, value in policy.node_labels.items():
            found = node.labels.get(key, "(absent)")
            clauses.append(_row(policy, f"label {key}={value}", found, held=key not in missing))
        if missing:
            continue
        stood_s = now - since_at
        for_s = policy.stands_for_s(verdict)
        held = stood_s >= for_s
        if for_s > 0:
            clauses.append(_row(policy, f"for {for_s:g} s", f"{stood_s:.1f} s", held=held))
        if not held:
            due_at = since_at + for_s if due_at is None else due_at
            continue
        return Match(policy=policy, clauses=tuple(clauses))
    return Match(policy=None, clauses=tuple(clauses), due_at=due_at)


def _row(policy: Policy, clause: str, value: str, *, held: bool) -> ClauseRow:
    return ClauseRow(policy=policy.name, clause=clause, value=str(value), held=held)
