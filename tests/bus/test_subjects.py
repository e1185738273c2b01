from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.bus import subjects


@given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?", fullmatch=True))
def test_every_kubernetes_name_survives_the_way_there_and_back(name):
    token = subjects.token(name)
    assert "." not in token
    assert subjects.name_of(token) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a*",
        "*",
        ">",
        "a>",
        "a_b",
        "a/b",
        "a\x00b",
        "a\r\nb",
        "a\tb",
        "é",
        "x" * 254,
    ],
)
def test_a_name_that_cannot_be_a_token_is_refused(name):
    with pytest.raises(subjects.SubjectNameError):
        subjects.token(name)


def test_the_longest_kubernetes_name_is_accepted():
    assert subjects.token("x" * 253) == "x" * 253


def test_subjects_are_those_of_the_streams():
    assert subjects.heartbeat("lease", "node", "n1.lan") == "remediator.heartbeat.lease.node.n1_lan"
    assert subjects.signal("power", "node", "n1") == "remediator.signal.power.node.n1"
    assert subjects.inventory("Node", "n1") == "remediator.inventory.Node._.n1"
    assert subjects.inventory("Pod", "a.b", "ns") == "remediator.inventory.Pod.ns.a_b"
    assert subjects.inventory_synced("Pod") == "remediator.inventory.synced.Pod"
    assert subjects.decision("node", "n1") == "remediator.decision.node.n1"


def test_equally_named_vms_of_two_namespaces_have_two_subjects():
    one, two = subjects.decision("vm", "db.a", "ns1"), subjects.decision("vm", "db.a", "ns2")
    assert one != two
    assert subjects.subject_name(one.rpartition(".")[2]) == ("ns1", "db.a")
    assert subjects.subject_name(subjects.decision("node", "a.b").rpartition(".")[2]) == (
        "",
        "a.b",
    )


def test_only_statements_about_earlier_messages_are_markers():
    assert subjects.is_marker(subjects.inventory_synced("Node"))
    assert subjects.is_marker(subjects.watch_progress("leases"))
    assert not subjects.is_marker(subjects.inventory("Node", "synced"))
    assert not subjects.is_marker(subjects.heartbeat("lease", "node", "progress"))


def test_a_word_of_our_own_vocabulary_must_be_one_token():
    with pytest.raises(subjects.SubjectNameError):
        subjects.heartbeat("lease.x", "node", "n1")
    with pytest.raises(subjects.SubjectNameError):
        subjects.inventory("*", "n1")


def test_a_source_and_an_aspect_end_the_subject_in_tokens_of_their_own():
    subject = subjects.signal(
        "machine", "node", "n1", source="NodeHealthCheck a.b/c", aspect="Disabled"
    )
    assert subject == "remediator.signal.machine.node.n1.NodeHealthCheck-a_b-c.Disabled"
    beat = subjects.heartbeat("network", "node", "n1", source="zone-a-0")
    assert beat == "remediator.heartbeat.network.node.n1.zone-a-0"


@given(st.text(), st.text())
def test_any_subject_can_become_a_dead_letter_s(head, tail):
    subject = subjects.dead_letter("not-json", f"remediator.signal.{head}.{tail}")
    tokens = subject.split(".")
    assert tokens[:3] == ["remediator", "dead-letter", "not-json"]
    assert all(tokens)
    assert len(tokens) <= 11
    assert subject.isascii()
    assert subject.isprintable()
    assert not set(subject) & set(" *>")


def test_a_dead_letter_keeps_the_subject_that_it_came_on():
    subject = subjects.dead_letter("mismatch", "remediator.signal.guest.vm.ns/a_b")
    assert subject == "remediator.dead-letter.mismatch.signal.guest.vm.ns-a_b"
