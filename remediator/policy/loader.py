"""Reads policy files: all faults of a document at once, each with file, line, column and field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from remediator.documents import (
    DocumentError,
    DocumentProblem,
    Written,
    read_directory,
    read_documents,
)
from remediator.engine.rules import STEPS, Policy
from remediator.policy.document import ACTED_ON, OF_VMS, PolicyDocument
from remediator.strict_yaml import Document
from remediator.typed_tree import Path as KeyPath
from remediator.typed_tree import Problem

PolicyProblem = DocumentProblem


class PolicyError(DocumentError):
    """Policies that cannot be used; ``problems`` has every fault found, the text one per line."""


def shipped_directory() -> Path:
    """Return the directory of the policies that come with remediator.

    In a wheel that is ``remediator/_policies``, in a checkout ``policies`` beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_policies"
    return packaged if packaged.is_dir() else package.parent / "policies"


def label_keys(policies: Iterable[Policy]) -> frozenset[str]:
    """Return the node label keys that these policies read; watchers must keep them."""
    return frozenset(key for policy in policies for key in policy.node_labels)


def load_directory(directory: Path) -> list[Policy]:
    """Read every ``*.yaml`` and ``*.yml`` file of a directory, in the order they are asked.

    That order is ``spec.priority`` (lower first), then name.
    Raises PolicyError: unreadable files, faults, a name used twice, or no policy at all.
    """
    found, problems = read_directory(directory, PolicyDocument, _check, what="policy")
    if problems:
        raise PolicyError(problems)
    return sorted(map(_policy, found), key=lambda one: (one.priority, one.name))


def load_text(text: str, *, file: str) -> list[Policy]:
    """Read the policies of one file's text, in the file's order. Raises PolicyError."""
    found, problems = read_documents(text, file=file, into=PolicyDocument, check=_check)
    if problems:
        raise PolicyError(problems)
    return [_policy(one) for one in found]


def _check(written: PolicyDocument, document: Document) -> Iterator[Problem]:
    """Yield what types cannot say."""
    spec = written.spec
    for at, verdict in enumerate(spec.verdicts):
        if verdict not in ACTED_ON:
            known = " and ".join(ACTED_ON)
            what = "is a verdict on VMs, and this policy is of nodes"
            if verdict not in OF_VMS:
                what = "has no plan"
            yield Problem(
                ("spec", "verdicts", at), f"{verdict} {what}; only {known} can be acted on"
            )
    for name in ("verdicts", "steps", "requiredProof"):
        yield from _repeated(document, name)
    if not spec.verdicts:
        yield Problem(("spec", "verdicts"), "names no verdict, so it would never match")
    if spec.for_s < 0:
        yield Problem(("spec", "for"), "must not be negative")
    for verdict in spec.for_verdict.by_verdict():
        if verdict not in spec.verdicts:
            text = "is for a verdict that this policy does not answer"
            yield Problem(("spec", "forVerdict", verdict.value), text)
    yield from _check_steps(written)
    yield from _check_proof_by_disk(written)


def _check_proof_by_disk(written: PolicyDocument) -> Iterator[Problem]:
    spec = written.spec
    for kind, proofs in spec.required_proof_by_disk.items():
        where: KeyPath = ("spec", "requiredProofByDisk", kind.value)
        if not proofs:
            yield Problem(where, "names no proof: VMs with such disks could never be restarted")
        for at, proof in enumerate(proofs):
            if proof not in spec.required_proof:
                yield Problem((*where, at), f"{proof} is not in requiredProof, which it narrows")


def _repeated(document: Document, name: str) -> Iterator[Problem]:
    spec = document.value["spec"] if isinstance(document.value, dict) else {}
    items = spec.get(name) or []
    for at, item in enumerate(items):
        if item in items[:at]:
            yield Problem(("spec", name, at), f"{item} stands twice")


def _check_steps(written: PolicyDocument) -> Iterator[Problem]:
    spec = written.spec
    path: KeyPath = ("spec", "steps")
    if not spec.steps:
        yield Problem(path, "names no step; to act on nothing, set mode: observe")
    if [STEPS.index(step) for step in spec.steps] != sorted(STEPS.index(s) for s in spec.steps):
        yield Problem(path, f"must keep the order {', '.join(STEPS)}")
    if "recover" in spec.steps and "cordon" not in spec.steps:
        yield Problem(path, "recover needs cordon: else VMs are scheduled to the dead node again")
    if {"release", "recover"} & set(spec.steps) and not spec.required_proof:
        yield Problem(
            ("spec", "requiredProof"), "release and recover need proof; name at least one kind"
        )


def _policy(written: Written[PolicyDocument]) -> Policy:
    spec = written.value.spec
    return Policy(
        name=written.name,
        source=written.document.file,
        content_hash=written.content_hash,
        verdicts=spec.verdicts,
        steps=tuple(spec.steps),
        node_labels=dict(spec.node_selector.labels),
        for_s=spec.for_s,
        for_verdict=spec.for_verdict.by_verdict(),
        enforce=spec.mode == "enforce",
        required_proof=spec.required_proof,
        required_proof_by_disk=dict(spec.required_proof_by_disk),
        start_manual=spec.start_manual,
        priority=spec.priority,
    )
