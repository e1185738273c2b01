"""Reads policy files: all faults of a document at once, each with file, line, column and field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from remediator.documents import (
    NAME,
    DocumentError,
    DocumentProblem,
    Written,
    read_directory,
    read_documents,
)
from remediator.engine.rules import (
    Approval,
    Limits,
    OnFailure,
    Policy,
    StepOptions,
    SubjectKind,
)
from remediator.policy.checks import check, check_rest
from remediator.policy.conditions import CelCondition
from remediator.policy.document import API_VERSION, KIND, STEP_WORDS, PolicyDocument, Spec
from remediator.policy.findings import Finding, findings
from remediator.policy.windows import CronWindow
from remediator.strict_yaml import Document
from remediator.typed_tree import Problem, convert

PolicyProblem = DocumentProblem
_canonical = msgspec.json.Encoder(order="sorted")


class PolicyError(DocumentError):
    """Policies that cannot be used; ``problems`` has every fault found, the text one per line."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in files: the sound policies in the order asked, faults, and warnings."""

    policies: tuple[Policy, ...]
    problems: tuple[DocumentProblem, ...]
    warnings: tuple[DocumentProblem, ...]


def shipped_directory() -> Path:
    """Return the directory of the policies that come with remediator.

    In a wheel that is ``remediator/_policies``, in a checkout ``policies`` beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_policies"
    return packaged if packaged.is_dir() else package.parent / "policies"


def label_keys(policies: Iterable[Policy]) -> frozenset[str]:
    """Return the node label keys that these policies read; watchers must keep them."""
    keys: set[str] = set()
    for policy in policies:
        keys.update(policy.node_labels)
        keys.update(_texts_beside(policy, "node.labels"))
    return frozenset(keys)


def vm_label_keys(policies: Iterable[Policy]) -> frozenset[str]:
    """Return the label keys of VirtualMachines that these policies read."""
    keys: set[str] = set()
    for policy in policies:
        keys.update(policy.vm_labels)
        keys.update(_texts_beside(policy, "vm.labels"))
    return frozenset(keys)


def _texts_beside(policy: Policy, name: str) -> frozenset[str]:
    """Return every text that a condition about these labels holds: its keys are among them."""
    condition = policy.condition
    if not isinstance(condition, CelCondition) or name not in condition.names:
        return frozenset()
    return condition.literals


def in_order(policies: Iterable[Policy]) -> list[Policy]:
    """Return policies in the order in which they are asked: priority, lower first, then name."""
    return sorted(policies, key=lambda one: (one.priority, one.name))


def read(directory: Path) -> Reading:
    """Read every ``*.yaml`` and ``*.yml`` file of a directory, whatever is wrong with some."""
    found, problems = read_directory(
        directory, PolicyDocument, check, what="policy", rest=check_rest
    )
    return _reading(found, problems)


def read_text(text: str, *, file: str) -> Reading:
    """Read the policies of one file's text, whatever is wrong with some."""
    found, problems = read_documents(
        text, file=file, into=PolicyDocument, check=check, rest=check_rest
    )
    return _reading(found, problems)


def load_directory(directory: Path) -> list[Policy]:
    """Read every ``*.yaml`` and ``*.yml`` file of a directory, in the order they are asked.

    That order is ``spec.priority`` (lower first), then name.
    Raises PolicyError: unreadable files, faults, a name used twice, or no policy at all.
    """
    reading = read(directory)
    if reading.problems:
        raise PolicyError(reading.problems)
    return list(reading.policies)


def load_text(text: str, *, file: str) -> list[Policy]:
    """Read the policies of one file's text, in the file's order. Raises PolicyError."""
    found, problems = read_documents(
        text, file=file, into=PolicyDocument, check=check, rest=check_rest
    )
    if problems:
        raise PolicyError(problems)
    return [_of(one) for one in found]


def read_object(name: str, spec: dict[str, Any] | None) -> tuple[Policy | None, list[Problem]]:
    """Return the policy that an object of the cluster holds, or all that is wrong with it."""
    tree = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec or {}}
    written, problems = convert(tree, PolicyDocument)
    document = Document("", tree, {})
    if written is None:
        return None, [*problems, *check_rest(document, problems)]
    problems = list(check(written, document))
    if not NAME.fullmatch(name):
        text = "must be lower-case letters, digits and '-', at most 63"
        problems.append(Problem(("metadata", "name"), text))
    if problems:
        return None, problems
    digest = hashlib.sha256(_canonical.encode(tree)).hexdigest()
    return make(written.spec, name=name, source=f"{KIND} {name}", content_hash=digest), []


def _reading(found: Sequence[Written[PolicyDocument]], problems: Sequence[Any]) -> Reading:
    by_name = {one.name: one for one in found}
    policies = in_order(_of(one) for one in by_name.values())
    return Reading(
        policies=tuple(policies),
        problems=tuple(sorted(problems)),
        warnings=tuple(sorted(_placed(by_name, one) for one in findings(policies))),
    )


def _placed(found: dict[str, Written[PolicyDocument]], finding: Finding) -> DocumentProblem:
    return found[finding.policy].place(finding.path, finding.text)


def _of(written: Written[PolicyDocument]) -> Policy:
    return make(
        written.value.spec,
        name=written.name,
        source=written.document.file,
        content_hash=written.content_hash,
    )


def make(spec: Spec, *, name: str, source: str, content_hash: str) -> Policy:
    """Return the engine's policy of a document that ``check`` found nothing against."""
    approval = spec.approval
    return Policy(
        name=name,
        source=source,
        content_hash=content_hash,
        subject=spec.subject,
        verdicts=spec.verdicts,
        steps=tuple(step for one in spec.steps for step in STEP_WORDS[one.do]),
        step_options=_options(spec),
        node_labels=dict(spec.node_selector.labels),
        namespaces=tuple(spec.vm_selector.namespaces),
        vm_labels=dict(spec.vm_selector.labels),
        for_s=spec.for_s,
        for_verdict=spec.for_verdict.by_verdict(),
        condition=None if spec.condition is None else CelCondition(spec.condition, spec.subject),
        windows=tuple(
            CronWindow(one.schedule, one.duration_s, one.time_zone) for one in spec.active_windows
        ),
        enforce=spec.mode == "enforce",
        required_proof=spec.required_proof,
        required_proof_by_disk=dict(spec.required_proof_by_disk),
        limits=Limits(
            at_once=spec.limits.at_once,
            per_hour=spec.limits.per_hour,
            per_subject_per_hour=spec.limits.per_subject_per_hour,
        ),
        approval=None
        if approval is None or not approval.required
        else Approval(
            by=tuple(approval.by),
            lapses_after_s=approval.lapses_after_s,
            proceeds=approval.then == "proceed",
        ),
        start_manual=spec.start_manual,
        priority=spec.priority,
    )


def _options(spec: Spec) -> dict[str, StepOptions]:
    """Return how the steps are tried that say so; a VM's step is followed by a stronger one."""
    follows = OnFailure.NEXT if spec.subject is SubjectKind.VM else OnFailure.ESCALATE
    found: dict[str, StepOptions] = {}
    for one in spec.steps:
        if (one.timeout_s, one.attempts, one.on_failure) == (None, None, None):
            continue
        for step in STEP_WORDS[one.do]:
            found[step] = StepOptions(
                timeout_s=one.timeout_s,
                attempts=one.attempts,
                on_failure=follows if one.on_failure is None else one.on_failure,
            )
    return found
