"""How long until everything is up again, by who paces the storm. Simulated storage, virtual time.

``make bench-storm`` plays every case with every pace from several seeds, prints the tables, and
writes the plots beside docs/storm.md and the tables into it. ``--quick`` plays it small, to see
that it works, and writes nothing. What is modelled, and what is not: docs/storm.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness_path  # noqa: F401
from storm_ours import Ours, Told
from storm_paces import Batches, PerMinute, PerNode, Unpaced
from storm_plots import plot
from storm_world import TIERS, Case, Course, Pace, Vm, play
from table import machine

from remediator.sim.storage import StorageSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- made by make bench-storm -->", "<!-- end of what it made -->"

Maker = Callable[[Case, Sequence[Vm]], Pace]
PACES: dict[str, Maker] = {
    "none": lambda _case, vms: Unpaced(vms),
    "4 per node": lambda _case, vms: PerNode(vms),
    "batches of 32": lambda _case, vms: Batches(vms),
    "50 a minute": lambda _case, vms: PerMinute(vms),
    "ours": Ours,
    "told": Told,
}


def storage(knee: int, *, thrash: float = 0.5, boot_timeout_s: float = 600.0) -> StorageSettings:
    """Return storage that serves so many boots of 10 s at full speed."""
    return StorageSettings(iops=1500.0 * knee, thrash=thrash, boot_timeout_s=boot_timeout_s)


MAIN = (
    Case(name="20 VMs of 1 host", vms=20, lost=1, survivors=11),
    Case(name="100 VMs of 4 hosts", vms=100, lost=4, survivors=36),
    Case(name="500 VMs of 10 hosts", vms=500, lost=10, survivors=90),
    Case(name="2,000 VMs of 40 hosts", vms=2000, lost=40, survivors=160, horizon_s=12 * 3600.0),
)
SWEPT = (
    *(
        Case(name=f"500 VMs, knee {knee}", vms=500, lost=10, survivors=90, storage=storage(knee))
        for knee in (5, 20, 40, 100)
    ),
    *(
        Case(
            name=f"500 VMs, thrash {thrash:g}",
            vms=500,
            lost=10,
            survivors=90,
            storage=storage(10, thrash=thrash),
        )
        for thrash in (0.1, 1.0)
    ),
    Case(
        name="500 VMs, boots time out after 120 s",
        vms=500,
        lost=10,
        survivors=90,
        storage=storage(10, boot_timeout_s=120.0),
    ),
)
QUICK = (
    Case(name="20 VMs of 1 host", vms=20, lost=1, survivors=11),
    Case(name="60 VMs, knee 5", vms=60, lost=3, survivors=9, storage=storage(5), horizon_s=3600.0),
)


@dataclass(frozen=True, slots=True)
class Played:
    """One case, one pace, all seeds."""

    case: Case
    pace: str
    courses: tuple[Course, ...]
    vms: tuple[Sequence[Vm], ...]

    def all_up_s(self) -> list[float]:
        """Return the time to all up per seed; infinite where some never were."""
        return [
            max(course.up_at.values()) if len(course.up_at) == len(vms) else float("inf")
            for course, vms in zip(self.courses, self.vms, strict=True)
        ]

    def against_bound(self) -> float:
        """Return the median of the time to all up over the bound of the same seed."""
        bounds = [self.case.bound_s(vms) for vms in self.vms]
        return statistics.median(s / b for s, b in zip(self.all_up_s(), bounds, strict=True))

    def tier_s(self, tier: int, share: float) -> float:
        """Return the percentile of the time until a VM of this tier was up, over all seeds."""
        took = sorted(
            course.up_at.get(vm.name, float("inf"))
            for course, vms in zip(self.courses, self.vms, strict=True)
            for vm in vms
            if vm.tier == tier
        )
        if not took:
            return float("nan")
        return took[max(0, -(-round(share * 100) * len(took) // 100) - 1)]


def play_all(cases: Sequence[Case], seeds: int) -> list[Played]:
    """Play every case with every pace."""
    played: list[Played] = []
    for case in cases:
        dealt = tuple(case.specs(seed) for seed in range(1, seeds + 1))
        for name, make in PACES.items():
            began = time.perf_counter()
            courses = tuple(play(case, vms, make(case, vms)) for vms in dealt)
            played.append(Played(case, name, courses, dealt))
            print(f"  {case.name}, {name}: {time.perf_counter() - began:.1f} s", flush=True)
    return played


def tables(played: Sequence[Played]) -> str:
    """Return the tables as Markdown."""
    lines: list[str] = []
    for case in dict.fromkeys(one.case for one in played):
        mine = [one for one in played if one.case is case]
        bound = statistics.median(case.bound_s(vms) for vms in mine[0].vms)
        lines += [
            (
                f"**{case.name}**: nobody can be faster than {bound:.0f} s"
                f" (knee at {case.storage.knee:.0f} boots)"
            ),
            "",
            "| pace | all up | x bound | "
            + " | ".join(f"{tier} p50 / p95" for tier in TIERS)
            + " | peak boots | failed boots |",
            "|---|---:|---:|" + "---:|" * (len(TIERS) + 2),
        ]
        for one in mine:
            tiers = " | ".join(
                f"{_s(one.tier_s(tier, 0.5))} / {_s(one.tier_s(tier, 0.95))}"
                for tier in range(len(TIERS))
            )
            peak = max(course.peak_boots for course in one.courses)
            failed = round(statistics.median(course.failed_boots for course in one.courses))
            up = statistics.median(one.all_up_s())
            lines.append(
                f"| {one.pace} | {_s(up)} | {_ratio(one.against_bound())} | {tiers} | {peak} |"
                f" {failed:,} |"
            )
        lines.append("")
    return "\n".join(lines)


def _s(seconds: float) -> str:
    if seconds != seconds:  # noqa: PLR0124 - no VM is of this tier
        return "-"
    return "never" if seconds == float("inf") else f"{seconds:,.0f} s"


def _ratio(ratio: float) -> str:
    return "-" if ratio == float("inf") else f"{ratio:.2f}"


def main() -> None:
    """Play, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small cases, one seed")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        print(tables(play_all(QUICK, 1)))
        return
    main_cases = play_all(MAIN, options.seeds)
    swept = play_all(SWEPT, options.seeds)
    text = (
        f"## By size\n\n{tables(main_cases)}\n## By storage\n\n{tables(swept)}\n"
        f"{options.seeds} seeds each, medians; tiers over all VMs of all seeds. {machine()}.\n"
    )
    print(text)
    for case in MAIN:
        plot(case, [one for one in main_cases if one.case is case], DOCS / "storm")
    page = DOCS / "storm.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
