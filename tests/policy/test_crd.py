from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from remediator.policy.crd import definition, text

SHIPPED = Path(__file__).parents[2] / "deploy" / "base" / "crd-remediationpolicy.yaml"


def test_the_shipped_definition_is_the_one_of_the_code():
    assert SHIPPED.read_text() == text()


def test_the_schema_is_structural():
    """Each field has a type, but where the API server allows otherwise."""
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def walk(one, path):
        free = "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"
        assert "type" in one or any(one.get(key) for key in free), path
        for name, inner in one.get("properties", {}).items():
            walk(inner, f"{path}.{name}")
        for key in ("items", "additionalProperties"):
            if isinstance(one.get(key), dict):
                walk(one[key], f"{path}.{key}")

    walk(schema, "")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"verdicts": ["Ded"]},
        {"verdicts": ["Dead"], "mode": "off"},
        {"verdicts": ["Dead"], "subject": "Pod"},
        {"verdicts": ["Dead"], "limits": {"atOnce": 0}},
    ],
)
def test_the_api_server_refuses_what_its_schema_can_tell(spec):
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"spec": spec}, schema)
