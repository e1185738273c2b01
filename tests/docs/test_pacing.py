"""docs/pacing.md names every reason, setting, mark and metric of the pace, and real defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from remediator.engine import restart_marks
from remediator.engine.readiness import READY_WORDS
from remediator.engine.settings import PacingSettings
from remediator.engine.start_rate import Phase
from remediator.engine.start_words import Reason
from remediator.engine.tiers import TIERS
from remediator.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "pacing.md").read_text()


@pytest.mark.parametrize("word", [*Reason, *TIERS, *READY_WORDS])
def test_every_word_is_explained(word):
    assert f"`{word}`" in PAGE


def test_every_phase_and_mark_is_explained():
    marks = (restart_marks.PRIORITY, restart_marks.AFTER, restart_marks.READY_WHEN)
    assert [mark for mark in marks if f"`{mark}`" not in PAGE] == []
    assert [phase for phase in Phase if f"*{phase}*" not in PAGE] == []


def test_every_setting_is_named_with_its_default():
    for name in PacingSettings.__struct_fields__:
        stem = re.sub(r"^starts_(at_once|per_minute)_cluster$", r"starts_\1", name)
        family = re.sub(r"^starts_(at_once|per_minute)_", "_", name)
        named = any(f"`{word}" in PAGE for word in (name, stem, family, f"{name}."))
        assert named, name
    rows = {
        row[0]: row[1]
        for row in re.findall(r"^\| `([a-z_]+)`[^|]*\| ([0-9]+) \|", PAGE, flags=re.MULTILINE)
    }
    assert rows, "the table of settings has rows with one setting and its default"
    for name, value in rows.items():
        assert float(value) == float(getattr(PacingSettings(), name)), name


def test_every_metric_is_listed():
    registry = CollectorRegistry()
    Metrics(registry)
    names = {each.name for each in registry.collect() if each.name.startswith("remediator_starts")}
    assert names
    assert [name for name in sorted(names) if f"`{name}" not in PAGE] == []
