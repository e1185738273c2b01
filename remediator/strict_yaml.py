"""YAML as a configuration language should be: few surprises, and every value knows its line.

What differs from PyYAML's loader, and why:

* only ``true`` and ``false`` are booleans (``no`` is a country, ``on`` a word);
* no timestamps, no octal or base-60 integers (``08``, ``1:30`` stay text);
* a key that stands twice is an error, not "the last one wins";
* no anchors, aliases, merge keys or tags: a few lines of them can grow to gigabytes;
* at most 1 MiB of text and 32 levels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import yaml

MAX_CHARACTERS = 1024 * 1024
MAX_DEPTH = 32

_TAGS = {
    "tag:yaml.org,2002:bool": "bool",
    "tag:yaml.org,2002:int": "int",
    "tag:yaml.org,2002:float": "float",
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:str": "str",
}

KeyPath = tuple[str | int, ...]  # keys and list positions from the root to a value


class Mark(msgspec.Struct, frozen=True, order=True):
    """A place in a file; both count from 1."""

    line: int
    column: int


class YamlError(Exception):
    """The text is not acceptable YAML; says where."""

    def __init__(self, file: str, mark: Mark | None, problem: str) -> None:
        place = f"{file}:{mark.line}:{mark.column}" if mark else file
        super().__init__(f"{place}: {problem}")
        self.file = file
        self.mark = mark
        self.problem = problem


class Document(msgspec.Struct, frozen=True):
    """One YAML document: plain values, and the mark of each key or list item by its path."""

    file: str
    value: object
    marks: dict[KeyPath, Mark]
    values: dict[KeyPath, Mark] = {}  # where the text of each scalar begins, quotes included
    text: str = ""  # the whole file

    def mark(self, path: KeyPath) -> Mark:
        """Return where the value at ``path`` stands; for a missing one, where its parent does."""
        current = path
        while current not in self.marks and current:
            current = current[:-1]
        return self.marks.get(current, Mark(1, 1))


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with our own idea of plain scalars."""

    # PyYAML's own resolvers belong to the class; the stubs call them the instance's.
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases and anchors where they stand, before anything is built from them."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # stubs are partial
        if isinstance(event, yaml.AliasEvent):
            raise _problem(event, "aliases (*name) are not supported")
        if getattr(event, "anchor", None) is not None:
            raise _problem(event, "anchors (&name) are not supported")
        return super().compose_node(parent, index)


def _problem(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    mark: Any = event.start_mark  # the stubs know two classes of mark; both serve
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", "-+0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def _mark_of(mark: yaml.Mark | None) -> Mark | None:
    return None if mark is None else Mark(mark.line + 1, mark.column + 1)


def _scalar(node: yaml.ScalarNode) -> object:
    text = str(node.value)
    match _TAGS.get(node.tag):
        case "bool":
            return text == "true"
        case "int":
            return int(text)
        case "float":
            # 007 and 1_000 look like numbers to some people and not to others: keep them as text.
            return text if re.match(r"[-+]?0\d", text) else float(text)
        case "null":
            return None
        case _:
            return text


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.marks: dict[KeyPath, Mark] = {}
        self.values: dict[KeyPath, Mark] = {}

    def build(self, node: yaml.Node, path: KeyPath) -> object:
        mark = _mark_of(node.start_mark)
        if len(path) > MAX_DEPTH:
            raise YamlError(self.file, mark, f"nested more than {MAX_DEPTH} levels deep")
        if mark is not None:
            self.marks.setdefault(path, mark)
        if isinstance(node, yaml.ScalarNode):
            if mark is not None:
                self.values[path] = mark
            if node.tag not in _TAGS:
                raise YamlError(self.file, mark, f"tags such as {node.tag} are not supported")
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, at)) for at, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            mark = _mark_of(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError(self.file, mark, "a key must be a plain word")
            key = str(key_node.value)
            if key in result:
                first = self.marks[(*path, key)]
                raise YamlError(
                    self.file, mark, f"key {key!r} stands twice; first in line {first.line}"
                )
            if mark is not None:
                self.marks[(*path, key)] = mark
            result[key] = self.build(value_node, (*path, key))
        return result


def load_all(text: str, *, file: str) -> Iterator[Document]:
    """Yield each document of ``text``; empty ones have the value None. Raises YamlError."""
    if len(text) > MAX_CHARACTERS:
        raise YamlError(file, None, f"larger than {MAX_CHARACTERS} characters")
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            builder = _Builder(file)
            value = builder.build(node, ())
            yield Document(file, value, builder.marks, builder.values, text)
    except yaml.MarkedYAMLError as error:
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(
            file, _mark_of(error.problem_mark or error.context_mark), problem or "not YAML"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(file, None, f"not YAML: {str(error) or 'nested too deep'}") from error


def load(text: str, *, file: str) -> Document:
    """Return the only document of ``text``. Raises YamlError, also when there are several."""
    documents = list(load_all(text, file=file))
    if not documents:
        return Document(file, None, {})
    if len(documents) > 1:
        raise YamlError(file, documents[1].mark(()), "one document is expected, this is a second")
    return documents[0]


def read_text(path: Path) -> str:
    """Read a file as UTF-8. Raises YamlError that says what is wrong with it."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(str(path), None, f"not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise YamlError(str(path), None, f"cannot be read: {error.strerror or error}") from error
