"""One node, or one VM, as text: what every plane says, what decides, what would change it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from remediator.cli.health_text import (
    WIDTH,
    coloured,
    columns,
    due_text,
    labelled,
    leader_lines,
    moment,
    span,
)
from remediator.engine.views import (
    Due,
    GuardLine,
    IncidentLine,
    NodeView,
    PlaneLine,
    SourceLine,
    VmView,
)

# Unless more is asked for: ways to one other verdict of a node, and other verdicts of a VM.
_ALTERNATIVES, _OTHERS = 3, 6


def node_text(view: NodeView, *, wide: bool) -> str:
    """Return one node in full."""
    stands = f" for {span(view.since_s)}" if view.since_s is not None else ""
    boot = f", boot {view.boot_id}" if view.boot_id else ""
    parts = [
        f"node/{view.name} at {moment(view.at)}",
        *labelled("verdict", [f"{coloured(view.verdict)}{stands}: {view.row.means}"]),
        *labelled("row", [f"{view.row.name}, of the table in docs/verdicts.md"]),
        *labelled("where", [f"{f'zone {view.zone}' if view.zone else 'no zone'}{boot}"]),
        *_incident(view.incident),
        *labelled("hands off", [view.hands_off] if view.hands_off else []),
        *labelled("marks", view.marks),
        *leader_lines(view.leader, view.own),
        "",
        *_planes(view),
        "",
        "What would change the verdict",
        *_what_if(view, wide=wide),
        "",
        "What is due next",
        *_due(view.due),
        *_guards(view.guards),
        "",
        *_placed(view),
    ]
    return "\n".join(parts) + "\n"


def vm_text(view: VmView, *, wide: bool) -> str:
    """Return one VM in full."""
    stands = f" for {span(view.since_s)}" if view.since_s is not None else ""
    means = view.row.means if view.row is not None else "nothing speaks against it"
    if view.unjudged:
        means = f"nothing is concluded of it now: {view.unjudged}"
    node = f"on {view.node}, which is {coloured(view.node_verdict)}" if view.node else "on no node"
    if view.node_incident:
        node += f", {view.node_incident}"
    parts = [
        f"vm/{view.namespace}/{view.name} at {moment(view.at)}",
        *labelled("verdict", [f"{coloured(view.verdict)}{stands}: {means}"]),
        *labelled("row", [f"{view.row.name}, of the table of VMs"] if view.row else []),
        *labelled("where", [node]),
        *labelled("wanted", [f"run strategy {view.run_strategy or 'none: no VirtualMachine'}"]),
        *_incident(view.incident),
        *leader_lines(view.leader, view.own),
        "",
        *columns(
            ("OBJECT", "NAME", "STATE", "DETAIL"),
            [(part.kind, part.name, part.state, part.detail) for part in view.parts],
        ),
        "",
        *_facets(view, wide=wide),
        "",
        *_fitting(view),
        "What would change the verdict",
        *_bullets(_some(view.what_if, wide=wide), "nothing that is one step away"),
        "",
        "What is due next",
        *_due(view.due),
        "",
        "Could it be moved alive",
        *_bullets(view.cannot_move, "yes: nothing known speaks against a live migration"),
        "",
        "If its host died and was proven off",
        *_bullets([view.if_host_dies] if view.if_host_dies else [], "it is on no host"),
    ]
    return "\n".join(parts) + "\n"


def _incident(incident: IncidentLine | None) -> list[str]:
    if incident is None:
        return labelled("incident", ["none"])
    text = (
        f"{incident.id}, {incident.state}, opened {span(incident.opened_s)} ago;"
        f" {incident.verdict} by {incident.row} for {span(incident.since_s)}"
    )
    return labelled(
        "incident",
        [
            text,
            *([f"next step: {incident.step}"] if incident.step else []),
            *([f"plan {incident.plan}"] if incident.plan else []),
            *([f"proof: {incident.proof}"] if incident.proof else []),
        ],
    )


def _planes(view: NodeView) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for plane in view.planes:
        rows += _plane(plane)
    headings = ("PLANE", "VALUE", "SOURCE", "ASPECT", "SAYS", "AGE", "FOR", "DETAIL")
    found = columns(headings, rows)
    found.append("* the row that decides looks at this plane; (-) does not count now")
    if view.suspicion is not None:
        found.append(f"suspicion of the lease (phi): {view.suspicion:.1f}")
    return found


def _plane(plane: PlaneLine) -> list[tuple[str, ...]]:
    """Return a plane's lines: its value, then what each of its sources says."""
    value = f"{plane.value}{'*' if plane.weighed else ''}"
    head = (plane.plane, value)
    if not plane.sources:
        return [(*head, "-", "-", "-", "-", "-", plane.detail or "nothing was ever heard")]
    rows = []
    for number, source in enumerate(plane.sources):
        detail = source.detail
        if number == 0:
            detail = "; ".join(part for part in (plane.detail, detail) if part)
        rows.append((*(head if number == 0 else ("", "")), *_source(source), detail))
    return rows


