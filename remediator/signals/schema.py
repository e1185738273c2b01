"""The published schema of a signal: JSON Schema 2020-12, made of what the intake checks.

A document that satisfies it is let in if its source may speak, and if it stands on a subject that
says the same; tests/signals holds both to each other.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from remediator.bus import subjects
from remediator.engine.model import Plane, Reading, Signal
from remediator.signals import text
from remediator.signals.address import NAMESPACE, NAMESPACE_LENGTH_MAX, RULES, SUBDOMAIN, VANTAGE
from remediator.signals.intake import PAYLOAD_BYTES_MAX

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_FIELDS: Final = {
    "plane": "Which way of knowing this is.",
    "source": "Who says so. Evidence is the newest signal per subject, plane, source and aspect.",
    "subject": "What it is about.",
    "reading": "What was seen. On plane power, up is on and down is off, verified.",
    "at": "Seconds since the epoch on the source's own clock. It orders the signals of one source; "
    "how old a signal is, is measured from its arrival.",
    "aspect": "Which of several things of this source: a condition type, a probe, an object.",
    "zone": "Where the source stands (vantage points only).",
    "detail": "One short sentence for a person.",
    "first": "Found when the source started, not seen to happen: it proves no life now.",
    "by": "Leave it out. The daemon knows its own signals again by it.",
}
_KINDS: Final = {
    "node": {"name": SUBDOMAIN},
    "vantage": {"name": VANTAGE},
    "vm": {"name": SUBDOMAIN, "namespace": NAMESPACE},
}


def signal_schema() -> dict[str, Any]:
    """Return the schema as plain values."""
    (_, definitions) = msgspec.json.schema_components((Signal,))
    made = definitions["Signal"]
    properties: dict[str, Any] = {
        name: {"description": _FIELDS[name], **made["properties"][name]} for name in _FIELDS
    }
    for name in text.LENGTHS:
        properties[name]["not"] = {"pattern": text.UNFIT}
    properties["plane"] = {"description": _FIELDS["plane"], "enum": [one.value for one in Plane]}
    properties["reading"] = {
        "description": _FIELDS["reading"],
        "enum": [one.value for one in Reading],
    }
    properties["subject"] = {
        "description": _FIELDS["subject"],
        "type": "object",
        "properties": {
            "kind": {"enum": list(_KINDS)},
            "name": {"type": "string", "maxLength": subjects.NAME_LENGTH_MAX},
            "namespace": {
                "type": "string",
                "maxLength": NAMESPACE_LENGTH_MAX,
                "default": "",
                "description": "Of a vm; empty or absent otherwise.",
            },
        },
        "required": ["kind", "name"],
        "allOf": [_kind_rule(kind) for kind in _KINDS],
    }
    return {
        "$schema": DIALECT,
        "title": "Signal",
        "description": "One observation of one subject on one plane by one source, published on "
        f"{subjects.PREFIX}.signal.PLANE.KIND.NAME[.SOURCE[.ASPECT]] (changes) or "
        f"{subjects.PREFIX}.heartbeat.PLANE.KIND.NAME[.SOURCE[.ASPECT]] (repeats), as UTF-8 JSON "
        f"of at most {PAYLOAD_BYTES_MAX} bytes. Unknown fields are kept and passed over. See "
        "docs/signals.md.",
        "type": "object",
        "properties": properties,
        "required": made["required"],
        "allOf": [_plane_rule(plane) for plane in Plane],
    }


def _kind_rule(kind: str) -> dict[str, Any]:
    """Return what holds for the names of one kind of subject."""
    patterns = _KINDS[kind]
    rule: dict[str, Any] = {
        "properties": {
            name: {"pattern": f"^(?:{pattern})$", "not": {"pattern": text.UNFIT}}
            for name, pattern in patterns.items()
        },
        "required": list(patterns),
    }
    if "namespace" not in patterns:
        rule["properties"]["namespace"] = {"const": ""}
    return {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": rule}


def _plane_rule(plane: Plane) -> dict[str, Any]:
    """Return which kinds of subjects a plane speaks of, and which readings it gives of each."""
    cases = [
        {
            "properties": {
                "subject": {"properties": {"kind": {"const": kind}}},
                "reading": {"enum": [reading.value for reading in readings]},
            }
        }
        for kind, readings in RULES[plane].items()
    ]
    return {
        "if": {"properties": {"plane": {"const": plane.value}}, "required": ["plane"]},
        "then": cases[0] if len(cases) == 1 else {"anyOf": cases},
    }
