"""Reads policy files: all faults of a document at once, each with file, line, column and field."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from remediator.engine.rules import STEPS, Policy
from remediator.policy.document import ACTED_ON, OF_VMS, PolicyDocument
from remediator.strict_yaml import Document, YamlError, load_all, read_text
from remediator.typed_tree import Path as KeyPath
from remediator.typed_tree import Problem, convert, dotted

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # a DNS label, as Kubernetes has them
_canonical = msgspec.json.Encoder(order="sorted")


class PolicyProblem(msgspec.Struct, frozen=True, order=True):
    """One fault in a policy file; line and column count from 1, 0 where the whole file is meant."""

    file: str
    line: int
    column: int
    field: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.field}: {self.text}" if self.field else f"{place}: {self.text}"


class PolicyError(Exception):
    """Policies that cannot be used; ``problems`` has every fault found, the text one per line."""

    def __init__(self, problems: Sequence[PolicyProblem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


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
    if not directory.is_dir():
        raise PolicyError([PolicyProblem(str(directory), 0, 0, "", "is not a directory")])
    files = sorted(
        path
        for path in directory.iterdir()
        if path.suffix in {".yaml", ".yml"} and not path.name.startswith(".")
    )
    found: list[tuple[Policy, PolicyProblem]] = []
    problems: list[PolicyProblem] = []
    for path in files:
        try:
            found.extend(_read(read_text(path), str(path), problems))
        except YamlError as error:
            problems.append(_from_yaml(error))
    problems += _twice(found)
    if not found and not problems:
        problems.append(PolicyProblem(str(directory), 0, 0, "", "holds no policy (*.yaml)"))
    if problems:
        raise PolicyError(problems)
    return sorted((policy for policy, _ in found), key=lambda one: (one.priority, one.name))


def load_text(text: str, *, file: str) -> list[Policy]:
    """Read the policies of one file's text, in the file's order. Raises PolicyError."""
    problems: list[PolicyProblem] = []
    found: list[tuple[Policy, PolicyProblem]] = []
    try:
        found.extend(_read(text, file, problems))
    except YamlError as error:
        problems.append(_from_yaml(error))
    problems += _twice(found)
    if problems:
        raise PolicyError(problems)
    return [policy for policy, _ in found]


def _from_yaml(error: YamlError) -> PolicyProblem:
    line, column = (error.mark.line, error.mark.column) if error.mark else (0, 0)
    return PolicyProblem(error.file, line, column, "", error.problem)


def _read(
    text: str, file: str, problems: list[PolicyProblem]
) -> Iterator[tuple[Policy, PolicyProblem]]:
    """Yield each sound policy with the problem to report if its name stands elsewhere too."""
    for document in load_all(text, file=file):
        if document.value is None:
            continue  # nothing between two "---" lines, or only comments
        written, faults = convert(document.value, PolicyDocument)
        if written is not None:
            faults = list(_check(written, document))
        problems += [_placed(document, fault) for fault in faults]
        if written is not None and not faults:
            path: KeyPath = ("metadata", "name")
            twice = Problem(path, f"the name {written.metadata.name!r} is used twice")
            yield _policy(written, document), _placed(document, twice)


def _placed(document: Document, problem: Problem) -> PolicyProblem:
    mark = document.mark(problem.path)
    return PolicyProblem(document.file, mark.line, mark.column, dotted(problem.path), problem.text)


def _twice(found: Sequence[tuple[Policy, PolicyProblem]]) -> list[PolicyProblem]:
    first: dict[str, PolicyProblem] = {}
    problems = []
    for policy, twice in found:
        earlier = first.setdefault(policy.name, twice)
        if earlier is not twice:
            text = f"{twice.text}; first in {earlier.file}:{earlier.line}"
            problems.append(msgspec.structs.replace(twice, text=text))
    return problems


def _check(written: PolicyDocument, document: Document) -> Iterator[Problem]:
    """Yield what types cannot say."""
    spec = written.spec
    if not _NAME.fullmatch(written.metadata.name):
        yield Problem(
            ("metadata", "name"), "must be lower-case letters, digits and '-', at most 63"
        )
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


def _policy(written: PolicyDocument, document: Document) -> Policy:
    spec = written.spec
    return Policy(
        name=written.metadata.name,
        source=document.file,
        content_hash=hashlib.sha256(_canonical.encode(document.value)).hexdigest(),
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
