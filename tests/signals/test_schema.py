from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signal_door import NOW, Door, document

from remediator.engine.model import Plane, Reading
from remediator.signals.address import RULES
from remediator.signals.schema import signal_schema

SCHEMA = signal_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema_of_the_dialect_that_it_names():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_command_prints_it():
    printed = subprocess.run(
        [sys.executable, "-m", "remediator", "schema", "signal"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(printed.stdout) == SCHEMA
    assert printed.stderr == b""


def test_every_plane_has_rules():
    assert set(RULES) == set(Plane)


names = st.sampled_from(
    ["n1", "n1.rack-2", "N1", "", "-a", "a..b", "a_b", "a/b", "n\n", "é", "x" * 253, "x" * 254, 5]
)
texts = st.one_of(
    st.sampled_from(["", "a", "x" * 63, "x" * 64, "x" * 253, "x" * 254, "é" * 253, "x" * 1001]),
    st.sampled_from(
        ["a\n", "\x00", "a\u2028", "a\x9f", "a\x7f", "a\u202eb", "ok\u00a0ok", None, 5]
    ),
)
times = st.sampled_from([NOW, 0, -0.0, 5, 1e11, 99999999999.9, -1, 1.8e12, "1", True, None])
documents = st.fixed_dictionaries(
    {
        "plane": st.sampled_from([*(plane.value for plane in Plane), "astral", 5]),
        "source": texts,
        "subject": st.fixed_dictionaries(
            {"kind": st.sampled_from(["node", "vm", "vantage", "daemon", 5]), "name": names},
            optional={"namespace": names, "uid": st.just("x")},
        ),
        "reading": st.sampled_from([*(reading.value for reading in Reading), "off", None]),
        "at": times,
    },
    optional={
        "aspect": texts,
        "zone": texts,
        "detail": texts,
        "by": texts,
        "first": st.sampled_from([True, False, 0, None, "x"]),
        "unknown": st.sampled_from([None, {"a": [1]}, "x"]),
    },
)
nearly_good = st.builds(
    lambda drawn, keys: document(**{key: drawn[key] for key in keys if key in drawn}),
    documents,
    st.sets(st.sampled_from(["plane", "source", "subject", "reading", "at", "detail", "first"])),
)

of_vms = st.builds(
    lambda plane, name, namespace: document(
        plane=plane, subject={"kind": "vm", "name": name, "namespace": namespace}
    ),
    st.sampled_from(["guest", "storage"]),
    st.sampled_from(["db", "a.b", "a_b"]),
    names.map(str) | st.sampled_from(["a" * 63, "a" * 64, "0-a"]),
)


@settings(max_examples=1500)
@given(
    st.one_of(documents, nearly_good, of_vms), st.sets(st.sampled_from(["plane", "at"]), max_size=1)
)
def test_the_schema_and_the_intake_agree_on_every_document(drawn, missing):
    """On a subject that says what the document says; from a source that may speak."""
    told = {key: value for key, value in drawn.items() if key not in missing}
    door = Door(origin="o")
    subject = told.get("subject", {})
    namespace, name = subject.get("namespace", ""), subject.get("name")
    where = f"{namespace}/{name}" if namespace else f"{name}"
    vantage = subject.get("kind") == "vantage"
    if vantage and isinstance(told.get("source"), str):
        told["source"] = name  # a vantage point speaks for itself
    at_subject = f"remediator.signal.{told.get('plane', 'machine')}.{subject.get('kind')}.{where}"
    if "by" not in told and told.get("plane") in ("lease", "kubelet", "handler", "power"):
        told["by"] = "o"
    taken = door.take(told, at_subject.replace(str(name), str(name).replace(".", "_")))
    valid = VALIDATOR.is_valid(told)
    if door.reasons == ["unknown-source"]:
        return  # the schema says nothing of sources
    assert (taken is not None) == valid, (door.office.buried, list(VALIDATOR.iter_errors(told)))


@pytest.mark.parametrize("plane", list(Plane))
def test_every_plane_has_documents_that_satisfy_it(plane):
    for kind, readings in RULES[plane].items():
        about = {"kind": kind, "name": "a"} | ({"namespace": "b"} if kind == "vm" else {})
        for reading in Reading:
            told = document(plane=plane.value, subject=about, reading=reading.value)
            assert VALIDATOR.is_valid(told) == (reading in readings)
