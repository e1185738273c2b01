from __future__ import annotations

import hashlib

import msgspec
import pytest
import yaml

from remediator.engine.model import ProofKind, Verdict
from remediator.policy import (
    PolicyError,
    label_keys,
    load_directory,
    load_text,
    shipped_directory,
)

HEAD = "apiVersion: remediator.io/v1alpha1\nkind: RemediationPolicy\n"


def policy(name="p", spec="verdicts: [Dead]"):
    return f"{HEAD}metadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def faults(text):
    with pytest.raises(PolicyError) as caught:
        load_text(text, file="p.yaml")
    return [str(one) for one in caught.value.problems]


def test_the_shipped_policies_load():
    found = load_directory(shipped_directory())
    lost = next(one for one in found if one.name == "node-lost")
    assert lost.verdicts == (Verdict.DEAD, Verdict.UNREACHABLE)
    assert lost.stands_for_s(Verdict.DEAD) == 0.0
    assert lost.stands_for_s(Verdict.UNREACHABLE) == 20.0
    assert lost.steps == ("cordon", "fence", "release", "recover")
    assert ProofKind.ASSUMED_AFTER not in lost.required_proof
    assert ProofKind.REMEDIATOR_SUCCEEDED not in lost.required_proof
    assert not lost.start_manual


def test_every_field_reaches_the_engine():
    (found,) = load_text(
        policy(
            "gpu",
            "priority: 5, subject: Node, verdicts: [Unreachable], for: 1m30s, mode: observe,"
            " nodeSelector: {labels: {gpu: 'true'}}, steps: [cordon, fence],"
            " requiredProof: [rebooted, assumed-after], startManual: true",
        ),
        file="p.yaml",
    )
    assert (found.name, found.source, found.priority) == ("gpu", "p.yaml", 5)
    assert found.verdicts == (Verdict.UNREACHABLE,)
    assert found.for_s == 90.0
    assert not found.enforce
    assert found.node_labels == {"gpu": "true"}
    assert found.steps == ("cordon", "fence")
    assert found.required_proof == (ProofKind.REBOOTED, ProofKind.ASSUMED_AFTER)
    assert found.start_manual


def test_single_verdicts_may_have_to_stand_longer_or_not_as_long():
    text = policy(spec="verdicts: [Dead, Unreachable], for: 10s, forVerdict: {Unreachable: 1m}")
    (found,) = load_text(text, file="p.yaml")
    assert found.stands_for_s(Verdict.DEAD) == 10.0
    assert found.stands_for_s(Verdict.UNREACHABLE) == 60.0
    text = policy(spec="verdicts: [Dead, Unreachable], for: 10s, forVerdict: {Dead: 0s}")
    (found,) = load_text(text, file="p.yaml")
    assert found.stands_for_s(Verdict.DEAD) == 0.0


def test_the_hash_is_of_the_content_and_not_of_its_comments():
    text = policy()
    (plain,), (commented,) = load_text(text, file="a"), load_text(f"# hello\n{text}", file="b")
    (other,) = load_text(policy(spec="verdicts: [Dead], for: 1s"), file="a")
    assert plain.content_hash == commented.content_hash != other.content_hash
    canonical = msgspec.json.encode(yaml.safe_load(text), order="sorted")
    assert plain.content_hash == hashlib.sha256(canonical).hexdigest()


