"""The evidence about one node as a record keeps it, and as health views show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from remediator.engine.chain import EvidenceRow
from remediator.engine.model import NodeFacts, Plane, Reading
from remediator.engine.said import Said
from remediator.engine.silence import Beat

if TYPE_CHECKING:
    from remediator.engine.evidence import Evidence
    from remediator.engine.plane_values import PlaneValues

# A record stays small: 24 rows in all, with at most so many of one kind.
_ZONES, _CONDITIONS, _SOURCES, _BMCS = 6, 4, 4, 2
_DETAIL_MAX = 240
# Readings that speak against the node stand first: those past the limit are left out.
_WORST_FIRST = {Reading.DOWN: 0, Reading.UP: 1, Reading.UNKNOWN: 2}


def node_rows(
    evidence: Evidence, node: NodeFacts, values: PlaneValues, now: float
) -> tuple[EvidenceRow, ...]:
    """Return a row for every plane that has something to say, in the order of the planes.

    The first row of a plane carries its value, those after it what its sources say one by one.
    """
    name, said = node.name, evidence.said
    conditions = [each for each in said.kubelet.of(name) if each.aspect not in ("", "Ready")]
    ready = [each for each in said.kubelet.of(name) if each.aspect in ("", "Ready")]
    return (
        _lease(evidence, name, values.lease, now),
        *_network(evidence, name, values.network, now),
        _handler(evidence, name, values.handler, now),
        *_sources(Plane.HANDLER, "", said.handler.of(name), now, limit=1),
        *_sources(Plane.STORAGE, values.storage, said.storage.of(name), now, limit=_SOURCES),
        *_power(values.power, list(said.power.of(name)), now),
        _kubelet(values.kubelet, ready, now),
        *_sources(
            Plane.KUBELET,
            "",
            (each for each in conditions if each.reading is Reading.DOWN),
            now,
            limit=_CONDITIONS,
        ),
        *_sources(Plane.MACHINE, values.machine, said.machine.of(name), now, limit=_SOURCES),
        *_own(evidence, values.own),
    )


def _lease(evidence: Evidence, node: str, value: str, now: float) -> EvidenceRow:
    beat, plane = evidence.leases.beats.get(node), evidence.leases
    detail = _heard(beat, now)
    if beat is not None:
        rhythm_s = plane.rhythm_s(node)
        every = f"renews every {rhythm_s:.1f} s; " if rhythm_s is not None else ""
        limit_s = plane.limits_s(node)[1]
        detail += f"; φ {plane.suspicion(node):.1f}; {every}silent after {limit_s:.1f} s"
    source = _newest_source(beat)
    return _row(Plane.LEASE, value, plane.silence_s(node), source=source, detail=detail)


def _handler(evidence: Evidence, node: str, value: str, now: float) -> EvidenceRow:
    beat, plane = evidence.handlers.beats.get(node), evidence.handlers
    detail = _heard(beat, now)
    source = _newest_source(beat)
    return _row(Plane.HANDLER, value, plane.silence_s(node), source=source, detail=detail)


def _network(evidence: Evidence, node: str, value: str, now: float) -> Iterable[EvidenceRow]:
    zones = evidence.network.zones(node, now)
    if not zones:
        return
    said = {each.value for each in zones}
    count = sum(each.up + each.down + each.no_vote for each in zones)
    down = sum(each.down for each in zones)
    said_now = "down" if value == "refuted" else value
    since_s = min((each.since_s for each in zones if each.value == said_now), default=0.0)
    source = f"{count} vantage points in {len(zones)} zones"
    yield _row(Plane.NETWORK, value, since_s, source=source, detail=f"{down} of {count} say down")
    if said == {"unknown"} and not down:
        return  # nobody has anything to say
    for each in sorted(zones, key=lambda vote: (vote.value == "unknown", vote.zone))[:_ZONES]:
        yield _row(
            Plane.NETWORK,
            each.value,
            each.since_s,
            source=f"zone {each.zone}" if each.zone else "no zone",
            aspect="zone",
            detail=each.detail,
        )


def _power(value: str, said: list[Said], now: float) -> Iterable[EvidenceRow]:
    """Yield the power's value with its newest source; its age is that of the last answer."""
    said.sort(key=lambda each: -each.arrived_at)
    if not said:
        yield _row(Plane.POWER, value, 0.0)
    for number, each in enumerate(said[:_BMCS]):
        shown = value if number == 0 else {"up": "on", "down": "off"}.get(each.reading, "unknown")
        age_s = now - each.arrived_at
        yield _row(Plane.POWER, shown, age_s, source=each.source, detail=each.detail)


def _kubelet(value: str, ready: list[Said], now: float) -> EvidenceRow:
    newest = max(ready, key=lambda each: each.arrived_at, default=None)
    if newest is None:
        return _row(Plane.KUBELET, value, 0.0, detail="never seen")
    since_s = now - newest.since
    return _row(Plane.KUBELET, value, since_s, source=newest.source, detail=newest.detail)


def _sources(
    plane: Plane, value: str, said: Iterable[Said], now: float, *, limit: int
) -> Iterable[EvidenceRow]:
    """Yield one row per source and aspect; the first carries the plane's value, if there is one."""
    ordered = sorted(said, key=lambda each: (_WORST_FIRST[each.reading], each.source, each.aspect))
    for number, each in enumerate(ordered[:limit]):
        yield _row(
            plane,
            value if value and number == 0 else each.reading.value,
            now - each.since,
            source=each.source,
            aspect=each.aspect,
            detail=each.detail,
        )


def _own(evidence: Evidence, value: str) -> Iterable[EvidenceRow]:
    own = evidence.own_health
    if own.multiplier > 1:
        detail = f"limits are {own.multiplier} times as long: {'; '.join(own.reasons)}"
        yield _row("own health", value, 0.0, source="this daemon", detail=detail)


def _heard(beat: Beat | None, now: float) -> str:
    if beat is None:
        return "never seen"
    return f"{'last seen' if beat.live else 'found at start'} {now - beat.at:.1f} s ago"


def _newest_source(beat: Beat | None) -> str:
    if beat is None or not beat.said:
        return ""
    return max(beat.said, key=lambda source: beat.said[source][1])


def _row(
    plane: str, value: str, since_s: float, *, source: str = "", aspect: str = "", detail: str = ""
) -> EvidenceRow:
    return EvidenceRow(
        plane=str(plane),
        value=value,
        since_s=round(since_s, 3),
        source=source,
        aspect=aspect,
        detail=detail[:_DETAIL_MAX],
    )
