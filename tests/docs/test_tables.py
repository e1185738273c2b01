"""The tables in docs/ are the tables in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remediator.engine.incidents import TRANSITIONS
from remediator.engine.model import IncidentState, ProofKind
from remediator.engine.safeguards.approvals import LIFTED
from remediator.engine.safeguards.node_guards import GUARDS_BY_NAME
from remediator.engine.safeguards.vm_guards import VM_GUARDS_BY_NAME
from remediator.engine.settings import BudgetSettings
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


def guards_in(text: str, heading: str) -> set[str]:
    """Return the guards that the table under a heading explains."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_guard_is_explained():
    text = (DOCS / "guards.md").read_text()
    of_nodes = guards_in(text, "Before a node is disrupted")
    assert of_nodes == {*GUARDS_BY_NAME, "hands-off", "approval"}
    assert guards_in(text, "Before a living VM is disrupted") == {*VM_GUARDS_BY_NAME, "approval"}


def test_every_limit_that_an_approval_lifts_is_named():
    section = (DOCS / "guards.md").read_text().partition("A yes also lifts")[2]
    named = set(re.findall(r"`([a-z-]+)`", section.partition("It may be given")[0]))
    assert named == LIFTED


def test_the_defaults_in_the_text_are_those_of_the_settings():
    text = (DOCS / "guards.md").read_text()
    budgets = BudgetSettings()
    for said in (
        f"less than {budgets.fence_cooldown_s:.0f} s ago",
        f"came back by itself {budgets.flaps} times within {budgets.flap_window_s / 3600:.0f} h",
        f"up to {budgets.flap_hold_max_s / 3600:.0f} h",
        f"held for {budgets.flap_hold_s:.0f} s",
        f"more than {budgets.storm_nodes} nodes",
        f"lost within {budgets.storm_window_s:.0f} s",
        f"none was lost for {budgets.storm_cooldown_s:.0f} s",
        (
            f"{budgets.nodes.per_hour} nodes were fenced within the hour, or this one "
            f"{budgets.nodes.per_subject_per_hour} times"
        ),
        f"restarted it {budgets.vms.restarts} times within the hour",
        (
            f"{budgets.vms.at_once} in the cluster, "
            f"{budgets.vms.at_once_namespace} in its namespace, "
            f"{budgets.vms.at_once_storage_class} of one of its storage classes"
        ),
        (
            f"{budgets.vms.per_hour} VMs were disrupted within the hour, or this one "
            f"{budgets.vms.per_subject_per_hour} times"
        ),
    ):
        assert said in text, said
