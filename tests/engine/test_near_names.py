from __future__ import annotations

import pytest

from remediator.engine.near_names import near, suggestion

NODES = [f"worker-{number:04d}.example.com" for number in range(5000)]


@pytest.mark.parametrize(
    ("name", "names", "first"),
    [
        ("n20", ["n01", "n02", "n03", "n04"], "n02"),  # two digits swapped
        ("worker-042.example.com", NODES, "worker-0042.example.com"),
        ("worker-4711.exmple.com", NODES, "worker-4711.example.com"),
        ("WORKER-0007.example.com", NODES, "worker-0007.example.com"),
        ("db", ["db-0", "web", "cache"], "db-0"),
    ],
)
def test_the_nearest_stands_first(name, names, first):
    assert near(name, names)[0] == first


def test_what_is_not_alike_is_not_offered():
    assert near("postgres", ["n01", "n02"]) == []
    assert near("anything", []) == []
    assert near("", ["n01"]) == []


def test_a_suggestion_ends_a_sentence():
    assert suggestion(["a", "b"]) == "; did you mean a, b?"
    assert suggestion([]) == ""
