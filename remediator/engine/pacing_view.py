"""``remediator pacing``: what waits for its start, what boots, why, and when each is back."""

from __future__ import annotations

from collections import Counter

import msgspec

from remediator.engine import pacing, placement
from remediator.engine.context import Context
from remediator.engine.model import IncidentState, Record
from remediator.engine.places import booting_now, recovering
from remediator.engine.start_queue import Choice, back_at, choose
from remediator.engine.start_rate import Phase
from remediator.engine.start_words import Candidate, Limits, Origin, Started
from remediator.engine.tiers import tier_name

LISTED_MAX = 5000  # VMs; the counts hold for all
PLACED_MAX = 50  # VMs that are told their place: a plan takes its time on the event loop
_BOOT_S = 30.0  # what a boot is taken to last before any was seen to end
_NOT_YET = frozenset(
    {IncidentState.CONFIRMED, IncidentState.HELD, IncidentState.FENCING, IncidentState.FENCED}
)


class WaitingLine(Record, frozen=True, kw_only=True):
    """One VM that waits for its start."""

    vm: str  # NAMESPACE/NAME
    tier: str
    position: int  # in the queue, from 1
    origin: str  # "deletion" of its dead pod, or "gate"
    reason: str  # a word of start_words.Reason, or "next"
    why: str
    waited_s: float
    back_in_s: float | None = None  # estimated; None where nothing can be said
    incident: str = ""
    place: str = ""  # the node that is best for it now; only of the first PLACED_MAX lines
    place_why: str = ""  # why that one, or why none


class BootingLine(Record, frozen=True, kw_only=True):
    """One VM that boots."""

    vm: str
    tier: str
    node: str
    for_s: float
    back_in_s: float
    late: bool  # longer than twice what boots take now


class BoundLine(Record, frozen=True, kw_only=True):
    """One fixed limit that is set, for each of its kind."""

    scope: str  # "cluster", "zone", "storage class", "node", "namespace"
    at_once: int | None
    per_minute: int | None


class PacingView(Record, frozen=True, kw_only=True):
    """The pace of starts as this leader sees it."""

    leader: str
    mode: str
    at: float
    limit: int  # boots at once that the storage is found to bear, those on their way included
    phase: str
    boot_s: float  # how long a boot takes that nothing slows down; 0: not known
    took_s: float  # how long boots take now; 0: not known
    booting: int
    waiting: int
    by_reason: dict[str, int]
    by_tier: dict[str, int]
    not_yet: int  # VMs of lost hosts that have no proof yet
    all_back_in_s: float | None
    bounds: tuple[BoundLine, ...]
    boots: tuple[BootingLine, ...] = ()
    queue: tuple[WaitingLine, ...] = ()
    gate: str = ""  # what becomes of starts that are not ours (docs/admission.md)
    left_out: int = 0  # lines that the bound on their number leaves out


def view(context: Context, at: float) -> PacingView:
    """Return the picture as of ``at``. Reads only."""
    rate = pacing.rate_of(context)
    held = booting_now(context, recovering(context))
    boots = [each for each in held if each.booting]
    choice = _choice(context, held)
    took_s = rate.took_s or rate.base_s or _BOOT_S
    boot_lines = _booting(boots, took_s, at)
    queue = _placed(context, choice, _queue(context, choice, len(boots), took_s, at))
    backs = [line.back_in_s for line in queue]
    backs += [line.back_in_s for line in boot_lines]
    known = [each for each in backs if each is not None]
    return PacingView(
        leader=context.identity,
        mode="enforce" if context.enforce else "observe",
        at=at,
        limit=rate.limit,
        phase=rate.learned.phase.value if rate.base_s else Phase.GROWING.value,
        boot_s=round(rate.base_s, 1),
        took_s=round(rate.took_s, 1),
        booting=len(boots),
        waiting=len(queue),
        by_reason=dict(Counter(line.reason for line in queue)),
        by_tier=dict(Counter(line.tier for line in queue)),
        not_yet=_not_yet(context),
        all_back_in_s=max(known) if known and None not in backs else None,
        bounds=_bound_lines(pacing.limits_of(context)),
        boots=tuple(boot_lines[:LISTED_MAX]),
        queue=tuple(queue[:LISTED_MAX]),
        left_out=max(0, len(queue) - LISTED_MAX) + max(0, len(boot_lines) - LISTED_MAX),
    )


