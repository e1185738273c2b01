"""The CustomResourceDefinition that is shipped is the one that the code's types make."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from remediator.fence_config.crd import definition, text
from remediator.fence_config.document import AnyDevice, Spec
from remediator.kube.fence_configs import FENCE_CONFIGS

SHIPPED = Path(__file__).parents[2] / "deploy" / "base" / "crd-fenceconfig.yaml"
SPEC = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_the_shipped_file_is_made_of_the_types():
    assert SHIPPED.read_text() == text(), (
        f"python -m remediator.fence_config.crd > {SHIPPED.relative_to(SHIPPED.parents[2])}"
    )


def test_it_is_the_resource_that_is_watched():
    made = definition()
    assert made["metadata"]["name"] == f"{FENCE_CONFIGS.plural}.{FENCE_CONFIGS.group}"
    assert tuple(one["name"] for one in made["spec"]["versions"]) == FENCE_CONFIGS.known
    assert (made["spec"]["scope"] == "Namespaced") == FENCE_CONFIGS.namespaced


def structural(schema, where="spec"):
    """Yield what apiextensions would refuse as not structural."""
    if schema.get("x-kubernetes-int-or-string"):
        return
    if "type" not in schema:
        yield f"{where}: no type"
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{where}: properties beside additionalProperties"
    for name, one in schema.get("properties", {}).items():
        yield from structural(one, f"{where}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from structural(schema[name], f"{where}.{name}")
    for one in schema.get("oneOf", []):
        for name in one.get("properties", {}):
            if name not in schema["properties"]:
                yield f"{where}.oneOf: {name} is not a property"
        if {"type", "description", "default", "additionalProperties"} & set(one):
            yield f"{where}.oneOf: says more than values"


def test_the_schema_is_structural():
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert list(structural(schema, "")) == []


def test_every_field_of_every_type_is_in_it():
    items = SPEC["properties"]["devices"]["items"]
    named = {field for kind in AnyDevice.__args__ for field in kind.__struct_encode_fields__}
    assert set(items["properties"]) == named | {"method"}
    assert set(SPEC["properties"]) == set(Spec.__struct_encode_fields__)


HAND = {"devices": [{"name": "hand", "method": "operator"}], "levels": [{"devices": ["hand"]}]}


@pytest.mark.parametrize(
    ("device", "sound"),
    [
        ({"name": "m", "method": "machine", "timeout": "90s", "delay": 2}, True),
        ({"name": "m", "method": "machine", "timeout": 1.5}, False),
        ({"name": "m", "method": "ipmi"}, False),
        ({"name": "m"}, False),
        ({"name": "m", "method": "agent"}, False),
        ({"name": "m", "method": "agent", "program": "fence_apc"}, True),
        ({"name": "m", "method": "agent", "program": "fence_apc", "concurrency": 0}, False),
        ({"name": "m", "method": "redfish", "endpoint": "https://b"}, False),
        (
            {
                "name": "m",
                "method": "redfish",
                "endpoint": "https://b",
                "credentials": {"secret": {"name": "s"}},
            },
            True,
        ),
    ],
)
def test_it_takes_and_refuses_devices_as_the_loader_does(device, sound):
    spec = {**HAND, "devices": [device]}
    assert jsonschema.Draft202012Validator(SPEC).is_valid(spec) is sound


def test_an_example_of_every_method_is_valid():
    tree = yaml.safe_load(Path(__file__).with_name("every-method.yaml").read_text())
    jsonschema.validate(tree["spec"], SPEC)
