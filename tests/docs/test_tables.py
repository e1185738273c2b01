"""The tables in docs/ are the tables in the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator.engine.incidents import TRANSITIONS
from remediator.engine.model import IncidentState, ProofKind
from remediator.engine.safeguards import GUARDS
from remediator.engine.verdicts import TABLE

DOCS = Path(__file__).parents[2] / "docs"


def verdict_table() -> str:
    lines = ["| row | when | verdict | means |", "|---|---|---|---|"]
    for row in TABLE:
        when = [f"{plane} {' or '.join(sorted(allowed))}" for plane, allowed in row.needs]
        cells = [f"`{row.name}`", ", ".join(when) or "else", f"**{row.verdict}**", row.means]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def life_cycle_table() -> str:
    lines = ["| in state | when | goes to |", "|---|---|---|"]
    order = list(IncidentState)
    for (state, trigger), to in sorted(
        TRANSITIONS.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
    ):
        lines.append(f"| {state} | {trigger} | {to} |")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("page", "table"),
    [("verdicts.md", verdict_table()), ("life-cycle.md", life_cycle_table())],
)
def test_the_page_holds_the_table_of_the_code(page, table):
    assert table in (DOCS / page).read_text(), f"docs/{page} should hold:\n{table}"


def test_every_proof_is_explained():
    text = (DOCS / "proof.md").read_text()
    assert [kind for kind in ProofKind if f"`{kind}`" not in text] == []


def test_every_guard_is_explained():
    text = (DOCS / "guards.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]
    explained = {row.strip("`") for row in rows}
    names = {guard.__name__.strip("_").replace("_", "-") for guard in GUARDS} | {"hands-off"}
    # The row of a record carries the guard's public name; a few functions are named shorter.
    public = {
        "method": "fence-method",
        "trust": "power-trust",
        "cooldown": "cool-down",
        "fences": "fences-at-once",
        "replicas": "storage-replicas",
    }
    assert {public.get(name, name) for name in names} == explained
