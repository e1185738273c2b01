"""docs/signals.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from remediator.bus.streams import DEAD_LETTERS, desired_streams
from remediator.config import load
from remediator.engine.model import Plane
from remediator.signals import dead_letters, intake, text
from remediator.signals.address import RULES
from remediator.signals.refusal import Refusal
from remediator.signals.schema import signal_schema
from remediator.signals.sources import RESERVED

PAGE = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()


def column(heading: str) -> list[list[str]]:
    """Return the cells of the table whose heading begins so."""
    lines = PAGE[PAGE.index(f"| {heading} |") :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_the_planes_are_those_of_the_intake():
    told = {row[0]: row[1:] for row in column("plane")}
    assert told == {
        plane.value: [
            "; ".join(
                f"{kind}: {', '.join(reading.value for reading in readings)}"
                for kind, readings in RULES[plane].items()
            ),
            "no" if plane in RESERVED else "yes",
        ]
        for plane in Plane
    }


def test_the_fields_are_those_of_the_schema():
    schema = signal_schema()
    told = column("field")
    assert [row[0] for row in told] == list(schema["properties"])
    assert [row[0] for row in told if row[2] == "yes"] == schema["required"]
    for name, _, _, _ in told:
        if name in text.LENGTHS:
            assert schema["properties"][name]["maxLength"] == text.LENGTHS[name]
            cell = next(row[1] for row in told if row[0] == name)
            assert cell.endswith(f"to {text.LENGTHS[name]}")


def test_every_reason_is_explained():
    assert sorted(row[0] for row in column("reason")) == sorted(one.value for one in Refusal)


def test_the_bounds_are_those_of_the_code():
    (stream,) = (spec for spec in desired_streams() if spec.name == DEAD_LETTERS)
    for bound in (
        f"at most {intake.PAYLOAD_BYTES_MAX} bytes",
        f"more than {intake.PAYLOAD_BYTES_MAX} bytes",
        f"The first {dead_letters.PAYLOAD_BYTES_MAX} bytes",
        f"At most {dead_letters.LETTERS_AT_ONCE} letters at once",
        f"and {dead_letters.LETTERS_PER_S:g} a second",
        f"{intake.REMEMBERED:,} to\n{2 * intake.REMEMBERED:,} signals",
        f"{stream.max_bytes // 1024**2} MiB, {stream.max_age_s / 86_400:g} days",
        f"{dead_letters.HEADER_REASON}`, `{dead_letters.HEADER_WHY}`",
        f"{dead_letters.HEADER_SUBJECT}`, `{dead_letters.HEADER_TIME}` (ours)",
        f"{dead_letters.HEADER_BYTES}` (the whole length)",
    ):
        assert bound in PAGE, bound


def test_the_metrics_are_those_of_the_daemon(door):
    for row in column("metric"):
        name = re.sub(r"\{.*\}", "", row[0])
        assert f"# TYPE {name} counter" in door.metrics.render().decode(), name


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_settings_are_accepted(block, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(block)
    settings = load(file, environ={"HOME": str(tmp_path)})
    assert len(settings.signals.known) == len(yaml.safe_load(block)["signals"]["known"])
