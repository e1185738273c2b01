"""From a decision to the columns by which people look for it."""

from __future__ import annotations

import typing
from collections.abc import Iterator

import msgspec

from remediator.engine.chain import Decision
from remediator.engine.model import ForceStop, StartVm, Subject, Work

KINDS_OF_WORK = frozenset(str(kind.__struct_config__.tag) for kind in typing.get_args(Work))


class IndexRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is indexed of one decision. Empty strings stand for "does not apply"."""

    seq: int
    at: float
    kind: str
    subject: str
    incident: str
    state: str
    verdict: str
    node: str  # the node that it is about; where only its incident knows it, filled in later
    action: str  # cordon, fence, release, force-stop, start, uncordon
    outcome: str
    policy: str  # likewise filled in from the incident
    vms: tuple[tuple[str, str], ...]  # (namespace, name) of every VM that it mentions
    text: str  # searched by words


def index_row(decision: Decision) -> IndexRow:
    """Return the columns of one decision."""
    return IndexRow(
        seq=decision.seq,
        at=decision.at,
        kind=str(decision.kind),
        subject=str(decision.subject),
        incident=decision.incident,
        state=str(decision.state or ""),
        verdict=str(decision.verdict or ""),
        node=_node(decision),
        action=kind_of_work(decision),
        outcome=str(decision.outcome.status) if decision.outcome else "",
        policy=decision.plan.policy if decision.plan else "",
        vms=tuple(sorted(set(_vms(decision)))),
        text=" ".join(part for part in _texts(decision) if part),
    )


def kind_of_work(decision: Decision) -> str:
    """Return what was done: from the action, else from the id of the action that ended."""
    if decision.action is not None:
        return str(type(decision.action.work).__struct_config__.tag)
    parts = decision.outcome.action_id.split("/") if decision.outcome else []
    return next((part for part in parts if part in KINDS_OF_WORK), "")


def _node(decision: Decision) -> str:
    if decision.subject.kind == "node":
        return decision.subject.name
    work = decision.action.work if decision.action else None
    if work is not None and not isinstance(work, StartVm):
        return work.node
    return decision.proof.node if decision.proof else ""


def _vms(decision: Decision) -> Iterator[tuple[str, str]]:
    about: list[Subject] = [decision.subject]
    if decision.action is not None:
        about.append(decision.action.subject)
        work = decision.action.work
        if isinstance(work, ForceStop):
            yield work.namespace, work.vmi
        elif isinstance(work, StartVm):
            yield work.namespace, work.vm
    if decision.plan is not None:
        about += [plan.vm for plan in decision.plan.vms]
    for subject in about:
        if subject.kind == "vm":
            yield subject.namespace, subject.name


def _texts(decision: Decision) -> Iterator[str]:
    yield decision.why
    yield str(decision.subject)
    yield decision.incident
    yield decision.row
    for seen in decision.evidence:
        yield f"{seen.plane} {seen.value} {seen.source} {seen.detail}"
    for clause in decision.clauses:
        yield f"{clause.policy} {clause.clause} {clause.value}"
    for guard in decision.guards:
        yield f"{guard.guard} {guard.answer} {guard.why}"
    if decision.outcome is not None:
        yield f"{decision.outcome.action_id} {decision.outcome.status} {decision.outcome.detail}"
    for proof in (decision.proof, decision.outcome.proof if decision.outcome else None):
        if proof is not None:
            yield f"{proof.kind} {proof.source} {proof.detail}"
    if decision.plan is not None:
        for vm in decision.plan.vms:
            yield f"{vm.vm} {vm.treatment} {vm.why}"
