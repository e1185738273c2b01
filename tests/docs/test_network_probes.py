"""The page on network probes tells the settings that there are, with their defaults."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from remediator.probe_settings import ProbeSettings

PAGE = Path(__file__).parents[2] / "docs" / "network-probes.md"


def test_every_setting_and_its_default_is_told():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    told = dict(rows)
    defaults = msgspec.to_builtins(ProbeSettings())
    assert told.keys() == defaults.keys()
    for key, default in defaults.items():
        written = msgspec.json.encode(default).decode() if default != "" else ""
        assert told[key].strip() == written, key