def counts(context: Context) -> tuple[int, int, dict[str, int], dict[str, int]]:
    """Return the limit, how many boot, and how many wait by reason and by tier: for metrics."""
    rate = pacing.rate_of(context)
    held = booting_now(context, recovering(context))
    waits = _choice(context, held)
    reasons = Counter(each.reason.value for each in waits.waits)
    tiers = Counter(tier_name(each.candidate.tier) for each in waits.waits)
    return rate.limit, sum(each.booting for each in held), dict(reasons), dict(tiers)


def _choice(context: Context, held: list[Started]) -> Choice:
    candidates = pacing.waiting(context)
    fits = {vm: fit for vm, (_, fit) in context.pace.fits.items()}
    return choose(
        candidates,
        held,
        now=context.now,
        limits=pacing.limits_of(context),
        rate=pacing.rate_of(context).limit,
        fits=fits,
        rules=pacing.rules_of(context),
        nodes=pacing.able_nodes(context),
        opened=context.pace.shut_since,
        unready=pacing.unready(context, candidates),
    )


def _booting(boots: list[Started], took_s: float, at: float) -> list[BootingLine]:
    lines = []
    for each in sorted(boots, key=lambda one: (one.started_at, one.vm)):
        for_s = max(0.0, at - each.started_at)
        lines.append(
            BootingLine(
                vm=f"{each.vm.namespace}/{each.vm.name}",
                tier=tier_name(each.tier),
                node=each.node,
                for_s=round(for_s, 1),
                back_in_s=round(max(0.0, took_s - for_s), 1),
                late=for_s > 2 * took_s,
            )
        )
    return lines


def _queue(
    context: Context, choice: Choice, booting: int, took_s: float, at: float
) -> list[WaitingLine]:
    limit = pacing.rate_of(context).limit
    rows: list[tuple[Candidate, str, str, float | None]] = [
        (each, "next", "its turn has come", None) for each in choice.starts
    ]
    rows += [(each.candidate, each.reason.value, each.why, each.until) for each in choice.waits]
    lines = []
    for position, (candidate, reason, why, until) in enumerate(rows):
        back = back_at(position, booting, limit, took_s, at, until or 0.0)
        lines.append(
            WaitingLine(
                vm=f"{candidate.vm.namespace}/{candidate.vm.name}",
                tier=tier_name(candidate.tier),
                position=position + 1,
                origin="gate" if candidate.origin is Origin.GATE else "deletion",
                reason=reason,
                why=why,
                waited_s=round(max(0.0, at - candidate.since_at), 1),
                back_in_s=None if reason == "capacity" else round(back - at, 1),
                incident=candidate.incident,
            )
        )
    return lines


def _placed(context: Context, choice: Choice, lines: list[WaitingLine]) -> list[WaitingLine]:
    """Add where the first in the queue would go now, each counting those before it."""
    first = [*choice.starts, *(each.candidate for each in choice.waits)][:PLACED_MAX]
    answers = placement.fits(context, first)
    found = []
    for candidate, line in zip(first, lines, strict=False):
        answer = answers[candidate.vm]
        node = answer.node if isinstance(answer, placement.Placement) else ""
        refused = ", ".join(f"{each.nodes} {each.filter}" for each in answer.refused)
        why = f"{answer.why}; not: {refused}" if node and refused else answer.why
        found.append(msgspec.structs.replace(line, place=node, place_why=why))
    return [*found, *lines[len(found) :]]


def _not_yet(context: Context) -> int:
    return sum(
        len(incident.vms)
        for incident in context.state.incidents.values()
        if incident.state in _NOT_YET and incident.plan is not None
    )


def _bound_lines(limits: Limits) -> tuple[BoundLine, ...]:
    named = {
        "cluster": limits.cluster,
        "zone": limits.zone,
        "storage class": limits.storage,
        "node": limits.node,
        "namespace": limits.namespace,
    }
    return tuple(
        BoundLine(scope=name, at_once=bound.at_once, per_minute=bound.per_minute)
        for name, bound in named.items()
        if bound.at_once is not None or bound.per_minute is not None
    )
