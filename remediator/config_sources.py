"""Where settings come from: a file, the environment, flags, merged so that each knows its place."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from remediator.strict_yaml import Document, YamlError, load, read_text
from remediator.typed_tree import Path as KeyPath
from remediator.typed_tree import Problem, did_you_mean, dotted


class SourceProblem(msgspec.Struct, frozen=True):
    """One fault: where it was written (a file, "REMEDIATOR_MODE", a flag), the key, the text.

    Line and column count from 1 and are 0 where they mean nothing.
    """

    file: str
    key: str
    text: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.text) if part)


class Layers:
    """Sources laid over each other; later ones win key by key, lists are replaced whole."""

    def __init__(self, into: type[msgspec.Struct]) -> None:
        self._into = into
        self.tree: dict[str, Any] = {}
        self.problems: list[SourceProblem] = []
        self._places: dict[KeyPath, str] = {}
        self._document: Document | None = None

    def add_file(self, file: Path) -> None:
        """Add a YAML file; what is wrong with it lands in ``problems``."""
        try:
            document = load(read_text(file), file=str(file))
        except YamlError as error:
            line, column = (error.mark.line, error.mark.column) if error.mark else (0, 0)
            self.problems.append(SourceProblem(error.file, "", error.problem, line, column))
            return
        self._document = document
        if isinstance(document.value, dict):
            self.tree = document.value
        elif document.value is not None:
            self.problems.append(SourceProblem(str(file), "", "must hold keys and values"))

    def add_environment(self, variables: Mapping[str, str], *, prefix: str) -> None:
        """Add variables such as ``PREFIX_SECTION__KEY``."""
        for name, text in sorted(variables.items()):
            path = tuple(name.removeprefix(prefix).lower().split("__"))
            try:
                value = self._from_text(path, text)
            except _UnknownKeyError as error:
                self.problems.append(SourceProblem(name, dotted(path), str(error)))
            except YamlError as error:
                self.problems.append(SourceProblem(name, dotted(path), error.problem))
            else:
                self._put(path, value, name)

    def add_flags(self, values: Mapping[str, object]) -> None:
        """Add values by dotted key; their place in messages is ``flag KEY``."""
        for key, value in values.items():
            self._put(tuple(key.split(".")), value, f"flag for {key}")

    def placed(self, problem: Problem) -> SourceProblem:
        """Say where a fault in the merged tree was written."""
        key = dotted(problem.path)
        for length in range(len(problem.path), -1, -1):
            place = self._places.get(problem.path[:length])
            if place is not None:
                return SourceProblem(place, key, problem.text)
        if self._document is None:
            return SourceProblem("", key, problem.text)
        mark = self._document.mark(problem.path)
        return SourceProblem(self._document.file, key, problem.text, mark.line, mark.column)

    def _put(self, path: KeyPath, value: object, place: str) -> None:
        node: dict[str, Any] = self.tree
        for step in path[:-1]:
            below = node.get(str(step))
            if not isinstance(below, dict):
                below = node[str(step)] = {}
            node = below
        node[str(path[-1])] = value
        self._places[path] = place

    def _from_text(self, path: KeyPath, text: str) -> object:
        """Read a variable's text as its setting's type wants it: text stays, the rest is YAML."""
        into: Any = self._into
        for at, step in enumerate(path):
            fields = (
                {one.encode_name: one for one in msgspec.structs.fields(into)}
                if isinstance(into, type) and issubclass(into, msgspec.Struct)
                else {}
            )
            if step not in fields:
                where = dotted(path[:at])
                inside = f" in {where}" if where else ""
                raise _UnknownKeyError(f"unknown key{inside}{did_you_mean(str(step), fields)}")
            into = fields[str(step)].type
        textual = into is str or typing.get_origin(into) is typing.Literal
        return text if textual else load(text, file="").value


class _UnknownKeyError(Exception):
    """The variable names no setting."""
