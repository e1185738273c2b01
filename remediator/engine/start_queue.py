"""Who boots next, and what everybody else waits for.

Pure and without an engine: ``choose`` takes all who want to start, all who boot, and the limits,
and says who starts now. Nobody blocks whoever is behind: who may not start yet is passed over.

Order: the tier, raised while one waits (ageing) and up to that of whoever depends on it; then who
waited longest; then the name. Besides:

* a *dependency* starts before its dependents, which wait until it is ready, or for their time
* a *tier gate* keeps all that is below it waiting until all that is at it or above it is ready, or
  its time is up
* *limits* hold for the cluster, each zone, storage class, node and namespace: at once, per minute
* ``fits`` says who has room on which node
* after a failure, a VM waits out its back-off
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from remediator.engine.model import Record, Subject
from remediator.engine.start_order import Order
from remediator.engine.start_scopes import Scopes
from remediator.engine.start_words import (
    Bound,
    Candidate,
    Fit,
    Gate,
    Limits,
    Origin,
    Reason,
    Rules,
    Started,
)
from remediator.engine.tiers import TIERS

__all__ = [
    "TIERS",
    "Bound",
    "Candidate",
    "Choice",
    "Fit",
    "Gate",
    "Limits",
    "Origin",
    "Reason",
    "Rules",
    "Started",
    "Wait",
    "back_at",
    "choose",
    "retry_delay_s",
]


class Wait(Record, frozen=True, kw_only=True):
    """A VM that may not start now, and why."""

    candidate: Candidate
    reason: Reason
    why: str
    until: float | None = None  # when it ends by itself at the latest, where that is known


class Choice(Record, frozen=True, kw_only=True):
    """Who starts now, in order, and what the others wait for, in the order of the queue."""

    starts: tuple[Candidate, ...]
    waits: tuple[Wait, ...]
    look_at: float | None = None  # when to ask again, though nothing else happens


def choose(
    candidates: Sequence[Candidate],
    booting: Iterable[Started],
    *,
    now: float,
    limits: Limits | None = None,
    rate: int | None = None,
    fits: Mapping[Subject, Fit] | None = None,
    rules: Rules | None = None,
    nodes: Collection[str] | None = None,
    opened: Mapping[int, float] | None = None,
    unready: Mapping[Subject, str] | None = None,
    reasons: bool = True,
) -> Choice:
    """Return who of ``candidates`` starts now, and what the others wait for.

    ``booting``: all that holds a place, is not ready, or was started within the last minute.
    ``rate``: how many may boot at once, as found by StartRate. ``fits``: whoever is not in it fits.
    ``nodes``: those that may take VMs, for the bound per node where a VM's node is not known yet.
    ``opened``: tier of a gate -> since when it has been the first that is shut; its time counts
    from then; where it is not given, from the first wait. ``unready``: VMs that neither wait nor
    boot and yet are not ready, with the reason, for those that depend on them. ``reasons=False``
    leaves out the waits when no more can start.
    """
    rules = rules or Rules()
    started = list(booting)
    scopes = Scopes(limits or Limits(), rate, started, nodes, now)
    if not reasons and scopes.spent():
        return Choice(starts=(), waits=())
    queue = Order(candidates, started, rules, opened or {}, unready or {}, now)
    places = fits or {}
    starts: list[Candidate] = []
    waits: list[Wait] = []
    look_at = math.inf
    nowhere = Fit()
    for candidate in queue.order:
        fit = places.get(candidate.vm, nowhere)
        zone = candidate.zone or fit.zone
        why = queue.why(candidate)
        if why is None and fit.why_not:
            why = Reason.CAPACITY, fit.why_not, None
        if why is None:
            why = scopes.take(candidate, zone, fit.node)
        if why is None:
            starts.append(candidate)
            continue
        reason, text, until = why
        if until is not None:
            look_at = min(look_at, until)
        if reasons:
            waits.append(Wait(candidate=candidate, reason=reason, why=text, until=until))
        elif reason is Reason.PLACES:
            break
    return Choice(
        starts=tuple(starts),
        waits=tuple(waits),
        look_at=look_at if look_at < math.inf else None,
    )


def back_at(
    position: int, booting: int, rate: int, boot_s: float, now: float, not_before: float = 0.0
) -> float:
    """Estimate when the VM at ``position`` of the queue (from 0) is back.

    Those before it leave their places at a steady pace: ``rate`` of them each ``boot_s``.
    """
    free = max(0, rate - booting)
    turns = max(0, position + 1 - free) / max(1, rate)
    return max(not_before, now + turns * boot_s) + boot_s


def retry_delay_s(failures: int, first_s: float, cap_s: float) -> float:
    """Return how long a VM waits after its ``failures``-th failed start: doubled each time."""
    return min(cap_s, first_s * 2.0 ** min(32, max(0, failures - 1)))
