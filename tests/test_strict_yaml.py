from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.strict_yaml import Mark, YamlError, load, load_all, read_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("# only a comment", None),
        ("a: true", {"a": True}),
        ("a: True", {"a": "True"}),
        ("a: yes", {"a": "yes"}),
        ("country: no", {"country": "no"}),
        ("a: 0", {"a": 0}),
        ("a: -12", {"a": -12}),
        ("a: 1.5", {"a": 1.5}),
        ("a: 1e3", {"a": 1000.0}),
        ("mode: 0644", {"mode": "0644"}),
        ("time: 12:30:00", {"time": "12:30:00"}),
        ("day: 2026-11-20", {"day": "2026-11-20"}),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("a: 'true'", {"a": "true"}),
        ("1: x", {"1": "x"}),
        ("- [1, {b: c}]", [[1, {"b": "c"}]]),
    ],
)
def test_plain_words_mean_what_they_look_like(text, expected):
    assert load(text, file="f").value == expected


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", "f:4:3", "key 'c' stands twice; first in line 3"),
        ("a: &x 1", "f:1:4", "anchors"),
        ("a: *x", "f:1:4", "aliases"),
        ("a: !!python/object:os.system x", "f:1:4", "tags such as"),
        ("a: [1", "f:1:6", "expected ',' or ']'"),
        ("? [a]\n: b", "f:1:3", "a key must be a plain word"),
        ("a: 1\n---\nb: 2", "f:3:1", "one document is expected"),
        ("a: b: c", "f:1:5", "mapping values are not allowed"),
        ("\tx: 1", "f:1:1", "cannot start any token"),
        ("[" * 40 + "]" * 40, "f:1:34", "more than 32 levels"),
        ("[" * 4000, "f", "nested too deep|recursion"),
        ("a: \x00", "f", "special characters are not allowed"),
    ],
)
def test_faults_say_where_they_are(text, place, says):
    with pytest.raises(YamlError, match=says) as caught:
        load(text, file="f")
    assert str(caught.value).startswith(f"{place}:")


def test_every_value_knows_its_line_and_a_missing_one_its_parents():
    document = load("a:\n  b:\n    - x\n    - y: 1\n", file="f")
    assert document.mark(("a", "b", 1, "y")) == Mark(4, 7)
    assert document.mark(("a", "b", 0)) == Mark(3, 7)
    assert document.mark(("a", "zzz")) == Mark(1, 1)


def test_several_documents_keep_their_own_lines():
    first, second = load_all("a: 1\n---\nb: 2\n", file="f")
    assert first.mark(("a",)) == Mark(1, 1)
    assert second.mark(("b",)) == Mark(3, 1)


def test_a_text_that_is_too_large_is_refused_before_it_is_parsed():
    with pytest.raises(YamlError, match="larger than"):
        load("a" * (1024 * 1024 + 1), file="f")


def test_files_that_cannot_be_read_are_the_same_kind_of_error(tmp_path):
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    with pytest.raises(YamlError, match="not UTF-8"):
        read_text(tmp_path / "latin1")
    with pytest.raises(YamlError, match="No such file"):
        read_text(tmp_path / "nothing")
    with pytest.raises(YamlError, match="Is a directory"):
        read_text(tmp_path)


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,? \n\t0127.~\\", max_size=60))
def test_any_text_loads_or_is_a_yaml_error(text):
    with contextlib.suppress(YamlError):
        list(load_all(text, file="f"))
