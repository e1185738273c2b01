"""Structural schemas of our CustomResourceDefinitions, made of the documents' own types.

What a schema cannot say, the daemon says in the object's status.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec

Schema = dict[str, Any]

_BOUNDS = {"ge": "minimum", "gt": "minimum", "le": "maximum"}
_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number"}

CONDITIONS: Final[Schema] = {
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
}


def column(name: str, path: str, kind: str = "string") -> Schema:
    """Return one column of ``kubectl get``."""
    return {"name": name, "type": kind, "jsonPath": path}


def definition(
    *,
    group: str,
    kind: str,
    plural: str,
    description: str,
    columns: list[Schema],
    spec: Schema,
    status: Schema,
) -> Schema:
    """Return the whole CustomResourceDefinition of a kind that belongs to the cluster."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def status(**more: Schema) -> Schema:
    """Return the schema of a status: conditions, the generation they are of, and ``more``."""
    return {
        "type": "object",
        "description": "Written by the daemon that leads.",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "conditions": CONDITIONS,
            **more,
        },
    }


# Makes the schema of a union of Structs, which a structural schema has no words for.
Union = Callable[[tuple[Any, ...]], Schema]


def struct(kind: Any, union: Union | None = None) -> Schema:
    """Return the schema of a Struct, described by its docstring."""
    fields = msgspec.structs.fields(kind)
    made: Schema = {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "properties": {field.encode_name: _field(field, union) for field in fields},
    }
    required = [field.encode_name for field in fields if field.required]
    made |= {"required": required} if required else {}
    if isinstance(getattr(kind, "bare", None), str):
        # A word alone stands for such an object, and a structural schema has no "either".
        return {
            "description": made["description"],
            "x-kubernetes-preserve-unknown-fields": True,
        }
    return made


def _field(field: msgspec.structs.FieldInfo, union: Union | None) -> Schema:
    if field.name.endswith("_s"):
        return {
            "description": "Seconds, or a duration such as 90s or 5m.",
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
        }
    return _type(field.type, union)


def _type(kind: Any, union: Union | None) -> Schema:  # noqa: PLR0911 - one line per kind of type
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        meta: msgspec.Meta = arguments[1]
        bounds = {
            name: getattr(meta, key)
            for key, name in _BOUNDS.items()
            if getattr(meta, key) is not None
        }
        return _type(arguments[0], union) | bounds
    if origin in (types.UnionType, typing.Union):
        inner = tuple(each for each in arguments if each is not type(None))
        if len(inner) > 1 and union is not None:
            return union(inner)
        return _type(inner[0], union)
    if origin is typing.Literal:
        return {"type": "string", "enum": [str(each) for each in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], union)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], union)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return struct(kind, union)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return {"type": "string", "enum": [each.value for each in kind]}
    return {"type": _PLAIN[kind]}
