"""Health views as text for a person: a table where there are rows, a sentence where there are not.

Nothing is cut off and nothing is rounded into something else: an age that is not known is "-".
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from remediator.engine.model import Verdict
from remediator.engine.views import (
    BudgetLine,
    ClusterView,
    Due,
    LeaderLine,
    NodeLine,
    OwnLine,
    VantageLine,
    VmLine,
    ZoneLine,
)

_BAD = frozenset({Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED, Verdict.CRASHED})
LABEL_WIDTH = 13
WIDTH = 100  # of sentences; tables are as wide as they must be


def cluster_text(view: ClusterView, *, wide: bool) -> str:
    """Return the cluster at a glance."""
    only = f", only zone {view.zone}" if view.zone else ""
    parts = [
        f"{_bold('cluster')} at {moment(view.at)}{only}",
        *leader_lines(view.leader, view.own),
        *_unheard(view),
        *_probes(view.vantages),
        "",
        *_zones(view.zones),
        "",
        *_nodes(view, wide=wide),
        "",
        *_vms(view, wide=wide),
        "",
        *_budgets(view.budgets, wide=wide),
    ]
    return "\n".join(parts) + "\n"


# --- words that all views share -------------------------------------------------------------------


def moment(at: float) -> str:
    """Return a time as a person writes it, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float | None) -> str:
    """Return a duration in at most two units: ``3.2 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if seconds is None:
        return "-"
    if seconds < 99.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for size, unit, small_size, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit} {rest} {small}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def coloured(verdict: str, text: str | None = None) -> str:
    """Return a verdict in its colour; where there is no terminal, click takes it off again."""
    text = verdict if text is None else text
    if verdict == Verdict.HEALTHY:
        return click.style(text, fg="green")
    if verdict in _BAD:
        return click.style(text, fg="red", bold=True)
    return click.style(text, fg="yellow") if verdict in set(Verdict) else text


def labelled(label: str, lines: Sequence[str]) -> list[str]:
    """Return lines with a label before the first; none where there are no lines."""
    return [
        f"{(label if number == 0 else ''):<{LABEL_WIDTH}}{line}".rstrip()
        for number, line in enumerate(lines)
    ]


def leader_lines(leader: LeaderLine, own: OwnLine) -> list[str]:
    """Return who made the view, and how well that one is itself."""
    says = "well"
    if own.suspended:
        says = click.style("SUSPENDED: nobody is convicted now", fg="red", bold=True)
    elif own.multiplier > 1:
        says = click.style(f"troubled: limits are {own.multiplier:g} times as long", fg="yellow")
    leads = f"{leader.identity} (epoch {leader.epoch}), leads for {span(leader.since_s)}"
    return [
        *labelled("leader", [f"{leads}, mode {leader.mode}"]),
        *labelled("own health", [says, *(f"- {reason}" for reason in own.reasons)]),
    ]


def due_text(due: Due | None) -> str:
    """Return what is next, and in what time."""
    if due is None:
        return "-"
    return due.what if due.in_s is None else f"{due.what} in {span(due.in_s)}"


def columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> list[str]:
    """Return aligned lines; ``right`` are the columns of numbers. Colours take no width."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [
        max(len(click.unstyle(line[at])) for line in lines) for at in range(len(headings) - 1)
    ]
    found = []
    for line in lines:
        cells = []
        for at, cell in enumerate(line[:-1]):
            room = " " * (widths[at] - len(click.unstyle(cell)))
            cells.append(room + cell if at in right else cell + room)
        found.append("  ".join([*cells, line[-1]]).rstrip())
    return found


def _bold(text: str) -> str:
    return click.style(text, bold=True)


# --- the parts of the cluster's view --------------------------------------------------------------


def _unheard(view: ClusterView) -> list[str]:
    """Return what is not heard; what has the same reason shares a line."""
    alike: dict[str, list[str]] = {}
    for each in view.unheard:
        alike.setdefault(each.why, []).append(each.what)
    lines: list[str] = []
    for why, named in alike.items():
        names = ", ".join(name.removeprefix("watch ") for name in named)
        text = f"{named[0]}: {why}" if len(named) == 1 else f"{len(named)} watches: {why}: {names}"
        lines += textwrap.wrap(text, WIDTH - LABEL_WIDTH, subsequent_indent="  ")
    return labelled("not heard", lines)


