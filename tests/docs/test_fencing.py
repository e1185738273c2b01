"""docs/fencing.md says what the code does, and its examples can be used."""

from __future__ import annotations

import re
from pathlib import Path

from remediator.actions.fence.check_rows import MISCONFIGURED, FaultKind
from remediator.cli.entry import run_cli
from remediator.fence_config.document import AnyDevice
from remediator.fence_config.loader import load_directory
from remediator.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "fencing.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    table = PAGE.partition(heading)[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0].strip("`"): row for row in cells if row and row[0].startswith("`")}


def test_every_method_is_told():
    assert set(rows("| method |")) == {
        str(kind.__struct_config__.tag) for kind in AnyDevice.__args__
    }


def test_every_fault_is_told_and_which_of_them_forbid_a_fence():
    told = rows("| fault |")
    assert set(told) == {kind.value for kind in FaultKind if kind}
    never = {kind for kind, row in told.items() if "never" in row[2]}
    assert never == {kind.value for kind in MISCONFIGURED}


def test_the_metrics_and_alerts_that_are_named_exist():
    known = {family.name for family in Metrics().registry.collect()}
    assert set(re.findall(r"`(remediator_[a-z_]+)`", PAGE)) <= known
    alerts = (DOCS.parent / "deploy" / "alerts" / "fence-devices.yaml").read_text()
    assert set(re.findall(r"alert: (\w+)", alerts)) == set(
        re.findall(r"`(RemediatorFence\w+)`", PAGE)
    )


def test_the_examples_are_linted_as_the_page_shows(capsys, monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    assert run_cli(["fence", "lint", "docs/examples/fence"]) == 0
    out, _ = capsys.readouterr()
    assert f"$ remediator fence lint docs/examples/fence\n{out}```" in PAGE


def test_together_the_examples_show_every_method():
    found = load_directory(DOCS / "examples" / "fence")
    shown = {type(device) for config in found for device in config.spec.devices}
    assert shown == set(AnyDevice.__args__)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (DOCS / link).exists(), link
