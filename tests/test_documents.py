"""Kubernetes-shaped YAML: every document is read, every fault is placed."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from remediator.documents import DocumentError, read_directory, read_documents
from remediator.typed_tree import Problem


class Spec(msgspec.Struct, frozen=True):
    size: int
    words: tuple[str, ...] = ()


class Metadata(msgspec.Struct, frozen=True):
    name: str


class Thing(msgspec.Struct, frozen=True):
    kind: Literal["Thing"]
    metadata: Metadata
    spec: Spec


def check(value, document):
    del document
    if value.spec.size < 0:
        yield Problem(("spec", "size"), "is too small")


def thing(name="a", spec="size: 1"):
    return f"kind: Thing\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def read(text):
    found, problems = read_documents(text, file="t.yaml", into=Thing, check=check)
    return found, [str(one) for one in problems]


def test_sound_documents_are_kept_beside_faulty_ones():
    text = "---\n".join((thing("a"), "# nothing here\n", thing("b", "size: x"), thing("c")))
    found, problems = read(text)
    assert [one.name for one in found] == ["a", "c"]
    assert problems == ["t.yaml:9:8: spec.size: expected int, found text 'x'"]


def test_what_types_cannot_say_is_placed_too_with_the_name():
    found, problems = read(thing("A", "size: -1"))
    assert not found
    assert problems == [
        "t.yaml:2:12: metadata.name: must be lower-case letters, digits and '-', at most 63",
        "t.yaml:3:8: spec.size: is too small",
    ]


def test_a_name_that_stands_twice_names_the_first_place(tmp_path):
    (tmp_path / "1.yaml").write_text(thing("a"))
    (tmp_path / "2.yaml").write_text(thing("b") + "---\n" + thing("a"))
    found, problems = read_directory(tmp_path, Thing, check, what="Thing")
    assert len(found) == 3
    (fault,) = problems
    assert str(fault) == (
        f"{tmp_path}/2.yaml:6:12: metadata.name: the name 'a' is used twice;"
        f" first in {tmp_path}/1.yaml:2"
    )


def test_what_is_no_yaml_ends_its_file_and_no_other(tmp_path):
    (tmp_path / "1.yaml").write_text("a: &x 1\n")
    (tmp_path / "2.yaml").write_text(thing("b"))
    found, problems = read_directory(tmp_path, Thing, check, what="Thing")
    assert [one.name for one in found] == ["b"]
    assert "anchors (&name) are not supported" in str(problems[0])


def test_an_error_tells_its_problems_in_the_order_of_their_places():
    _, problems = read_documents(
        thing("b", "size: x") + "---\n" + thing("C"), file="t.yaml", into=Thing, check=check
    )
    error = DocumentError(reversed(problems))
    assert [one.line for one in error.problems] == [3, 6]
    assert str(error).count("\n") == 1


@pytest.mark.parametrize("name", ["-a", "a-", "a.b", "a" * 64, ""])
def test_a_name_is_a_dns_label(name):
    _, problems = read(thing(f"'{name}'"))
    assert "must be lower-case" in problems[0]


def test_a_hash_is_the_same_whatever_the_order_of_the_keys():
    (one,), _ = read(thing("a", "size: 1, words: [x]"))
    (two,), _ = read(thing("a", "words: [x], size: 1"))
    (other,), _ = read(thing("a", "words: [y], size: 1"))
    assert one.content_hash == two.content_hash != other.content_hash
