"""The CustomResourceDefinition of RemediationPolicy, made of the document's own types.

python -m remediator.policy.crd > deploy/base/crd-remediationpolicy.yaml
"""

from __future__ import annotations

import sys

import yaml

from remediator import structural_schema
from remediator.policy.document import KIND, Spec
from remediator.structural_schema import Schema, column

GROUP = "remediator.io"
PLURAL = "remediationpolicies"


def definition() -> Schema:
    """Return the whole object."""
    return structural_schema.definition(
        group=GROUP,
        kind=KIND,
        plural=PLURAL,
        description="What is done about nodes or VMs in trouble: when, then, within which limits.",
        columns=[
            column("Subject", ".spec.subject"),
            column("Mode", ".spec.mode"),
            column("Priority", ".spec.priority", "integer"),
            column("Accepted", '.status.conditions[?(@.type=="Accepted")].status'),
            column("Matched", ".status.lastMatchedTime", "date"),
            column("Age", ".metadata.creationTimestamp", "date"),
        ],
        spec=structural_schema.struct(Spec),
        status=structural_schema.status(
            lastMatchedTime={
                "type": "string",
                "format": "date-time",
                "description": "When a plan was last made by it.",
            }
        ),
    )


def text() -> str:
    """Return it as YAML, as it stands in ``deploy/``."""
    head = "# Made by: python -m remediator.policy.crd; tests/policy/test_crd.py holds it there.\n"
    return head + str(yaml.safe_dump(definition(), sort_keys=False, width=98, allow_unicode=True))


if __name__ == "__main__":
    sys.stdout.write(text())
