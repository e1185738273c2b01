"""docs/planes.md tells of the custom resources that are watched, and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from remediator.kube.custom_resources import CUSTOM_RESOURCES

PAGE = Path(__file__).parents[2] / "docs" / "planes.md"


def test_the_page_names_every_custom_resource_with_the_versions_that_are_known():
    row = r"^\| `([a-z0-9.-]+)` \| (v\d[\w-]*(?:, v\d[\w-]*)*) \|"
    rows = re.findall(row, PAGE.read_text(), re.MULTILINE)
    told = {name: tuple(versions.split(", ")) for name, versions in rows}
    assert told == {f"{each.plural}.{each.group}": each.known for each in CUSTOM_RESOURCES}
