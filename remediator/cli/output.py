"""How results are printed: tables for people, JSON and YAML for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

_STYLES = {
    "escalated": "bold red",
    "refused": "yellow",
    "finished": "green",
    "resolved": "bold green",
    "verdict": "cyan",
    "started": "blue",
}


def dump(value: object, form: str) -> str:
    """Return ``value`` (plain types) as JSON or YAML text that ends in a newline."""
    import msgspec  # noqa: PLC0415 - not needed for --help

    if form == "json":
        return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"
    import yaml  # noqa: PLC0415 - the same

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, kind_at: int) -> None:
    """Print rows: with colours and folding on a terminal, else one plain line each.

    ``kind_at`` is the column whose word chooses the row's colour.
    """
    if not sys.stdout.isatty():
        _print_plain(headings, rows)
        return
    from rich import box  # noqa: PLC0415 - rich costs 100 ms that pipes need not pay
    from rich.console import Console  # noqa: PLC0415 - the same
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in headings[:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(headings[-1], overflow="fold")
    for row in rows:
        # Text, not str: a name in the cluster must not be read as rich's markup.
        table.add_row(*(Text(cell) for cell in row), style=_STYLES.get(row[kind_at], ""))
    Console().print(table)


def _print_plain(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines: list[Sequence[Any]] = [headings, *rows]
    widths = [max(len(str(line[at])) for line in lines) for at in range(len(headings) - 1)]
    for line in lines:
        cells = [str(cell).ljust(width) for cell, width in zip(line, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, str(line[-1])]).rstrip() + "\n")