def test_all_faults_of_a_document_come_at_once_with_line_column_and_field():
    assert faults(
        HEAD + "metadata: {name: x}\n"
        "spec:\n"
        "  verdicts: [Ded]\n"
        "  nodeSelector: {label: {a: b}}\n"
        "  for: a while\n"
        "  mode: enforced\n"
        "  steps: [fence, dance]\n"
        "  startManual: yes\n"
    ) == [
        (
            "p.yaml:5:14: spec.verdicts[0]: 'Ded' is not one of Unknown, Healthy, Suspect, Dead,"
            " Unreachable, Isolated, KubeletDown, HandlerDown, Degraded, Contradiction,"
            " Maintenance, GuestSilent, Crashed, Stuck, Paused, Unplaceable"
        ),
        "p.yaml:6:18: spec.nodeSelector.label: unknown key; did you mean 'labels'?",
        (
            "p.yaml:7:3: spec.for: 'a while' is not a duration; write 90s, 5m, 1h30m or a number of"
            " seconds"
        ),
        "p.yaml:8:3: spec.mode: 'enforced' is not one of observe, enforce",
        (
            "p.yaml:9:18: spec.steps[1].do: 'dance' is not one of cordon, fence, reschedule,"
            " release, recover, migrate, softReboot, restart, forceStop, unpause, snapshot, notify,"
            " hold"
        ),
        "p.yaml:10:3: spec.startManual: expected bool, found text 'yes'; write true or false",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            policy(spec="verdicts: [Healthy]"),
            "Healthy has no plan; only Dead, Degraded, HandlerDown",
        ),
        (policy(spec="verdicts: [Suspect]"), "Suspect has no plan"),
        (
            policy(spec="verdicts: [Dead, GuestSilent]"),
            "spec.verdicts[1]: GuestSilent is a verdict on VMs, and this policy is of nodes; write",
        ),
        (policy(spec="verdicts: []"), "names no verdict"),
        (policy(spec="verdicts: [Dead, Dead]"), "spec.verdicts[1]: Dead stands twice"),
        (policy(spec="verdicts: [Dead], steps: [fence, cordon]"), "must keep the order"),
        (policy(spec="verdicts: [Dead], steps: []"), "names no step"),
        (policy(spec="verdicts: [Dead], steps: [fence, recover]"), "recover needs cordon"),
        (policy(spec="verdicts: [Dead], requiredProof: []"), "need proof"),
        (policy(spec="verdicts: [Dead], for: -1"), "spec.for: -1 is not a duration"),
        (
            policy(spec="verdicts: [Dead], forVerdict: {Unreachable: 15s}"),
            "spec.forVerdict.Unreachable: is for a verdict that this policy does not answer",
        ),
        (
            policy(spec="verdicts: [Dead], forVerdict: {Isolated: 15s}"),
            "spec.forVerdict.Isolated: is for a verdict that this policy does not answer",
        ),
        (
            policy(spec="verdicts: [Dead], forVerdict: {Dead: soon}"),
            "spec.forVerdict.Dead: 'soon' is not a duration",
        ),
        (policy(spec="verdicts: [Dead], subject: VM"), "spec.subject: 'VM' is not one of Node"),
        (policy(spec="verdicts: [Dead], nodeSelector: {labels: {a: true}}"), "labels"),
        (policy(spec=""), "key 'verdicts' is missing"),
        (policy("Node_Lost"), "metadata.name: must be lower-case"),
        (policy("-x"), "metadata.name: must be lower-case"),
        ("just text", "expected keys and values, found text 'just text'"),
        ("a: [", "p.yaml:1:5"),
        (policy().replace("v1alpha1", "v2"), "apiVersion: 'remediator.io/v2' is not one of"),
    ],
)
def test_what_would_not_do_what_it_says_is_refused(text, says):
    assert any(says in one for one in faults(text)), faults(text)


def test_several_documents_in_one_file():
    found = load_text(f"---\n{policy('a')}---\n# nothing\n---\n{policy('b')}", file="p.yaml")
    assert [one.name for one in found] == ["a", "b"]


def test_a_fault_in_one_document_does_not_hide_another_s():
    text = f"{policy('a', 'verdicts: [Ded]')}---\n{policy('b', 'verdicts: []')}"
    assert [one.split(": ")[0] for one in faults(text)] == ["p.yaml:4:19", "p.yaml:9:8"]


def test_a_directory_is_read_in_the_order_of_priority_then_name(tmp_path):
    (tmp_path / "1.yaml").write_text(policy("zebra"))
    (tmp_path / "2.yml").write_text(policy("apple"))
    (tmp_path / "3.yaml").write_text(policy("late", "verdicts: [Dead], priority: 200"))
    (tmp_path / "4.yaml").write_text(policy("first", "verdicts: [Dead], priority: 1"))
    (tmp_path / ".hidden.yaml").write_text("not: [a policy")
    (tmp_path / "README.md").write_text("not a policy")
    assert [one.name for one in load_directory(tmp_path)] == ["first", "apple", "zebra", "late"]


def test_a_name_used_twice_names_both_places(tmp_path):
    (tmp_path / "1.yaml").write_text(policy("same"))
    (tmp_path / "2.yaml").write_text(policy("same"))
    with pytest.raises(PolicyError) as caught:
        load_directory(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/2.yaml:3:12: metadata.name: the name 'same' is used twice;"
        f" first in {tmp_path}/1.yaml:3"
    )


def test_a_directory_without_policies_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="holds no policy"):
        load_directory(tmp_path)
    with pytest.raises(PolicyError, match="is not a directory"):
        load_directory(tmp_path / "nothing")


def test_a_file_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    (tmp_path / "1.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "2.yaml").write_text("kind: x")
    with pytest.raises(PolicyError) as caught:
        load_directory(tmp_path)
    assert {one.file.rpartition("/")[2] for one in caught.value.problems} == {"1.yaml", "2.yaml"}


def test_the_labels_that_watchers_must_keep():
    found = load_text(
        f"{policy('a', 'verdicts: [Dead], nodeSelector: {labels: {x: y, gpu: nvidia}}')}---\n"
        f"{policy('b')}",
        file="p",
    )
    assert label_keys(found) == {"x", "gpu"}
