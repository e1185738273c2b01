"""The CustomResourceDefinition of FenceConfig, made of the document's own types.

    python -m remediator.fence_config.crd > deploy/base/crd-fenceconfig.yaml

A structural schema has no unions: a device has the fields of all methods, and what each method
needs stands beside them. What a schema cannot say, the daemon says in the status.
"""

from __future__ import annotations

import sys
import types
import typing
from typing import Any

import msgspec
import yaml

from remediator.fence_config.document import KIND, AnyDevice, Spec

GROUP = "remediator.io"
PLURAL = "fenceconfigs"
_BOUNDS = {"ge": "minimum", "gt": "minimum", "le": "maximum"}

Schema = dict[str, Any]


def definition() -> Schema:
    """Return the whole object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        _column("Accepted", '.status.conditions[?(@.type=="Accepted")].status'),
                        _column(
                            "Healthy", '.status.conditions[?(@.type=="DevicesHealthy")].status'
                        ),
                        _column("Priority", ".spec.priority", "integer"),
                        _column("Age", ".metadata.creationTimestamp", "date"),
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "Which devices can take which node down, and in which "
                            "order they are tried.",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": _struct(Spec),
                                "status": _STATUS,
                            },
                        }
                    },
                }
            ],
        },
    }


def _column(name: str, path: str, kind: str = "string") -> Schema:
    return {"name": name, "type": kind, "jsonPath": path}


_STATUS: Schema = {
    "type": "object",
    "description": "Written by the daemon that leads.",
    "properties": {
        "observedGeneration": {"type": "integer", "format": "int64"},
        "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status"],
                "properties": {
                    "type": {"type": "string"},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "reason": {"type": "string"},
                    "message": {"type": "string"},
                    "observedGeneration": {"type": "integer", "format": "int64"},
                    "lastTransitionTime": {"type": "string", "format": "date-time"},
                },
            },
        },
    },
}


def _struct(kind: Any) -> Schema:
    fields = msgspec.structs.fields(kind)
    made: Schema = {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "properties": {field.encode_name: _field(field) for field in fields},
    }
    required = [field.encode_name for field in fields if field.required]
    return made | ({"required": required} if required else {})


def _devices(kinds: tuple[Any, ...]) -> Schema:
    """Merge the methods into one object, with what each of them needs."""
    properties: Schema = {}
    needs = []
    always = {"name", "method"}
    for kind in kinds:
        one, method = _struct(kind), str(kind.__struct_config__.tag)
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


def _field(field: msgspec.structs.FieldInfo) -> Schema:
    if field.name.endswith("_s"):
        return {
            "description": "Seconds, or a duration such as 90s or 5m.",
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
        }
    return _type(field.type)


def _type(kind: Any) -> Schema:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        meta: msgspec.Meta = arguments[1]
        bounds = {
            name: getattr(meta, key)
            for key, name in _BOUNDS.items()
            if getattr(meta, key) is not None
        }
        return _type(arguments[0]) | bounds
    if origin in (types.UnionType, typing.Union):
        if kind == AnyDevice:
            return _devices(arguments)
        (inner,) = (each for each in arguments if each is not type(None))
        return _type(inner)
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(kind)
    plain = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return {"type": plain[kind]}


def text() -> str:
    """Return it as YAML, as it stands in ``deploy/``."""
    head = "# Made by: python -m remediator.fence_config.crd; tests/fence_config holds it there.\n"
    return head + str(yaml.safe_dump(definition(), sort_keys=False, width=98, allow_unicode=True))


if __name__ == "__main__":
    sys.stdout.write(text())
