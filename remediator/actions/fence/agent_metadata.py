"""What a fence agent says about itself: its parameters and actions, to find faults at load.

Every ClusterLabs agent prints an XML document for ``action=metadata``. A parameter that it does not
know would be ignored by it with a warning nobody reads, and the fence would use a default.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET

import msgspec

# Set by the driver at each call; a configuration must not.
RESERVED = frozenset({"action", "option", "verbose", "debug_file", "quiet", "version", "help"})
# Its "off" succeeds only when the crashed kernel itself has said so.
SPEAKS_FOR_ITSELF = frozenset({"fence_kdump"})
# Where a password would stand in plain text.
_SECRET = frozenset({"password", "passwd", "passphrase"})
_TRUE_OR_FALSE = frozenset({"1", "0", "true", "false", "yes", "no", "on", "off"})


class MetadataError(Exception):
    """What an agent printed is no metadata; one line."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter. ``options`` are the values that a "select" takes."""

    name: str
    type: str = "string"  # string, integer, boolean, second, select
    options: tuple[str, ...] = ()
    required: bool = False
    default: str | None = None
    obsoletes: str = ""  # the older name that this one replaces


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's parameters by name, and the names of its actions."""

    agent: str
    parameters: dict[str, Parameter]
    actions: frozenset[str]


def parse(text: str) -> Metadata:
    """Read an agent's metadata. Raises MetadataError."""
    start = text.find("<resource-agent")
    if start < 0:
        raise MetadataError("it prints no metadata")
    try:
        root = ET.fromstring(text[start:])  # noqa: S314 - printed by a program that we run anyway
    except ET.ParseError as error:
        raise MetadataError(f"its metadata is no XML: {error}") from error
    parameters = {}
    for element in root.iterfind("parameters/parameter"):
        parameter = _parameter(element)
        parameters[parameter.name] = parameter
    actions = frozenset(element.get("name", "") for element in root.iterfind("actions/action"))
    if not parameters or not actions:
        raise MetadataError("its metadata names no parameters or no actions")
    return Metadata(agent=root.get("name", ""), parameters=parameters, actions=actions)


def faults(metadata: Metadata, parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield ``(parameter, what is wrong)`` for what the agent would not take as meant.

    The empty parameter stands for the agent as a whole.
    """
    for name, value in parameters.items():
        if name in RESERVED:
            yield name, "is set by remediator itself"
        elif name in _SECRET:
            yield name, "is a secret: name it under credentials, not here"
        else:
            yield from _faults_of(metadata, name, value)
    if "off" not in metadata.actions:
        yield "", f"{metadata.agent} has no action 'off': it cannot fence"
    elif "status" not in metadata.actions and metadata.agent not in SPEAKS_FOR_ITSELF:
        yield "", f"{metadata.agent} has no action 'status': nobody can verify its 'off'"


def _faults_of(metadata: Metadata, name: str, value: str) -> Iterator[tuple[str, str]]:
    parameter = metadata.parameters.get(name)
    if parameter is None:
        close = difflib.get_close_matches(name, metadata.parameters, n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        yield name, f"{metadata.agent} has no such parameter{guess}"
        return
    match parameter.type:
        case "integer" | "second" if not value.lstrip("-").isdigit():
            yield name, f"{value!r} is not a whole number"
        case "boolean" if value.lower() not in _TRUE_OR_FALSE:
            yield name, f"{value!r} is neither true nor false"
        case "select" if parameter.options and value not in parameter.options:
            yield name, f"{value!r} is not one of {', '.join(parameter.options)}"
        case _:
            pass


def _parameter(element: ET.Element) -> Parameter:
    content = element.find("content")
    return Parameter(
        name=element.get("name", ""),
        type=(content.get("type", "string") if content is not None else "string"),
        options=tuple(option.get("value", "") for option in element.iterfind("content/option")),
        required=element.get("required") == "1",
        default=content.get("default") if content is not None else None,
        obsoletes=element.get("obsoletes", ""),
    )
