"""The course of a simulation, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

from remediator.rehearsal.course import Course, HostCourse, Line, Moment, Recovery

_STEPS_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
_ROWS = 24
_LEFT_SHOWN = 10
# What is told without --verbose: the rest says only that what was begun has ended well.
_TOLD = ("event", "verdict", "planned", "refused", "escalated", "resolved", "leading", "own-health")


def text_of(course: Course, *, verbose: bool) -> str:
    """Return the whole text."""
    size = f"{course.nodes} hosts in {course.zones} zones, {course.vms} VMs"
    answered = ", ".join(
        f"{name} ({course.policies.get(name, '')}) in {count}"
        for name, count in course.answered.items()
    )
    lines = [
        course.about,
        f"{size}; {course.mode}, seed {course.seed}",
        f"{_count(course.policies)}; answered incidents: {answered or 'none'}",
        "",
        *_table(_MOMENTS, [_moment(each) for each in _thinned(course.moments)]),
        "",
    ]
    if course.hosts:
        lines += [*_table(_HOSTS, [_host(each) for each in course.hosts]), ""]
    lines += [*_decisions(course.lines, verbose=verbose), "", *_result(course)]
    return "\n".join(lines) + "\n"


def _count(policies: Sized) -> str:
    return "1 policy" if len(policies) == 1 else f"{len(policies)} policies"


# --- the course -----------------------------------------------------------------------------------

_MOMENTS = (
    "TIME s", "VMS DOWN", "REQUESTED", "BOOTING", "UP AGAIN", "PROVEN", "RELEASED", "HOSTS",
)  # fmt: skip


def _moment(moment: Moment) -> tuple[str, ...]:
    hosts = ", ".join(f"{count} {state}" for state, count in moment.hosts.items())
    return (
        f"{moment.at_s:.0f}",
        str(moment.down),
        str(moment.requested),
        str(moment.booting),
        str(moment.up),
        str(moment.proven),
        str(moment.released),
        hosts or "-",
    )


def _thinned(moments: Sequence[Moment]) -> list[Moment]:
    """Return at most some rows: the last of each step of time, and the very last."""
    for step_s in _STEPS_S:
        kept: dict[int, Moment] = {int(each.at_s // step_s): each for each in moments}
        if len(kept) <= _ROWS:
            return list(kept.values())
    return list(moments[-_ROWS:])


# --- the hosts ------------------------------------------------------------------------------------

_HOSTS = (
    "HOST", "VMS", "VERDICT", "CONVICTED s", "PROVEN s", "RELEASED s", "RESOLVED s", "STATE",
    "PROOF, OR WHO WITHHELD",
)  # fmt: skip


def _host(host: HostCourse) -> tuple[str, ...]:
    withheld = ", ".join(
        f"{guard} ({times} times)" if times > 1 else guard for guard, times in host.withheld.items()
    )
    said = "; ".join(each for each in (host.proof, withheld) if each)
    return (
        host.host,
        str(host.vms),
        host.verdict,
        *map(_seconds, (host.convicted_s, host.proven_s, host.released_s, host.resolved_s)),
        host.state,
        said or "-",
    )


def _seconds(at_s: float | None) -> str:
    return "-" if at_s is None else f"{at_s:.1f}"


# --- the decisions --------------------------------------------------------------------------------


def _decisions(lines: Sequence[Line], *, verbose: bool) -> Iterator[str]:
    told = [line for line in lines if verbose or line.what in _TOLD or "(" in line.what]
    for line in told:
        yield f"{line.at_s:>7.1f}  {line.subject:<19} {line.what:<23} {line.why}".rstrip()
    if len(told) < len(lines):
        yield f"         ({len(lines) - len(told)} more decisions about hosts with --verbose)"


def _result(course: Course) -> Iterator[str]:
    recovery = course.recovery
    if recovery.lost:
        yield (
            f"{recovery.up} of {recovery.lost} VMs that were lost are up again{_times(recovery)}"
        )
    else:
        yield "no VM was lost"
    if recovery.left:
        more = len(recovery.left) - _LEFT_SHOWN
        tail = f" and {more} more" if more > 0 else ""
        yield f"still down: {', '.join(recovery.left[:_LEFT_SHOWN])}{tail}"
    if recovery.peak_boots:
        yield (
            f"peak boots: {recovery.peak_boots} at once, {_seconds(recovery.peak_boots_s)} s after "
            f"the first event; {recovery.peak_boots_host} on one host"
        )
    runs = recovery.double_runs
    yield f"VMs that ran twice at a time: {runs or 'none'}"
    end = "all was well" if course.calm else "not all was well"
    yield f"{course.records} decisions; {end} when it ended, after {course.ended_s:.0f} s"


def _times(recovery: Recovery) -> str:
    if recovery.median_s is None:
        return ""
    return (
        f": half of them within {_seconds(recovery.median_s)} s, 95 % within "
        f"{_seconds(recovery.p95_s)} s; the last {_seconds(recovery.last_s)} s after the first "
        "event"
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a plain table: numbers to the right, the last column as long as it is."""
    widths = [max(len(row[at]) for row in (headings, *rows)) for at in range(len(headings))]
    for row in (headings, *rows):
        cells = [
            cell.rjust(width) if _is_number(rows, at) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _is_number(rows: Sequence[Sequence[str]], at: int) -> bool:
    return all(row[at].replace(".", "").isdigit() or row[at] == "-" for row in rows) and at < 8
