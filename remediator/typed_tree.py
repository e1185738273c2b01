"""From plain values (YAML, environment) to msgspec Structs, with every fault reported at once.

msgspec stops at the first fault. A person who edits a file wants all of them, each with its key and
a guess at what was meant. So the tree is walked Struct by Struct, and only the leaves are left to
msgspec. A field whose name ends in ``_s`` is a duration and takes ``90s`` as well as ``90``.
"""

from __future__ import annotations

import difflib
import enum
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from remediator.durations import parse_duration

T = TypeVar("T")

Path = tuple[str | int, ...]
_AT = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class Problem(msgspec.Struct, frozen=True):
    """One fault: the key's path, and what is wrong with its value."""

    path: Path
    text: str


def dotted(path: Iterable[str | int]) -> str:
    """Return ``fence.devices[2].url`` for a path."""
    result = ""
    for step in path:
        if isinstance(step, int):
            result += f"[{step}]"
        else:
            result += f".{step}" if result else step
    return result


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` when a known word is close, else the list of known words."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(words)}" if words else ""


def convert(value: object, into: type[T], *, lax: bool = False) -> tuple[T | None, list[Problem]]:
    """Convert ``value`` into the Struct ``into``; None and all the problems when it does not fit.

    ``lax`` also reads numbers and booleans from text, as environment variables need.
    """
    walk = _Walk(lax=lax)
    result = walk.struct(value, into, ())
    return (None, walk.problems) if walk.problems else (typing.cast("T", result), [])


class _Walk:
    def __init__(self, *, lax: bool) -> None:
        self.lax = lax
        self.problems: list[Problem] = []

    def fault(self, path: Path, text: str) -> None:
        self.problems.append(Problem(path, text))

    def struct(self, value: object, into: Any, path: Path) -> object:
        if value is None:
            value = {}  # "section:" with nothing below it means its defaults
        bare = getattr(into, "bare", None)
        if isinstance(bare, str) and isinstance(value, str):
            value = {bare: value}  # a word alone stands for the field that the Struct names so
        if not isinstance(value, Mapping):
            self.fault(path, f"expected keys and values, found {_shown(value)}")
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(into)}
        for key in value:
            if key not in fields:
                self.fault((*path, key), f"unknown key{did_you_mean(str(key), fields)}")
        arguments: dict[str, object] = {}
        before = len(self.problems)
        for key, field in fields.items():
            if key in value:
                duration = field.name.endswith("_s")
                arguments[field.name] = self.value(
                    value[key], field.type, (*path, key), duration=duration
                )
            elif field.required:
                self.fault(path, f"key {key!r} is missing")
        if len(self.problems) > before:
            return None
        try:
            return into(**arguments)
        except (ValueError, TypeError) as error:  # a check in the Struct's __post_init__
            self.fault(path, str(error))
            return None

    def value(self, value: object, into: Any, path: Path, *, duration: bool) -> object:
        structs = _structs_in(into)
        if structs and (value is not None or not _optional(into)):
            return self.one_of(value, structs, path)
        item = _item(into)
        if item is not None and isinstance(value, list):
            items = [
                self.value(one, item, (*path, at), duration=duration)
                for at, one in enumerate(value)
            ]
            return tuple(items) if typing.get_origin(into) is tuple else items
        mapped = _mapped_structs(into)
        if mapped and isinstance(value, Mapping):
            return {name: self.one_of(one, mapped, (*path, name)) for name, one in value.items()}
        pair = typing.get_args(into) if typing.get_origin(into) is dict else ()
        if pair and isinstance(value, Mapping):
            return {
                self.leaf(name, pair[0], (*path, name)): self.value(
                    one, pair[1], (*path, name), duration=duration
                )
                for name, one in value.items()
            }
        if duration:
            return self.duration(value, into, path)
        return self.leaf(value, into, path)

    def one_of(self, value: object, structs: list[Any], path: Path) -> object:
        """Convert into the only Struct, or into the one of a union that the value's tag names."""
        config = structs[0].__struct_config__
        if config.tag is None or not isinstance(value, Mapping):
            return self.struct(value, structs[0], path)
        by_tag = {str(one.__struct_config__.tag): one for one in structs}
        rest = {key: one for key, one in value.items() if key != config.tag_field}
        tag = value.get(config.tag_field)
        if tag is None and len(structs) == 1:
            return self.struct(rest, structs[0], path)
        if tag not in by_tag:
            known = ", ".join(sorted(by_tag))
            found = "is missing" if tag is None else f"{tag!r} is not one of {known}"
            where = path if tag is None else (*path, config.tag_field)
            self.fault(where, f"key {config.tag_field!r} {found}" if tag is None else found)
            return None
        return self.struct(rest, by_tag[tag], path)

    def duration(self, value: object, into: Any, path: Path) -> object:
        if isinstance(value, str):
            try:
                value = parse_duration(value)
            except ValueError as error:
                self.fault(path, str(error))
                return None
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            self.fault(path, f"{value:g} is not a duration: it must be 0 or more")
            return None
        return self.leaf(value, into, path)

    def leaf(self, value: object, into: Any, path: Path) -> object:
        try:
            return msgspec.convert(value, into, strict=not self.lax)
        except msgspec.ValidationError as error:
            text = str(error)
            inner: Path = ()
            found = _AT.search(text)
            if found:
                text = text[: found.start()]
                inner = tuple(
                    name or (int(at) if at.isdigit() else at)
                    for name, at in _STEP.findall(found["path"])
                )
            self.fault((*path, *inner), _plain(text, value if not inner else None, into))
            return None


def _plain(text: str, value: object, into: Any) -> str:
    """Say msgspec's message in the words of the file."""
    choices = _choices(into)
    if choices and isinstance(value, str):
        return f"{value!r} is not one of {', '.join(choices)}"
    if text.startswith("Expected `") and ", got `" in text:
        expected, _, _found = text.partition(", got `")
        expected = expected.replace("Expected", "expected").replace("`", "")
        hint = ""
        if expected == "expected bool" and str(value).lower() in {"yes", "no", "on", "off"}:
            hint = "; write true or false"
        return f"{expected}, found {_shown(value)}{hint}"
    return text[0].lower() + text[1:].replace("`", "") if text else "invalid"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"text {value if len(value) < 60 else value[:57] + '...'!r}"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    return f"{value!r}" if not isinstance(value, bool) else str(value).lower()


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _parts(into: Any) -> list[Any]:
    if typing.get_origin(into) in (types.UnionType, typing.Union):
        return [part for part in typing.get_args(into) if part is not type(None)]
    return [into]


def _optional(into: Any) -> bool:
    return type(None) in typing.get_args(into)


def _structs_in(into: Any) -> list[Any]:
    """Return the Structs of ``A``, ``A | None`` or a tagged union; nothing for other types."""
    parts = _parts(into)
    return parts if all(_is_struct(part) for part in parts) else []


def _item(into: Any) -> Any:
    """Return the type of the items of ``list[X]`` or ``tuple[X, ...]``."""
    arguments = typing.get_args(into)
    if typing.get_origin(into) is list or (
        typing.get_origin(into) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis
    ):
        return arguments[0]
    return None


def _mapped_structs(into: Any) -> list[Any]:
    """Return the Structs that the values of ``dict[str, X]`` may be."""
    if typing.get_origin(into) is dict:
        return _structs_in(typing.get_args(into)[1])
    return []


def _choices(into: Any) -> list[str]:
    parts = _parts(into)
    if len(parts) != 1:
        return []
    if typing.get_origin(parts[0]) is typing.Literal:
        return [str(one) for one in typing.get_args(parts[0])]
    if isinstance(parts[0], type) and issubclass(parts[0], enum.StrEnum):
        return [one.value for one in parts[0]]
    return []
