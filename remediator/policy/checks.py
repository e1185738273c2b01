"""What is wrong with one policy document beyond its types, each fault at its key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from remediator.engine.model import ProofKind
from remediator.engine.rules import STEPS, OnFailure, Policy, SubjectKind
from remediator.policy.conditions import CelCondition, ConditionFault, ConditionFaultsError
from remediator.policy.document import (
    ACTED_ON,
    API_VERSION,
    KIND,
    OF_LIVING_NODES,
    OF_LOST_NODES,
    OF_NODES,
    OF_VMS,
    STEP_WORDS,
    STEPS_OF_LIVING_NODES,
    STEPS_OF_LOST_NODES,
    STEPS_OF_VMS,
    PolicyDocument,
    Spec,
)
from remediator.policy.windows import CronWindow, WindowFaultError
from remediator.strict_yaml import Document, Mark
from remediator.typed_tree import Path, Problem, convert, did_you_mean

_PATTERN = re.compile(r"[-a-z0-9*?\[\]!]{1,63}")
_LABEL_KEY = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?")
_LONGEST_S = 30 * 86400.0  # no verdict, step or approval waits for longer


class Placed(Problem, frozen=True):
    """A problem within the text of a value: its own place, where that can be told."""

    mark: Mark | None = None


def check(written: PolicyDocument, document: Document) -> Iterator[Problem]:
    """Yield what types cannot say."""
    spec = written.spec
    yield from _verdicts(spec)
    yield from _repeated(document)
    yield from _selectors(spec)
    yield from _times(spec)
    yield from _condition(spec, document)
    yield from _windows(spec)
    if not any(verdict in OF_VMS for verdict in spec.verdicts) or spec.subject is SubjectKind.VM:
        yield from _steps(spec, document)
    yield from _proof(spec)
    yield from _limits(spec)


def check_rest(document: Document, faults: Sequence[Problem]) -> Iterator[Problem]:
    """Yield what is wrong with the fields of a document that fit, where others do not."""
    bad = {fault.path[1] for fault in faults if fault.path[:1] == ("spec",) and fault.path[1:]}
    spec = {key: value for key, value in _written(document).items() if key not in bad}
    unsaid = {*bad}
    if "verdicts" not in spec:
        # Any will do: what follows from the verdicts is left out.
        spec["verdicts"] = ["Crashed" if spec.get("subject") == SubjectKind.VM else "Dead"]
        unsaid |= {"verdicts", "forVerdict", "requiredProof", "requiredProofByDisk"}
    if unsaid & {"verdicts", "steps", "subject"}:
        unsaid |= {"steps", "verdicts"}
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "any"}}
    tree = {**head, "spec": spec}
    written, more = convert(tree, PolicyDocument)
    if written is None or more:
        return
    fitting = Document(document.file, tree, document.marks, document.values, document.text)
    for problem in check(written, fitting):
        if problem.path[1:] and problem.path[1] not in unsaid:
            yield problem


# --- when -----------------------------------------------------------------------------------------


def _verdicts(spec: Spec) -> Iterator[Problem]:
    if not spec.verdicts:
        yield Problem(("spec", "verdicts"), "names no verdict, so it would never match")
    about_vms = spec.subject is SubjectKind.VM
    known = sorted(OF_VMS if about_vms else OF_NODES)
    for at, verdict in enumerate(spec.verdicts):
        where: Path = ("spec", "verdicts", at)
        if verdict in OF_VMS and not about_vms:
            what = "is a verdict on VMs, and this policy is of nodes; write subject: VirtualMachine"
            yield Problem(where, f"{verdict} {what}")
        elif verdict in OF_NODES and about_vms:
            yield Problem(where, f"{verdict} is a verdict on nodes, and this policy is of VMs")
        elif verdict not in ACTED_ON:
            yield Problem(where, f"{verdict} has no plan; only {', '.join(known)} can be acted on")
    lost = [verdict for verdict in spec.verdicts if verdict in OF_LOST_NODES]
    living = [verdict for verdict in spec.verdicts if verdict in OF_LIVING_NODES]
    if lost and living:
        what = f"{living[0]} means that the node lives, {lost[0]} that it may not: two policies"
        yield Problem(("spec", "verdicts"), f"{what} are needed")
    for verdict in spec.for_verdict.by_verdict():
        if verdict not in spec.verdicts:
            text = "is for a verdict that this policy does not answer"
            yield Problem(("spec", "forVerdict", verdict.value), text)


def _repeated(document: Document) -> Iterator[Problem]:
    spec = _written(document)
    for name in ("verdicts", "requiredProof", "steps"):
        items = [_word(item) for item in spec.get(name) or []]
        for at, item in enumerate(items):
            if item in items[:at] and item != "notify":
                yield Problem(("spec", name, at), f"{item} stands twice")


def _written(document: Document) -> dict[str, Any]:
    spec = document.value.get("spec") if isinstance(document.value, dict) else None
    return spec if isinstance(spec, dict) else {}


def _word(item: object) -> object:
    return item.get("do") if isinstance(item, dict) else item


def _selectors(spec: Spec) -> Iterator[Problem]:
    if spec.subject is SubjectKind.VM and spec.node_selector.labels:
        text = "this policy is of VMs: vmSelector selects them"
        yield Problem(("spec", "nodeSelector"), f"{text}; a condition may ask for node.labels")
    if spec.subject is SubjectKind.NODE and (
        spec.vm_selector.labels or spec.vm_selector.namespaces
    ):
        yield Problem(("spec", "vmSelector"), "this policy is of nodes: nodeSelector selects them")
    for at, pattern in enumerate(spec.vm_selector.namespaces):
        if not _PATTERN.fullmatch(pattern):
            text = f"{pattern!r} can be no namespace: lower-case letters, digits, '-', and * or ?"
            yield Problem(("spec", "vmSelector", "namespaces", at), text)
    for selector, labels in (
        ("nodeSelector", spec.node_selector.labels),
        ("vmSelector", spec.vm_selector.labels),
    ):
        for key, value in labels.items():
            where: Path = ("spec", selector, "labels", key)
            if not _LABEL_KEY.fullmatch(key):
                yield Problem(where, f"{key!r} can be no label's key")
            elif not _LABEL_VALUE.fullmatch(value):
                yield Problem(where, f"{value!r} can be no label's value: no object ever has it")


def _times(spec: Spec) -> Iterator[Problem]:
    for_s: dict[Path, float] = {("spec", "for"): spec.for_s}
    for verdict, seconds in spec.for_verdict.by_verdict().items():
        for_s["spec", "forVerdict", verdict.value] = seconds
    for path, seconds in for_s.items():
        if seconds > _LONGEST_S:
            yield Problem(path, "is longer than 30d: nothing would ever be done")


def _condition(spec: Spec, document: Document) -> Iterator[Problem]:
    where: Path = ("spec", "condition")
    if spec.condition is None:
        return
    try:
        condition = CelCondition(spec.condition, spec.subject)
    except ConditionFaultsError as error:
        for fault in error.faults:
            mark = place_within(document, where, fault, spec.condition)
            yield Placed(where, fault.shown(spec.condition), mark)
        return
    if not condition.names:
        yield Problem(where, "reads no fact: it is the same for every subject")


def place_within(document: Document, path: Path, fault: ConditionFault, text: str) -> Mark | None:
    """Return where a place in a scalar's text stands in the file; None where it cannot be told.

    Told of one-line texts, plain or quoted, and of block texts (``|``).
    """
    start = document.values.get(path)
    lines = document.text.split("\n")
    if start is None or start.line > len(lines):
        return None
    first = lines[start.line - 1][start.column - 1 :]
    if first.startswith("|"):
        at = start.line + fault.line - 1
        if at >= len(lines):
            return None
        indent = len(lines[start.line]) - len(lines[start.line].lstrip(" "))
        return Mark(at + 1, indent + fault.column)
    if "\n" in text or first.startswith(">") or text not in first:
        return None
    return Mark(start.line, start.column + first.index(text) + fault.column - 1)


def _windows(spec: Spec) -> Iterator[Problem]:
    for at, written in enumerate(spec.active_windows):
        where: Path = ("spec", "activeWindows", at)
        try:
            window = CronWindow(written.schedule, written.duration_s, written.time_zone)
        except WindowFaultError as error:
            yield Problem((*where, error.field), str(error))
            continue
        if window.never_closes():
            text = "opens again before it has closed: it is always open, so leave it out"
            yield Problem((*where, "duration"), text)


# --- then -----------------------------------------------------------------------------------------


def _steps(spec: Spec, document: Document) -> Iterator[Problem]:
    path: Path = ("spec", "steps")
    lost = spec.subject is SubjectKind.NODE and not any(
        verdict in OF_LIVING_NODES for verdict in spec.verdicts
    )
    if not lost and "steps" not in _written(document):
        yield Problem(("spec",), "key 'steps' is missing")
        return
    if not spec.steps:
        yield Problem(path, "names no step; to act on nothing, set mode: observe")
        return
    allowed: tuple[str, ...] = STEPS_OF_LOST_NODES if lost else STEPS_OF_LIVING_NODES
    about = "a node that may be dead" if lost else "a node that lives"
    if spec.subject is SubjectKind.VM:
        allowed, about = STEPS_OF_VMS, "a VM"
    words = [word for word, steps in STEP_WORDS.items() if set(steps) <= set(allowed)]
    fits = True
    for at, step in enumerate(spec.steps):
        if step.do not in words:
            fits = False
            yield Problem((*path, at), f"{step.do} is no step about {about}{_of(step.do, words)}")
    if not fits:
        return
    steps = [name for step in spec.steps for name in STEP_WORDS[step.do]]
    if lost:
        yield from _steps_of_lost(steps)
    else:
        yield from _steps_of_living(spec, steps)
    yield from _step_options(spec)


def _of(word: str, words: list[str]) -> str:
    hint = did_you_mean(word, words)
    return hint if "known" in hint else f"; known: {', '.join(sorted(words))}"


def _steps_of_lost(steps: list[str]) -> Iterator[Problem]:
    path: Path = ("spec", "steps")
    if len(set(steps)) < len(steps):
        yield Problem(path, "reschedule is release and recover in one: they stand twice")
        return
    if [STEPS.index(step) for step in steps] != sorted(STEPS.index(step) for step in steps):
        yield Problem(path, "must keep the order cordon, fence, reschedule (release, recover)")
    if "recover" in steps and "cordon" not in steps:
        yield Problem(path, "recover needs cordon: else VMs are scheduled to the dead node again")


def _steps_of_living(spec: Spec, steps: list[str]) -> Iterator[Problem]:
    path: Path = ("spec", "steps")
    if "hold" in steps[:-1]:
        at = steps.index("hold")
        yield Problem((*path, at + 1), f"comes after hold, which ends the plan: {steps[at + 1]}")
    if (
        "migrate" in steps
        and "restart" in steps
        and steps.index("restart") < steps.index("migrate")
    ):
        yield Problem((*path, steps.index("migrate")), "comes after restart, which moves all alike")
    if spec.subject is SubjectKind.NODE and "migrate" in steps and "cordon" not in steps:
        yield Problem(path, "migrate needs cordon: else VMs are scheduled to the node again")
    if spec.subject is SubjectKind.NODE and "cordon" in steps and steps.index("cordon") > 0:
        yield Problem((*path, steps.index("cordon")), "cordon comes first")


def _step_options(spec: Spec) -> Iterator[Problem]:
    steps = spec.steps
    for at, step in enumerate(steps):
        where: Path = ("spec", "steps", at)
        last = at == len(steps) - 1
        if step.on_failure is OnFailure.NEXT and last:
            yield Problem((*where, "onFailure"), "next: there is no step after this one")
        if step.on_failure in (OnFailure.HOLD, OnFailure.ESCALATE) and step.do in (
            "hold",
            "notify",
        ):
            yield Problem((*where, "onFailure"), f"{step.do} cannot fail")
        if step.do == "hold" and (step.timeout_s is not None or step.attempts is not None):
            yield Problem(where, "hold is not tried: it has no timeout and no attempts")
        if step.timeout_s is not None and not 1.0 <= step.timeout_s <= _LONGEST_S:
            yield Problem((*where, "timeout"), "must be at least 1s and at most 30d")


def _proof(spec: Spec) -> Iterator[Problem]:
    steps = {name for step in spec.steps for name in STEP_WORDS[step.do]}
    lost = spec.subject is SubjectKind.NODE and not any(
        verdict in OF_LIVING_NODES for verdict in spec.verdicts
    )
    restarts = lost and (bool({"release", "recover"} & steps))
    if restarts and not spec.required_proof:
        text = "release and recover need proof; name at least one kind"
        yield Problem(("spec", "requiredProof"), text)
    unset = Policy(name="", source="", content_hash="", verdicts=()).required_proof
    if not lost and (spec.required_proof != unset or spec.required_proof_by_disk):
        where = "requiredProof" if spec.required_proof != unset else "requiredProofByDisk"
        yield Problem(("spec", where), "only policies about lost nodes ask for proof")
    for kind, proofs in spec.required_proof_by_disk.items():
        at_kind: Path = ("spec", "requiredProofByDisk", kind.value)
        if not proofs:
            yield Problem(at_kind, "names no proof: VMs with such disks could never be restarted")
        for at, proof in enumerate(proofs):
            if proof not in spec.required_proof:
                yield Problem((*at_kind, at), f"{proof} is not in requiredProof, which it narrows")
    by_fence = {ProofKind.POWER_OFF_VERIFIED, ProofKind.STORAGE_FENCED, ProofKind.KERNEL_DEAD}
    by_fence |= {ProofKind.REMEDIATOR_SUCCEEDED, ProofKind.REBOOTED, ProofKind.INSTANCE_GONE}
    if (
        restarts
        and "fence" in steps
        and spec.required_proof
        and not by_fence & set(spec.required_proof)
    ):
        text = "no fence device gives any of these: fence could never be allowed"
        yield Problem(("spec", "requiredProof"), text)


# --- limits ---------------------------------------------------------------------------------------


def _limits(spec: Spec) -> Iterator[Problem]:
    limits, where = spec.limits, ("spec", "limits")
    per_hour = limits.per_hour
    if per_hour is not None and (limits.at_once or 0) > per_hour:
        text = f"{limits.at_once} at once can never be reached with {per_hour} per hour"
        yield Problem((*where, "atOnce"), text)
    if per_hour is not None and (limits.per_subject_per_hour or 0) > per_hour:
        text = f"is more than perHour, {per_hour}, which counts all subjects"
        yield Problem((*where, "perSubjectPerHour"), text)
    approval, path = spec.approval, ("spec", "approval")
    if approval is None:
        return
    if not approval.required and (approval.by or approval.then == "proceed"):
        text = "nobody is asked, yet by or then says what comes of asking"
        yield Problem((*path, "required"), text)
    if not 60.0 <= approval.lapses_after_s <= _LONGEST_S:
        yield Problem((*path, "lapsesAfter"), "must be at least 1m and at most 30d")
    for at, who in enumerate(approval.by):
        if not who.removeprefix("group:").strip():
            yield Problem((*path, "by", at), "names nobody")
    if spec.mode == "observe":
        yield Problem(path, "mode: observe does nothing that could be approved")
