"""How fast remediator is, as a table with ratios. Nothing is stored.

``make bench`` runs everything at the size that the project aims for (about five minutes);
``bench/run.py --quick`` runs all of it small, to see that it works: its numbers mean nothing.
What each row means: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import admission
import bus
import cold_sync
import decode
import end_to_end
import engine
import fence
import health_views
import intake
import place_plans
import probes
import vm_verdicts
from table import Row, show

import policies
from remediator import logs


class Size:
    """How much of everything."""

    def __init__(self, *, quick: bool) -> None:
        self.nodes = 100 if quick else 5_000
        self.vms = 500 if quick else 50_000
        self.events = 1_000 if quick else 50_000
        self.beats = 5_000 if quick else 100_000
        self.records = 100 if quick else 3_000
        self.per_s = 1_000 if quick else end_to_end.AIM_PER_S
        self.seconds = 3.0 if quick else 20.0
        self.probed_s = 3.0 if quick else 60.0
        self.fenced = 3 if quick else 50
        self.admitted_s = 2.0 if quick else 30.0
        self.deaths = 1 if quick else 10
        self.questions = 500 if quick else 20_000
        self.rulebook_events = 500 if quick else 20_000
        self.backtested = 2_000 if quick else 100_000
        self.steady_s = 1.0 if quick else cold_sync.STEADY_S


def measure(size: Size, only: Sequence[str]) -> list[Row]:
    """Return the rows of the parts named; of all of them when none is."""
    rows: list[Row] = []
    for name, part in _PARTS.items():
        if only and name not in only:
            continue
        print(f"measuring {name}…", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="remediator-bench-") as directory:
            rows += part(size, Path(directory))
    return rows


def _decode(size: Size, _directory: Path) -> list[Row]:
    return asyncio.run(decode.measure(size.events))


def _bus(size: Size, directory: Path) -> list[Row]:
    return asyncio.run(bus.measure(directory, size.events, size.records))


def _engine(size: Size, _directory: Path) -> list[Row]:
    return engine.measure(size.nodes, size.vms, size.beats)


def _placement(size: Size, _directory: Path) -> list[Row]:
    return place_plans.measure(size.nodes // 10, size.vms // 25)


def _vm_verdicts(size: Size, _directory: Path) -> list[Row]:
    return vm_verdicts.measure(size.nodes // 50, size.vms)


def _health(size: Size, _directory: Path) -> list[Row]:
    return health_views.measure(size.nodes, size.vms)


def _intake(size: Size, _directory: Path) -> list[Row]:
    return asyncio.run(intake.measure(size.nodes, 10))


def _end_to_end(size: Size, directory: Path) -> list[Row]:
    load = end_to_end.Load(nodes=size.nodes, vms=size.vms, per_s=size.per_s, seconds=size.seconds)
    return asyncio.run(end_to_end.measure(directory, load))


def _sync(size: Size, directory: Path) -> list[Row]:
    return asyncio.run(
        cold_sync.measure(directory, size.nodes, size.vms, disks=False, steady_s=size.steady_s)
    )


def _sync_disks(size: Size, directory: Path) -> list[Row]:
    return asyncio.run(
        cold_sync.measure(directory, size.nodes, size.vms, disks=True, steady_s=size.steady_s)
    )


def _probes(size: Size, directory: Path) -> list[Row]:
    load = probes.Load(nodes=size.nodes, seconds=size.probed_s, deaths=size.deaths)
    return asyncio.run(probes.measure(directory, load))


def _admission(size: Size, directory: Path) -> list[Row]:
    return asyncio.run(admission.measure(directory, size.admitted_s))


def _fence(size: Size, directory: Path) -> list[Row]:
    load = fence.Load(nodes=size.fenced, at_once=20, emulated=min(10, size.fenced))
    return asyncio.run(fence.measure(directory, load))


def _policies(size: Size, directory: Path) -> list[Row]:
    return policies.measure(directory, size.questions, size.rulebook_events, size.backtested)


_PARTS = {
    "decode": _decode,
    "bus": _bus,
    "engine": _engine,
    "vm-verdicts": _vm_verdicts,
    "placement": _placement,
    "policies": _policies,
    "health": _health,
    "intake": _intake,
    "end-to-end": _end_to_end,
    "probes": _probes,
    "admission": _admission,
    "fence": _fence,
    "sync": _sync,
    "sync-disks": _sync_disks,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="small; the numbers mean nothing")
    parser.add_argument("parts", nargs="*", help=f"only these: {', '.join(_PARTS)}")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    logs.configure(level="error", stream=sys.stderr)
    rows = measure(Size(quick=given.quick), given.parts)
    show(rows, "remediator bench" + (" --quick: the numbers mean nothing" if given.quick else ""))


if __name__ == "__main__":
    main()
