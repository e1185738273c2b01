"""The page on the admission gate tells the settings, outcomes and limits that there are."""

from __future__ import annotations

import re
from pathlib import Path

from remediator.admission.server import BODY_MAX
from remediator.admission_settings import AdmissionSettings
from remediator.engine.settings import GateSettings
from remediator.kube.pods import PACING_GATE
from remediator.metrics import ADMISSIONS

PAGE = (Path(__file__).parents[2] / "docs" / "admission.md").read_text()


def test_every_setting_is_told():
    told = set(re.findall(r"`admission\.([a-z_]+)`", PAGE))
    assert told == set(AdmissionSettings.__struct_fields__)


def test_the_defaults_are_those_of_the_settings():
    admission, gates = AdmissionSettings(), GateSettings()
    assert f"| `admission.reload_s` | {admission.reload_s:g} |" in PAGE
    assert f"| `admission.fresh_s` | {admission.fresh_s:g} |" in PAGE
    assert f"`{admission.host}`, {admission.port} |" in PAGE
    assert f"no leader was heard for {admission.fresh_s:g} s" in PAGE
    assert f"`engine.gates.max_age_s` ({gates.max_age_s / 60:g} minutes)" in PAGE
    assert f"`engine.gates.unattended_s` ({gates.unattended_s:g} s)" in PAGE
    assert f"more than {BODY_MAX // 2**20} MiB" in PAGE
    assert f"`{PACING_GATE}`" in PAGE


def test_every_outcome_is_told():
    table = PAGE.split("| outcome | meaning |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", table)) == set(ADMISSIONS)
