"""What a decision was made from, as its record keeps it: enough to make the same decision again.

Only decisions that weigh something carry inputs: an incident opened, turned or closed, a policy
chosen or none found, guards asked. What an action did is in its own record already.

Every field is as it was when it was used, not as it looks today: ``engine/reevaluate.py`` reads
them with the same tables, the same policies and the same guards, and must come to the same end.
"""

from __future__ import annotations

from typing import Any

from remediator.engine.model import Record, Verdict
from remediator.engine.plane_values import PlaneValues
from remediator.engine.settings import FenceLevel
from remediator.engine.vm_verdicts import VmValues


class OwnSeen(Record, frozen=True, kw_only=True):
    """How far this daemon trusted its own eyes; see ``own_health.py``."""

    multiplier: int = 1
    reasons: tuple[str, ...] = ()


class VmSeen(Record, frozen=True, kw_only=True):
    """What the verdict table of VMs was read with."""

    values: VmValues
    stood_s: dict[str, float] = {}  # row that fits -> for how long it has, of proven time
    patience: int = 1  # every limit of the table is so many times as long


class Answered(Record, frozen=True, kw_only=True):
    """What the policies answered, as far as it tells one answer from another."""

    policy: str = ""  # "" where none matched
    policy_hash: str = ""
    steps: tuple[str, ...] = ()
    for_s: float = 0.0  # how long the verdict had to stand
    required_proof: tuple[str, ...] = ()  # narrowed to the disks of the VMs there are
    levels: tuple[int, ...] = ()  # of the fence method: those whose proof the policy takes
    manual_starts: int = 0  # VMs that only this policy starts
    enforce: bool = True
    approval: bool = False  # a person must say yes first


class MatchSeen(Record, frozen=True, kw_only=True):
    """What the policies were asked about, when, and what they answered."""

    kind: str  # "Node" or "VirtualMachine"
    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    verdict: Verdict
    since_at: float  # since when the verdict stands
    at: float  # when they were asked
    facts: dict[str, Any] = {}  # what conditions may read, by name: match_facts.py
    answer: Answered = Answered()


class Ground(Record, frozen=True, kw_only=True):
    """What an answer comes to besides the policy: any policy's can be told from it."""

    vms: int = 0
    disks: tuple[str, ...] = ()  # kinds of disk among the VMs, by name: rules.DiskKind
    manual: int = 0  # of the VMs, those that only a person starts, or a policy with startManual
    fence_method: str = ""  # "" where the node has none
    levels: tuple[FenceLevel, ...] = ()  # all of its levels, whatever proof they give


class Inputs(Record, frozen=True, kw_only=True):
    """All that one decision was made from. What it did not ask about is ``None``.

    What each guard looked at stands beside its answer: ``GuardRow.saw``.
    """

    planes: PlaneValues | None = None  # the key that the verdict table of nodes was read with
    wanted: str = ""  # who wanted the node empty: comes before what the table says of a living one
    vm: VmSeen | None = None
    own: OwnSeen | None = None
    match: MatchSeen | None = None
    ground: Ground | None = None
    # Set where the inputs would have made the record too large, in words; then nothing else is.
    omitted: str = ""