def _probes(vantages: Sequence[VantageLine]) -> list[str]:
    return labelled("probes", [_probe(each) for each in vantages])


def _probe(vantage: VantageLine) -> str:
    where = f"{vantage.name} in {vantage.zone}" if vantage.zone else vantage.name
    age = f"heard {span(vantage.age_s)} ago" if vantage.age_s is not None else "never heard"
    if not vantage.fresh:
        says = click.style("LOST: it has no vote", fg="yellow")
    elif vantage.reading == "up":
        says = "ok"
    else:
        says = click.style("does not reach its own references: it has no vote", fg="yellow")
    detail = f" ({vantage.detail})" if vantage.detail else ""
    return f"{where}: {says}, {age}{detail}"


def _zones(zones: Sequence[ZoneLine]) -> list[str]:
    order = sorted(Verdict, key=lambda verdict: verdict is not Verdict.HEALTHY)
    shown = [verdict.value for verdict in order if any(verdict in z.verdicts for z in zones)]
    total: dict[str, int] = {}
    for zone in zones:
        for verdict, count in zone.verdicts.items():
            total[verdict] = total.get(verdict, 0) + count
    rows = [(zone.zone or "(none)", zone.nodes, zone.verdicts) for zone in zones]
    if len(zones) != 1:
        rows.append(("all", sum(zone.nodes for zone in zones), total))
    return columns(
        ("ZONE", "NODES", *(verdict.upper() for verdict in shown), ""),
        [
            (name, str(nodes), *(_count(verdict, counts) for verdict in shown), "")
            for name, nodes, counts in rows
        ],
        right=frozenset(range(1, len(shown) + 2)),
    )


def _count(verdict: str, counts: dict[str, int]) -> str:
    return coloured(verdict, str(counts[verdict])) if counts.get(verdict) else "-"


def _nodes(view: ClusterView, *, wide: bool) -> list[str]:
    if not view.nodes:
        known = sum(zone.nodes for zone in view.zones)
        return ["every node is Healthy" if known else "no node is known"]
    row = ("ROW",) if wide else ()
    headings = ("NODE", "ZONE", "VERDICT", *row, "SINCE", "INCIDENT", "VMS", "NEXT")
    rows = [_node(each, wide=wide) for each in view.nodes]
    lines = columns(headings, rows, right=frozenset({len(headings) - 2}))
    if view.nodes_more:
        lines.append(f"… and {view.nodes_more} more that are not Healthy: narrow with --zone")
    return lines


def _node(line: NodeLine, *, wide: bool) -> tuple[str, ...]:
    incident = f"{line.incident} {line.state}".strip() or "-"
    row = (line.row,) if wide else ()
    return (
        line.name,
        line.zone or "-",
        coloured(line.verdict),
        *row,
        span(line.since_s),
        incident,
        str(line.vms),
        due_text(line.due),
    )


def _vms(view: ClusterView, *, wide: bool) -> list[str]:
    if not view.vms:
        return ["no VM is known"]
    counts = [
        f"{count} {coloured(verdict)}"
        for verdict, count in sorted(view.vm_verdicts.items(), key=lambda item: -item[1])
    ]
    lines = [f"{view.vms} VM{'s' * (view.vms != 1)}: {', '.join(counts)}"]
    if view.sick:
        row = ("ROW",) if wide else ()
        headings = ("VM", "NODE", "VERDICT", *row, "SINCE", "INCIDENT", "NEXT")
        lines += columns(headings, [_vm(each, wide=wide) for each in view.sick])
    if view.sick_more:
        lines.append(f"… and {view.sick_more} more that are not well")
    return lines


def _vm(line: VmLine, *, wide: bool) -> tuple[str, ...]:
    row = (line.row,) if wide else ()
    return (
        f"{line.namespace}/{line.name}",
        line.node or "-",
        coloured(line.verdict),
        *row,
        span(line.since_s),
        line.incident or "-",
        due_text(line.due),
    )


def _budgets(budgets: Sequence[BudgetLine], *, wide: bool) -> list[str]:
    rows = [
        (
            each.name,
            each.scope,
            click.style(str(each.used), fg="yellow") if each.spent else str(each.used),
            str(each.limit),
            str(each.of),
            f"spent: {each.why}" if each.spent else each.why * wide,
        )
        for each in budgets
    ]
    return columns(("BUDGET", "SCOPE", "USED", "LIMIT", "OF", ""), rows, right=frozenset({2, 3, 4}))
