"""The whole cluster at a glance, made a slice at a time from the engine's pictures.

Nothing here changes anything. Between slices the engine may go on: each line is true at the moment
it was made, and all ages are measured against the one time that the view is of.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

from remediator.engine import fencing
from remediator.engine.context import Context
from remediator.engine.due import node_due
from remediator.engine.health_limits import budget_lines, unheard
from remediator.engine.model import NodeFacts, Subject, Verdict, node_subject
from remediator.engine.verdicts import decide
from remediator.engine.view_lines import PROVEN, leader_line, own_line, standing_verdict
from remediator.engine.views import (
    ClusterView,
    NodeLine,
    NoSuch,
    Surroundings,
    VantageLine,
    ZoneLine,
)
from remediator.engine.vm_census import VmCensus
from remediator.engine.vm_watch import VmWatch

T = TypeVar("T")

# What one answer over NATS may hold (1 MiB by default), with room to spare.
NODES_MAX = 1000
SICK_MAX = 200
# About a millisecond of work each.
_NODES_AT_ONCE, _VMS_AT_ONCE, _SICK_AT_ONCE = 50, 1000, 20

_WORST_FIRST = {
    verdict: place
    for place, verdict in enumerate(
        (
            Verdict.DEAD,
            Verdict.UNREACHABLE,
            Verdict.ISOLATED,
            Verdict.CONTRADICTION,
            Verdict.SUSPECT,
            Verdict.KUBELET_DOWN,
            Verdict.HANDLER_DOWN,
            Verdict.DEGRADED,
            Verdict.UNKNOWN,
            Verdict.HEALTHY,
        )
    )
}


def survey(
    context: Context, watch: VmWatch, around: Surroundings, *, zone: str = ""
) -> Generator[None, None, ClusterView | NoSuch]:
    """Yield between slices; return the view, or that there is no such zone."""
    zones = sorted({node.zone for node in context.inventory.nodes.values()})
    if zone and zone not in zones:
        known = ", ".join(name for name in zones if name) or "none"
        detail = f"there is no zone {zone}; known: {known}"
        return NoSuch(subject=Subject("zone", zone), detail=detail)
    nodes = _Nodes()
    for names in _slices(sorted(context.inventory.nodes), _NODES_AT_ONCE):
        for name in names:
            node = context.inventory.nodes.get(name)
            if node is not None and (not zone or node.zone == zone):
                nodes.add(context, node, around.at)
        yield
    vms = VmCensus(context, watch, nodes.doubtful, zone, around.at)
    for keys in _slices(watch.suspects(), _SICK_AT_ONCE):
        vms.look_at(keys)
        yield
    for keys in _slices(list(context.inventory.vmis), _VMS_AT_ONCE):
        vms.count(keys)
        yield
    for keys in _slices(list(context.inventory.vms), _VMS_AT_ONCE):
        vms.count_without_vmi(keys)
        yield
    nodes.listed.sort(key=lambda found: (_WORST_FIRST.get(found[0], 99), found[1]))
    lines: list[NodeLine] = []
    for found in _slices(nodes.listed[:NODES_MAX], _NODES_AT_ONCE):
        lines += [line for _, name in found if (line := _line(context, name, around.at))]
        yield
    return ClusterView(
        at=around.at,
        leader=leader_line(context, around.at),
        zone=zone,
        own=own_line(context),
        unheard=tuple(unheard(context, around, nodes.unfenceable)),
        vantages=_vantages(context, around.at),
        zones=tuple(
            ZoneLine(zone=name, nodes=count.total(), verdicts=dict(count))
            for name, count in sorted(nodes.by_zone.items())
        ),
        nodes=tuple(lines),
        nodes_more=max(0, len(nodes.listed) - NODES_MAX),
        suspicion=round(nodes.suspicion, 2),
        vms=vms.counts.total(),
        vm_verdicts=dict(vms.counts),
        sick=tuple(vms.sick[:SICK_MAX]),
        sick_more=max(0, len(vms.sick) - SICK_MAX),
        budgets=tuple(budget_lines(context, [zone] if zone else zones, around.at)),
    )


class _Nodes:
    """The nodes looked at so far."""

    def __init__(self) -> None:
        self.by_zone: dict[str, Counter[str]] = defaultdict(Counter)
        self.listed: list[tuple[Verdict, str]] = []  # that are not Healthy, or not yet done with
        self.unfenceable: list[str] = []
        self.suspicion = 0.0
        self.doubtful: set[str] = set()  # nothing is concluded of what runs on them

    def add(self, context: Context, node: NodeFacts, now: float) -> None:
        row = decide(context.evidence.values(node, now))
        incident = context.state.incident_on(node_subject(node.name))
        residue = context.state.residues.get(node.name)
        proven = incident is not None and incident.state in PROVEN
        verdict = incident.verdict if incident is not None and proven else row.verdict
        self.by_zone[node.zone][verdict.value] += 1
        overdue = context.evidence.overdue(node.name)
        if overdue:  # of the others it is below the level at which they are
            self.suspicion = max(self.suspicion, context.evidence.suspicion(node.name))
        if incident is not None or residue is not None or overdue:
            self.doubtful.add(node.name)
        if not fencing.method_for(context, node.name):
            self.unfenceable.append(node.name)
        if verdict is not Verdict.HEALTHY or incident is not None or residue is not None:
            self.listed.append((verdict, node.name))


def _line(context: Context, name: str, now: float) -> NodeLine | None:
    """Return the line of one node; None where it has been deleted meanwhile."""
    node = context.inventory.nodes.get(name)
    if node is None:
        return None
    row = decide(context.evidence.values(node, now))
    verdict, since_s = standing_verdict(context, node, row, now)
    incident = context.state.incident_on(node_subject(name))
    residue = context.state.residues.get(name)
    named, state, row_name = "", "", row.name
    if incident is not None:
        named, state = incident.id, incident.state.value
        row_name = incident.row if incident.verdict is verdict else row.name
    elif residue is not None:
        named, state = residue.incident, "over, our taints are left"
    return NodeLine(
        name=name,
        zone=node.zone,
        verdict=verdict,
        row=row_name,
        since_s=since_s,
        incident=named,
        state=state,
        vms=len(context.inventory.vmis_on(name)),
        due=next(iter(node_due(context, node, row, now)), None),
    )


def _vantages(context: Context, now: float) -> tuple[VantageLine, ...]:
    return tuple(
        VantageLine(
            name=each.name,
            zone=each.zone,
            reading=each.reading.value,
            fresh=each.fresh,
            age_s=None if each.age_s is None else max(0.0, each.age_s),
            detail=each.detail,
        )
        for each in context.evidence.network.vantages(now)
    )


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
