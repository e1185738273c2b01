"""What every source said last of a node, one line for each plane, source and aspect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from remediator.engine.context import Context
from remediator.engine.model import Plane, Reading
from remediator.engine.plane_values import READY
from remediator.engine.said import Said
from remediator.engine.silence import Beat
from remediator.engine.views import SourceLine

_DETAIL_MAX = 240
_POWER = {Reading.UP: "on", Reading.DOWN: "off", Reading.UNKNOWN: "unknown"}


def sources(context: Context, node: str, plane: str, now: float) -> Iterator[SourceLine]:
    """Yield the lines of one plane of the verdict table, in a fixed order."""
    evidence, said = context.evidence, context.evidence.said
    detection = context.settings.detection
    rules = {rule.type for rule in detection.conditions}
    match plane:
        case Plane.LEASE:
            yield from _beats(plane, evidence.leases.beats.get(node), now)
        case Plane.HANDLER:
            yield from _beats(plane, evidence.handlers.beats.get(node), now)
            yield from _said(plane, said.handler.of(node), now)
        case Plane.NETWORK:
            yield from _sights(context, node, now)
        case Plane.STORAGE:
            yield from _said(plane, said.storage.of(node), now, up_for_s=detection.storage_fresh_s)
        case Plane.POWER:
            yield from _said(plane, said.power.of(node), now, up_for_s=detection.power_fresh_s)
        case Plane.KUBELET:
            ready = (each for each in said.kubelet.of(node) if each.aspect in READY)
            yield from _said(plane, ready, now)
        case Plane.MACHINE:
            yield from _said(plane, said.machine.of(node), now)
        case "conditions":
            named = (each for each in said.kubelet.of(node) if each.aspect in rules)
            yield from _said(plane, named, now)
        case _:
            pass


def _beats(plane: str, beat: Beat | None, now: float) -> Iterator[SourceLine]:
    if beat is None:
        return
    for source, (_, arrived_at, first) in sorted(beat.said.items()):
        yield SourceLine(
            plane=plane,
            source=source,
            aspect="",
            reading="up",
            age_s=_since(arrived_at, now),
            detail="found when the watch began" if first else "",
            counts=not first,
        )


def _sights(context: Context, node: str, now: float) -> Iterator[SourceLine]:
    for sight in context.evidence.network.sights(node, now):
        zone = f"in {sight.zone}" if sight.zone else ""
        yield SourceLine(
            plane=Plane.NETWORK,
            source=sight.vantage,
            aspect="",
            reading=sight.reading.value,
            age_s=sight.age_s,
            since_s=sight.since_s,
            detail="; ".join(part for part in (zone, sight.detail[:_DETAIL_MAX]) if part),
            counts=sight.votes,
        )


def _said(
    plane: str, said: Iterable[Said], now: float, *, up_for_s: float | None = None
) -> Iterator[SourceLine]:
    """Yield what sources said; "up" says nothing about now once it is ``up_for_s`` old."""
    for each in sorted(said, key=lambda one: (one.source, one.aspect)):
        age_s = _since(each.arrived_at, now)
        stale = each.reading is Reading.UP and up_for_s is not None and age_s > up_for_s
        yield SourceLine(
            plane=plane,
            source=each.source,
            aspect=each.aspect,
            reading=_POWER[each.reading] if plane == Plane.POWER else each.reading.value,
            age_s=age_s,
            since_s=_since(each.since, now),
            detail=_detail(each, plane, now),
            counts=not stale and Reading.UNKNOWN not in (each.reading, each.firm),
        )


def _detail(said: Said, plane: str, now: float) -> str:
    """Return the source's words; of one that gives no answer now, also its last answer."""
    if said.reading is not Reading.UNKNOWN or said.firm is Reading.UNKNOWN:
        return said.detail[:_DETAIL_MAX]
    firm = _POWER[said.firm] if plane == Plane.POWER else said.firm.value
    return f"{said.detail[:_DETAIL_MAX]}; {firm} {_since(said.firm_at, now):.0f} s ago".strip("; ")


def _since(at: float, now: float) -> float:
    return round(max(0.0, now - at), 3)
