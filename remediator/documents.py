"""Kubernetes-shaped documents in files: all faults of a directory at once, each with its place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from remediator.strict_yaml import Document, YamlError, load_all, read_text
from remediator.typed_tree import Path as KeyPath
from remediator.typed_tree import Problem, convert, dotted

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # a DNS label, as Kubernetes has them
_canonical = msgspec.json.Encoder(order="sorted")


class DocumentProblem(msgspec.Struct, frozen=True, order=True):
    """One fault in a file; line and column count from 1, 0 where the whole file is meant."""

    file: str
    line: int
    column: int
    field: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.field}: {self.text}" if self.field else f"{place}: {self.text}"


class DocumentError(Exception):
    """Documents that cannot be used; ``problems`` has every fault, the text one per line."""

    def __init__(self, problems: Iterable[DocumentProblem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Written(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One sound document: its typed form, where it stands, and a hash of its content."""

    value: T
    name: str
    document: Document
    content_hash: str  # SHA-256 of the document, key order aside

    def place(self, path: KeyPath, text: str) -> DocumentProblem:
        """Return a problem at one of its keys."""
        return _placed(self.document, Problem(path, text))


# Yields what types cannot say about one document.
Check = Callable[[T, Document], Iterator[Problem]]
# Yields what can be said of the rest of a document whose types do not fit; given those faults.
CheckRest = Callable[[Document, Sequence[Problem]], Iterator[Problem]]


def _no_rest(_document: Document, _faults: Sequence[Problem]) -> Iterator[Problem]:
    return iter(())


def read_directory(
    directory: Path, into: type[T], check: Check[T], *, what: str, rest: CheckRest = _no_rest
) -> tuple[list[Written[T]], list[DocumentProblem]]:
    """Read every ``*.yaml`` and ``*.yml`` file; return the sound documents and all faults.

    ``what`` names one document in messages. A name that stands twice is a fault.
    """
    if not directory.is_dir():
        return [], [DocumentProblem(str(directory), 0, 0, "", "is not a directory")]
    files = sorted(
        path
        for path in directory.iterdir()
        if path.suffix in {".yaml", ".yml"} and not path.name.startswith(".")
    )
    found: list[Written[T]] = []
    problems: list[DocumentProblem] = []
    for path in files:
        try:
            text = read_text(path)
        except YamlError as error:
            problems.append(_from_yaml(error))
            continue
        sound, faults = _read(text, str(path), into, check, rest)
        found += sound
        problems += faults
    problems += _twice(found)
    if not found and not problems:
        problems.append(DocumentProblem(str(directory), 0, 0, "", f"holds no {what} (*.yaml)"))
    return found, problems


def read_documents(
    text: str, *, file: str, into: type[T], check: Check[T], rest: CheckRest = _no_rest
) -> tuple[list[Written[T]], list[DocumentProblem]]:
    """Read the documents of one file's text, in its order; return them and all faults."""
    found, problems = _read(text, file, into, check, rest)
    return found, problems + _twice(found)


def _read(
    text: str, file: str, into: type[T], check: Check[T], rest: CheckRest
) -> tuple[list[Written[T]], list[DocumentProblem]]:
    found: list[Written[T]] = []
    problems: list[DocumentProblem] = []
    try:
        for document in load_all(text, file=file):
            if document.value is None:
                continue  # nothing between two "---" lines, or only comments
            value, faults = convert(document.value, into)
            if value is not None:
                faults = [*_check_name(document), *check(value, document)]
            else:
                faults = [*faults, *rest(document, faults)]
            problems += [_placed(document, fault) for fault in faults]
            if value is not None and not faults:
                found.append(
                    Written(
                        value=value,
                        name=_name_of(document),
                        document=document,
                        content_hash=hashlib.sha256(_canonical.encode(document.value)).hexdigest(),
                    )
                )
    except YamlError as error:
        problems.append(_from_yaml(error))
    return found, problems


def _name_of(document: Document) -> str:
    metadata = document.value.get("metadata") if isinstance(document.value, dict) else None
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _check_name(document: Document) -> Iterator[Problem]:
    if not NAME.fullmatch(_name_of(document)):
        yield Problem(
            ("metadata", "name"), "must be lower-case letters, digits and '-', at most 63"
        )


def _from_yaml(error: YamlError) -> DocumentProblem:
    line, column = (error.mark.line, error.mark.column) if error.mark else (0, 0)
    return DocumentProblem(error.file, line, column, "", error.problem)


def _placed(document: Document, problem: Problem) -> DocumentProblem:
    mark = getattr(problem, "mark", None) or document.mark(problem.path)
    return DocumentProblem(
        document.file, mark.line, mark.column, dotted(problem.path), problem.text
    )


def _twice(found: Sequence[Written[T]]) -> list[DocumentProblem]:
    first: dict[str, DocumentProblem] = {}
    problems = []
    for written in found:
        here = written.place(("metadata", "name"), f"the name {written.name!r} is used twice")
        earlier = first.setdefault(written.name, here)
        if earlier is not here:
            text = f"{here.text}; first in {earlier.file}:{earlier.line}"
            problems.append(msgspec.structs.replace(here, text=text))
    return problems
