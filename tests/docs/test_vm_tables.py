"""docs/vm-verdicts.md holds the table of the code, and explains every facet."""

from __future__ import annotations

import re
from pathlib import Path

from remediator.durations import format_duration
from remediator.engine import vm_evidence, vm_values, vm_watch
from remediator.engine.model import Verdict
from remediator.engine.vm_verdicts import FACETS, TABLE

PAGE = (Path(__file__).parents[2] / "docs" / "vm-verdicts.md").read_text()
STILL = frozenset({"none", "queued"})  # asked by every row that says nothing of migrations


def vm_table() -> str:
    lines = [
        "| row | when | verdict | means | suspected | confirmed | so long because |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in TABLE:
        when = ", ".join(
            f"{facet} {' or '.join(value for value in FACETS[facet] if value in allowed)}"
            for facet, allowed in row.when.items()
            if (facet, allowed) != ("migration", STILL) and facet != "wanted"
        )
        after, sure = format_duration(row.after_s), format_duration(row.after_s + row.hold_s)
        cells = [f"`{row.name}`", when, f"**{row.verdict}**", row.means, after, sure, row.source]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_holds_the_table_of_the_code():
    assert vm_table() in PAGE, f"docs/vm-verdicts.md should hold:\n{vm_table()}"


def test_every_facet_and_every_value_of_it_is_explained():
    told = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE))
    for facet, values in FACETS.items():
        missing = [value for value in values if f"`{value}`" not in told.get(facet, "")]
        assert missing == [], f"{facet}: {missing}"


def test_which_rows_may_fit_a_vm_that_nobody_wants_is_told():
    unconcerned = [row.name for row in TABLE if "wanted" not in row.when]
    (sentence,) = re.findall(r"[^.]*the owner wants the VM to run[^.]*\.", PAGE)
    assert re.findall(r"`([\w-]+)`", sentence) == unconcerned


def test_every_verdict_on_vms_is_told():
    for verdict in {row.verdict for row in TABLE}:
        assert verdict in Verdict
        assert f"**{verdict}**" in PAGE


def test_the_durations_in_the_text_are_those_of_the_code():
    for text in (
        f"for {format_duration(vm_watch.SETTLE_S)}",
        f"for {format_duration(vm_watch.INHERITED_SETTLE_S)}",
        f"first {format_duration(vm_evidence.BOOT_S)}",
        f"after {format_duration(vm_values.FADES_S)}",
        f"less than {format_duration(vm_values.SERIES_GAP_S)} apart",
    ):
        assert text in PAGE, text
