"""How soon a fault becomes a verdict, and how often a verdict is wrong. Simulated, on virtual time.

``make bench-detect`` plays every kind of fault from many seeds against the real replicas and
vantage points, and then weeks of ordinary trouble, in which nothing may be fenced.
``bench/detect.py --quick`` does all of it small, to see that it works.
What was measured, and what each row means: docs/detection.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence

import harness_path  # noqa: F401
import structlog
from detect_faults import KINDS, Kind, Run, play
from detect_replicas import days_of_replicas
from detect_signals import Days, days_of_signals
from rich.console import Console
from rich.table import Table
from table import machine


class Size:
    """How much of everything."""

    def __init__(self, *, quick: bool) -> None:
        self.seeds = 1 if quick else 20  # per kind of fault
        self.signal_nodes = 20 if quick else 100
        self.signal_days = 0.02 if quick else 10.0
        self.replica_hours = 0.1 if quick else 24.0


def _percentile(sorted_s: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile."""
    return sorted_s[max(0, -(-round(share * 100) * len(sorted_s) // 100) - 1)]


def fault_table(runs: Sequence[Run]) -> Table:
    """Return the distribution of fault-to-verdict, a row for each kind of fault."""
    table = Table(title="from fault to verdict", title_justify="left")
    table.add_column("fault")
    for column in ("runs", "min", "p50", "p95", "max"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for column in ("fenced", "wrongly"):
        table.add_column(column, justify="right")
    table.add_column("aim")
    for kind in KINDS:
        mine = [run for run in runs if run.kind is kind]
        if not mine:
            continue
        took = sorted(run.after_s for run in mine if run.after_s is not None)
        verdicts = Counter(run.verdict or "none" for run in mine)
        said = ", ".join(
            f"{verdict}" + (f" {count}" if count < len(mine) else "")
            for verdict, count in verdicts.most_common()
        )
        shown = (
            [f"{_percentile(took, share):.1f} s" for share in (0.0, 0.5, 0.95, 1.0)]
            if took
            else ["-"] * 4
        )
        table.add_row(
            kind.name,
            str(len(mine)),
            *shown,
            said,
            str(sum(bool(run.fenced) for run in mine)),
            str(sum(run.wrong_fences for run in mine)),
            _aim(kind, took, mine),
        )
    return table


def _aim(kind: Kind, took: Sequence[float], runs: Sequence[Run]) -> str:
    if kind.verdicts:
        met = len(took) == len(runs) and all(run.as_told for run in runs)
        text = f"{'/'.join(kind.verdicts)}"
        if kind.within_s:
            met = met and max(took, default=float("inf")) <= kind.within_s
            text += f" within {kind.within_s:g} s"
        if kind.p50_within_s:
            met = met and _percentile(took, 0.5) <= kind.p50_within_s
            text += f", half within {kind.p50_within_s:g} s"
    else:
        met, text = not took, "no conviction"
    return f"{text}: {'met' if met else 'MISSED'}"


def noise_table(days: Sequence[Days]) -> Table:
    """Return what ordinary trouble did, a row for each generator."""
    table = Table(title="ordinary trouble: nothing may be fenced", title_justify="left")
    table.add_column("what ran")
    for column in ("node-days", "signals", "incidents", "convictions", "wrong fences", "wall time"):
        table.add_column(column, justify="right")
    for one in days:
        table.add_row(
            one.what,
            f"{one.node_days:,.1f}",
            f"{one.signals:,}",
            f"{one.opened:,}",
            f"{one.convicted:,}",
            f"{one.wrong_fences:,}",
            f"{one.wall_s:,.0f} s",
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small; the numbers mean little")
    parser.add_argument("--seeds", type=int, help="runs for each kind of fault")
    parser.add_argument("--node-days", type=float, help="of signals into the engine alone")
    parser.add_argument("kinds", nargs="*", help="only these kinds of faults; no noise")
    given = parser.parse_args()
    names = [kind.name for kind in KINDS]
    if unknown := set(given.kinds) - set(names):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    size = Size(quick=given.quick)
    seeds = given.seeds or size.seeds
    console = Console(width=None if sys.stdout.isatty() else 175)
    began = time.perf_counter()
    runs: list[Run] = []
    for kind in KINDS:
        if given.kinds and kind.name not in given.kinds:
            continue
        print(f"playing {kind.name}…", file=sys.stderr, flush=True)
        runs += [play(kind, seed) for seed in range(seeds)]
    console.print(fault_table(runs))
    console.print(f"{len(runs)} runs in {time.perf_counter() - began:,.0f} s of this machine")
    for run in runs:
        if not run.as_told:
            console.print(f"not as told: {run}")
    if given.kinds:
        return
    days = size.signal_days
    if given.node_days is not None:
        days = given.node_days / size.signal_nodes
    print("playing ordinary trouble…", file=sys.stderr, flush=True)
    console.print(
        noise_table(
            [
                days_of_signals(size.signal_nodes, days, seed=1),
                days_of_replicas(size.replica_hours, seed=1),
            ]
        )
    )
    console.print(machine())


if __name__ == "__main__":
    main()
