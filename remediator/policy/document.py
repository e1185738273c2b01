"""The policy document as it stands in a file; ``loader.py`` makes the engine's ``Policy`` of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from remediator.engine.model import ProofKind, Verdict
from remediator.engine.rules import STEPS, DiskKind, Policy
from remediator.engine.vm_verdicts import TABLE as VM_TABLE

API_VERSION = "remediator.io/v1alpha1"
KIND = "RemediationPolicy"

# Verdicts after which this version has a plan. Others are reported and never acted on.
ACTED_ON = (Verdict.DEAD, Verdict.UNREACHABLE)
# Verdicts on VMs: no policy of nodes can answer them.
OF_VMS = frozenset(row.verdict for row in VM_TABLE)

_DEFAULTS = Policy(name="", source="", content_hash="", verdicts=())


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Names the policy; the name stands in every record that the policy leads to."""

    name: str


class NodeSelector(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes the policy is for: all labels must be present with these values."""

    labels: dict[str, str] = {}


class ForVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """How long single verdicts must have stood; what is left out stands for as long as ``for``."""

    dead_s: float | None = msgspec.field(name="Dead", default=None)
    unreachable_s: float | None = msgspec.field(name="Unreachable", default=None)

    def by_verdict(self) -> dict[Verdict, float]:
        """Return the verdicts that are named, with their seconds."""
        named = {Verdict.DEAD: self.dead_s, Verdict.UNREACHABLE: self.unreachable_s}
        return {verdict: for_s for verdict, for_s in named.items() if for_s is not None}


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """When, then, limits."""

    verdicts: tuple[Verdict, ...]
    subject: Literal["Node"] = "Node"
    node_selector: NodeSelector = NodeSelector()
    for_s: float = msgspec.field(name="for", default=0.0)
    for_verdict: ForVerdict = ForVerdict()
    mode: Literal["observe", "enforce"] = "enforce"  # the stricter of this and the daemon's wins
    steps: tuple[Literal["cordon", "fence", "release", "recover"], ...] = STEPS  # type: ignore[assignment]  # the same four words
    required_proof: tuple[ProofKind, ...] = _DEFAULTS.required_proof
    required_proof_by_disk: dict[DiskKind, tuple[ProofKind, ...]] = {}
    start_manual: bool = _DEFAULTS.start_manual
    priority: int = _DEFAULTS.priority


class PolicyDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One document of a policy file."""

    api_version: Literal["remediator.io/v1alpha1"]
    kind: Literal["RemediationPolicy"]
    metadata: Metadata
    spec: Spec