def _source(source: SourceLine) -> tuple[str, ...]:
    says = source.reading if source.counts else f"{source.reading} (-)"
    return (
        source.source,
        source.aspect or "-",
        says,
        span(source.age_s),
        span(source.since_s),
    )


def _what_if(view: NodeView, *, wide: bool) -> list[str]:
    if view.settled:
        return textwrap.wrap(view.settled, WIDTH, initial_indent="  ", subsequent_indent="  ")
    shown: dict[str, int] = {}
    rows = []
    for each in view.what_if:
        shown[each.verdict] = shown.get(each.verdict, 0) + 1
        if wide or shown[each.verdict] <= _ALTERNATIVES:
            text = " and ".join(each.changes)
            rows.append((f"  {text}", f"-> {coloured(each.verdict)}", f"({each.row})"))
    found = columns(("", "", ""), rows)[1:] if rows else ["  no other evidence would"]
    if len(rows) < len(view.what_if):
        found.append(f"  … and {len(view.what_if) - len(rows)} more: -o wide")
    if view.unasked:
        planes = ", ".join(view.unasked)
        found.append(f"  ({planes}: nothing here can speak on {_these(view.unasked)})")
    return found


def _these(planes: Sequence[str]) -> str:
    return "it" if len(planes) == 1 else "them"


def _due(due: Sequence[Due]) -> list[str]:
    return _bullets([due_text(each) for each in due], "nothing")


def _guards(guards: Sequence[GuardLine]) -> list[str]:
    if not guards:
        return []
    rows = [
        (
            f"  {each.guard}",
            each.answer,
            each.why + (f" ({span(each.in_s)} left)" * bool(each.in_s)),
        )
        for each in guards
    ]
    return ["", "Guards that would withhold a plan now", *columns(("", "", ""), rows)[1:]]


def _placed(view: NodeView) -> list[str]:
    if not view.vms:
        return ["no VM is on it"]
    rows = [
        (
            f"{each.namespace}/{each.name}",
            coloured(each.verdict) if each.verdict else "-",
            each.state,
        )
        for each in view.vms
    ]
    found = columns((f"VMS ({len(view.vms) + view.vms_more})", "VERDICT", "STATE"), rows)
    if view.vms_more:
        found.append(f"… and {view.vms_more} more")
    return found


def _facets(view: VmView, *, wide: bool) -> list[str]:
    """Return what is seen of a VM: what is not as it should be, what decides, or everything."""
    rows = [
        (each.facet, f"{each.value}{'*' if each.weighed else ''}", each.detail)
        for each in view.facets
        if wide or each.weighed or not each.well or each.detail
    ]
    if not rows:
        return ["everything that is seen of it is as it should be"]
    found = columns(("SEEN", "VALUE", "DETAIL"), rows)
    return [*found, "* the row that decides looks at it"] if view.row is not None else found


def _fitting(view: VmView) -> list[str]:
    if not view.fitting:
        return []
    rows = [
        (
            each.name,
            coloured(each.verdict),
            span(each.stood_s),
            span(each.suspected_after_s),
            span(each.confirmed_after_s),
        )
        for each in view.fitting
    ]
    headings = ("ROW THAT FITS", "VERDICT", "FOR", "SUSPECTED AFTER", "CONFIRMED AFTER")
    return [*columns(headings, rows), ""]


def _some(lines: Sequence[str], *, wide: bool) -> list[str]:
    if wide or len(lines) <= _OTHERS:
        return list(lines)
    return [*lines[:_OTHERS], f"… and {len(lines) - _OTHERS} more: -o wide"]


def _bullets(lines: Sequence[str], none: str) -> list[str]:
    return [f"  {line}" for line in lines] or [f"  {none}"]
