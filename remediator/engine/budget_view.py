"""``remediator budgets``: what each limit is, who uses it, and what is withheld now, and why."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine import due, safeguards
from remediator.engine.chain import GuardRow
from remediator.engine.context import Context
from remediator.engine.disruptions import OF_NODES, OF_VMS
from remediator.engine.health_limits import budget_lines
from remediator.engine.incidents import Incident, VmIncident
from remediator.engine.model import IncidentState, Record, Subject, node_subject
from remediator.engine.safeguards import flapping, pauses, quotas, uses
from remediator.engine.safeguards.uses import Use
from remediator.engine.standing import Answer
from remediator.engine.views import GuardLine

# Where a plan may be withheld.
_WAITING = frozenset({IncidentState.CONFIRMED, IncidentState.HELD, IncidentState.ESCALATED})
_PROVEN = frozenset({IncidentState.FENCED, IncidentState.RECOVERING})
LISTED_MAX = 500  # incidents whose guards are asked again for one view


class LimitLine(Record, frozen=True, kw_only=True):
    """One limit: what is used of it, and what it allows."""

    guard: str  # that withholds when it is spent
    about: str  # "nodes" or "VMs"
    scope: str
    used: int
    limit: int
    spent: bool  # no more is granted now
    in_s: float | None = None  # there is room again then, by time alone
    who: tuple[str, ...] = ()  # uses it, the first of them


class PauseLine(Record, frozen=True, kw_only=True):
    """One pause, by an order or by an annotation."""

    scope: str
    meaning: str  # "freeze" or "ignore"
    by: str
    reason: str = ""
    since_s: float | None = None
    in_s: float | None = None  # it ends by itself then


class ApprovalLine(Record, frozen=True, kw_only=True):
    """One incident whose plan a person is asked about, or has answered."""

    incident: str
    subject: str
    policy: str
    answer: str  # "waits", "lapsed", "approved" or "denied"
    by: str = ""
    in_s: float | None = None  # the request lapses then


class WithheldLine(Record, frozen=True, kw_only=True):
    """One incident whose plan is withheld now, and by which guards."""

    incident: str
    subject: str
    guards: tuple[GuardLine, ...]


class BudgetsView(Record, frozen=True, kw_only=True):
    """All limits, all pauses, all requests, and what is withheld."""

    at: float
    leader: str
    mode: str
    limits: tuple[LimitLine, ...]
    pauses: tuple[PauseLine, ...]
    approvals: tuple[ApprovalLine, ...]
    withheld: tuple[WithheldLine, ...]
    more_withheld: int = 0  # incidents that are not looked at here


def view(context: Context, at: float) -> BudgetsView:
    """Return the view as of ``at``."""
    open_now: list[Incident | VmIncident] = [
        *context.state.incidents.values(),
        *context.state.vm_incidents.values(),
    ]
    found = list(_withheld(context, open_now[:LISTED_MAX], at))
    return BudgetsView(
        at=at,
        leader=context.identity,
        mode="enforce" if context.enforce else "observe",
        limits=tuple(_limits(context, at)),
        pauses=tuple(_pauses(context, at)),
        approvals=tuple(_approvals(context, at)),
        withheld=tuple(found),
        more_withheld=max(0, len(open_now) - LISTED_MAX),
    )


# --- limits ---------------------------------------------------------------------------------------


def _limits(context: Context, at: float) -> Iterator[LimitLine]:
    zones = sorted({node.zone for node in context.inventory.nodes.values()} - {""})
    for share in budget_lines(context, zones, at):
        yield LimitLine(
            guard=share.name,
            about="nodes",
            scope=share.scope,
            used=share.used,
            limit=share.limit,
            spent=share.spent,
            who=tuple(share.why.split(", ")) if share.why else (),
        )
    storm = flapping.storm_seen(context)
    raging = storm.lost > storm.limit and at < storm.last_at + storm.cooldown_s
    yield LimitLine(
        guard=flapping.STORM,
        about="nodes",
        scope="cluster",
        used=storm.lost,
        limit=storm.limit,
        spent=raging,
        in_s=_left(storm.last_at + storm.cooldown_s, at) if raging else None,
        who=storm.who,
    )
    yield from _at_once(context, "nodes", at)
    yield from _at_once(context, "VMs", at)
    nobody = Subject("daemon", "")
    for about, kinds, limits in (
        ("nodes", OF_NODES, context.settings.budgets.nodes),
        ("VMs", OF_VMS, context.settings.budgets.vms),
    ):
        if limits.per_hour is not None:
            use = uses.per_time("cluster", uses.lately(context, kinds), limits.per_hour)
            yield _line(quotas.PER_HOUR, about, use, at)
        if limits.per_subject_per_hour is not None:
            for name in sorted({each.subject for each in uses.lately(context, kinds)}):
                found = uses.lately(context, kinds, subject=name)
                use = uses.per_time(name, found, limits.per_subject_per_hour)
                yield _line(quotas.PER_HOUR, about, use, at)
    for policy in context.policies:
        about = "nodes" if policy.subject.value == "Node" else "VMs"
        for use in quotas.policy_uses(context, policy, nobody):
            if not use.scope.startswith(f"policy {policy.name}, {nobody}"):
                yield _line(quotas.POLICY_LIMITS, about, use, at)


def _at_once(context: Context, about: str, at: float) -> Iterator[LimitLine]:
    """Yield the limits on things at once: of the cluster, and of every scope that is in use."""
    of_nodes = about == "nodes"
    now = uses.nodes_now(context) if of_nodes else uses.vms_now(context)
    limits = uses.node_limits(context) if of_nodes else uses.vm_limits(context)
    scopes = frozenset({"cluster"}).union(*(each.scopes for each in now))
    for use in uses.at_once(now, limits, scopes, Subject("daemon", "")):
        yield _line(quotas.AT_ONCE, about, use, at)


def _line(guard: str, about: str, use: Use, at: float) -> LimitLine:
    return LimitLine(
        guard=guard,
        about=about,
        scope=use.scope,
        used=use.used,
        limit=use.limit,
        spent=use.spent,
        in_s=None if use.until is None else _left(use.until, at),
        who=use.who,
    )


# --- what people have said ------------------------------------------------------------------------


def _pauses(context: Context, at: float) -> Iterator[PauseLine]:
    for pause in sorted(context.state.pauses.values(), key=lambda each: each.scope):
        if pause.until is None or at < pause.until:
            yield PauseLine(
                scope=pause.scope,
                meaning=pause.meaning,
                by=pause.by,
                reason=pause.reason,
                since_s=round(max(0.0, at - pause.since_at), 3),
                in_s=None if pause.until is None else _left(pause.until, at),
            )
    for subject, meaning in pauses.annotated(context):
        yield PauseLine(
            scope=str(subject), meaning=meaning, by=f"annotation {pauses.PAUSE_ANNOTATION}"
        )


def _approvals(context: Context, at: float) -> Iterator[ApprovalLine]:
    state = context.state
    for asked in state.approvals.values():
        incident = state.incidents.get(asked.incident) or state.vm_incidents.get(asked.incident)
        if incident is None:
            continue
        answer, in_s = str(asked.answer), None
        if asked.answer is Answer.NONE:
            answer = "waits" if asked.waits(at) else "lapsed"
            in_s = _left(asked.lapses_at or 0.0, at) if asked.waits(at) else None
        yield ApprovalLine(
            incident=incident.id,
            subject=str(incident.subject),
            policy=asked.policy,
            answer=answer,
            by=asked.by,
            in_s=in_s,
        )


# --- what is withheld -----------------------------------------------------------------------------


def _withheld(
    context: Context, incidents: list[Incident | VmIncident], at: float
) -> Iterator[WithheldLine]:
    for incident in incidents:
        guards = _against(context, incident, at)
        if guards:
            subject = str(incident.subject)
            yield WithheldLine(incident=incident.id, subject=subject, guards=guards)


def _against(context: Context, incident: Incident | VmIncident, at: float) -> tuple[GuardLine, ...]:
    if isinstance(incident, VmIncident):
        if incident.state not in _WAITING or incident.plan is None:
            return ()
        policy = next((p for p in context.policies if p.name == incident.plan.policy), None)
        rows = safeguards.ask_vm(context, incident.subject, policy, incident.plan)
        return _lines(safeguards.withheld(rows), at)
    if incident.state in _PROVEN:
        return _lines(safeguards.withheld(safeguards.stops(context, incident)), at)
    node = context.inventory.nodes.get(incident.subject.name)
    if incident.state not in _WAITING or node is None:
        return ()
    assert incident.subject == node_subject(node.name)
    return due.guards_against(context, node, at)


def _lines(rows: tuple[GuardRow, ...], at: float) -> tuple[GuardLine, ...]:
    return tuple(
        GuardLine(
            guard=row.guard,
            answer=row.answer,
            why=row.why,
            in_s=None if row.until is None else _left(row.until, at),
        )
        for row in rows
    )


def _left(until: float, at: float) -> float:
    return round(max(0.0, until - at), 3)
