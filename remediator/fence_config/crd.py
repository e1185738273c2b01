"""The CustomResourceDefinition of FenceConfig, made of the document's own types.

    python -m remediator.fence_config.crd > deploy/base/crd-fenceconfig.yaml

A structural schema has no unions: a device has the fields of all methods, and what each method
needs stands beside them. What a schema cannot say, the daemon says in the status.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

from remediator import structural_schema
from remediator.fence_config.document import KIND, Spec
from remediator.structural_schema import Schema, column

GROUP = "remediator.io"
PLURAL = "fenceconfigs"


def definition() -> Schema:
    """Return the whole object."""
    return structural_schema.definition(
        group=GROUP,
        kind=KIND,
        plural=PLURAL,
        description="Which devices can take which node down, and in which order they are tried.",
        columns=[
            column("Accepted", '.status.conditions[?(@.type=="Accepted")].status'),
            column("Healthy", '.status.conditions[?(@.type=="DevicesHealthy")].status'),
            column("Priority", ".spec.priority", "integer"),
            column("Age", ".metadata.creationTimestamp", "date"),
        ],
        spec=structural_schema.struct(Spec, _devices),
        status=structural_schema.status(),
    )


def _devices(kinds: tuple[Any, ...]) -> Schema:
    """Merge the methods into one object, with what each of them needs."""
    properties: Schema = {}
    needs = []
    always = {"name", "method"}
    for kind in kinds:
        one, method = structural_schema.struct(kind), str(kind.__struct_config__.tag)
        for name, schema in one["properties"].items():
            if properties.setdefault(name, schema) != schema:
                raise TypeError(f"field {name!r} differs between the methods")
        required = sorted(set(one.get("required", ())) - always)
        needs.append(
            {"properties": {"method": {"enum": [method]}}}
            | ({"required": required} if required else {})
        )
    methods = [str(kind.__struct_config__.tag) for kind in kinds]
    docs = " ".join(f"{tag}: {kind.__doc__}" for tag, kind in zip(methods, kinds, strict=True))
    return {
        "type": "object",
        "description": " ".join(docs.split()),
        "required": sorted(always),
        "properties": {"method": {"type": "string", "enum": methods}, **properties},
        "oneOf": needs,
    }


def text() -> str:
    """Return it as YAML, as it stands in ``deploy/``."""
    head = "# Made by: python -m remediator.fence_config.crd; tests/fence_config holds it there.\n"
    return head + str(yaml.safe_dump(definition(), sort_keys=False, width=98, allow_unicode=True))


if __name__ == "__main__":
    sys.stdout.write(text())
