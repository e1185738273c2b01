"""One picture a case: how many VMs are up as time goes by, and how many boot, by pace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from storm import Played
    from storm_world import Case

_STYLE = {
    "none": ("#999999", "-"),
    "4 per node": ("#e69f00", "-"),
    "batches of 32": ("#56b4e9", "-"),
    "50 a minute": ("#cc79a7", "-"),
    "told": ("#009e73", ":"),
    "ours": ("#d55e00", "-"),
}


def plot(case: Case, played: Sequence[Played], directory: Path) -> Path:
    """Draw the first seed of a case into ``directory``; return the file."""
    directory.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = case.name  # the same picture for the same figures
    figure, (up, boots) = plt.subplots(2, 1, figsize=(8, 6), sharex=True)
    bound_s = case.bound_s(played[0].vms[0])
    width_s = bound_s * 4.0
    for one in played:
        colour, line = _STYLE[one.pace]
        course = one.courses[0]
        times = sorted(course.up_at.values())
        up.step(
            [0.0, *times, width_s],
            [0, *range(1, len(times) + 1), len(times)],
            line,
            where="post",
            color=colour,
            label=one.pace,
        )
        shown = _thinned([point for point in course.boots if point[0] <= width_s])
        boots.step([at for at, _ in shown], [n for _, n in shown], line, where="post", color=colour)
    up.axvline(bound_s, color="black", linewidth=0.8, linestyle="--", label="lower bound")
    boots.axhline(case.storage.knee, color="black", linewidth=0.8, linestyle="--")
    up.set_xlim(0, width_s)
    up.set_ylabel("VMs up")
    up.legend(loc="lower right", fontsize="small")
    boots.set_yscale("symlog", linthresh=10)
    boots.set_ylim(bottom=0)
    boots.set_ylabel("boots at once (dashed: knee)")
    boots.set_xlabel("seconds since the hosts were proven off")
    up.set_title(case.name)
    figure.tight_layout()
    name = re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")
    path = directory / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _thinned(points: Sequence[tuple[float, int]]) -> Sequence[tuple[float, int]]:
    """Leave out what no eye would see: a picture has some hundred columns."""
    every = max(1, len(points) // 300)
    return points[::every]
