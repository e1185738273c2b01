"""The rows of the benchmark's table, and how it is printed."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """One measurement. ``ratio`` compares it with the row ``against``; ``aim`` is the issue's."""

    group: str
    name: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""
    aim: str = ""
    met: bool | None = None


def rate(group: str, name: str, count: int, seconds: float, base: Row | None = None) -> Row:
    """Return a row of so many things in so many seconds, beside ``base`` where there is one."""
    per_s = count / seconds
    if base is None:
        return Row(group, name, per_s, "/s")
    return Row(group, name, per_s, "/s", per_s / base.value, base.name)


def show(rows: Sequence[Row], heading: str) -> None:
    """Print the table, and the machine it was made on."""
    table = Table(title=heading, title_justify="left", caption=machine(), caption_justify="left")
    for column in ("what", "measured"):
        table.add_column(column)
    table.add_column("value", justify="right")
    table.add_column("ratio", justify="right")
    for column in ("beside", "aim", ""):
        table.add_column(column)
    group = ""
    for row in rows:
        if row.group != group and group:
            table.add_section()
        table.add_row(
            row.group if row.group != group else "",
            row.name,
            f"{_number(row.value)} {row.unit}",
            "" if row.ratio is None else f"{row.ratio:.2f} x",
            row.against,
            row.aim,
            "" if row.met is None else ("met" if row.met else "MISSED"),
        )
        group = row.group
    # Wide, so that a pipe or a file gets whole lines.
    Console(width=None if os.isatty(1) else 140).print(table)


def machine() -> str:
    """Name the machine, since the numbers mean nothing without it."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {model}; Python {platform.python_version()}, "
        f"Linux {platform.release()}; load {load:.1f} when done"
    )


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
