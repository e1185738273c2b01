"""Pauses: what a person has frozen, or declared to be none of our business, and why.

They come from two places: orders (``remediator pause``, in the engine's memory) and annotations on
the objects themselves. An annotation whose value is not understood freezes: it fails closed.
"""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine.chain import GuardRow
from remediator.engine.context import Context
from remediator.engine.guard_answers import Answer, answers, ask, grant, wait
from remediator.engine.incidents import Incident, VmIncident
from remediator.engine.inventory import Key
from remediator.engine.model import Subject, node_subject, vm_subject
from remediator.engine.safeguards.node_rules import PausedSeen
from remediator.engine.standing import Pause, PauseMeaning

PAUSE_ANNOTATION = "remediator.io/pause"  # "ignore", or anything else (also nothing): freeze
CLUSTER = "cluster"


@answers("cancelled", PausedSeen)
def _cancelled_answer(saw: PausedSeen) -> Answer:
    return wait(saw.why) if saw.why else grant("not cancelled")


def paused_row(context: Context, subject: Subject) -> GuardRow:
    """Wait while a person has paused this node or VM, or anything that it lies in."""
    why = paused(context, subject)
    until = lifted_at(context, subject) if why else None
    return ask("paused", PausedSeen(why=why, until=until))


def cancelled(context: Context, incident: Incident | VmIncident | None) -> str:
    """Return who has cancelled the plan of an incident, in words, or ""."""
    stop = context.state.cancelled.get(incident.id) if incident is not None else None
    if stop is None or incident is None:
        return ""
    again = f"'remediator retry {incident.id}' takes it up again"
    return f"cancelled by {stop.by}: {stop.reason}; {again}"


def cancelled_row(context: Context, incident: Incident | VmIncident | None) -> GuardRow:
    """Wait where a person has cancelled the plan of this incident."""
    return ask("cancelled", PausedSeen(why=cancelled(context, incident), until=None))


def stops(context: Context, incident: Incident) -> tuple[GuardRow, ...]:
    """Return the answers of the two guards by which a person holds a plan."""
    return (paused_row(context, incident.subject), cancelled_row(context, incident))


def held(context: Context, incident: Incident) -> str:
    """Return why a plan that is under way goes no further now, in words, or ""."""
    return paused(context, incident.subject) or cancelled(context, incident)


def paused(context: Context, subject: Subject) -> str:
    """Return why nothing may be begun on a node or a VM, in words, or ""."""
    return next(_words(context, subject, tuple(PauseMeaning)), "")


def ignored(context: Context, subject: Subject) -> str:
    """Return why a node or a VM is none of our business, in words, or ""."""
    return next(_words(context, subject, (PauseMeaning.IGNORE,)), "")


def lifted_at(context: Context, subject: Subject) -> float | None:
    """Return when the last pause on this subject ends by itself; None where one does not."""
    until = [pause.until for pause in _standing(context, subject)]
    ends = [each for each in until if each is not None]
    annotated = _annotation(context, subject) is not None
    return max(ends) if ends and len(ends) == len(until) and not annotated else None


def scopes(context: Context, subject: Subject) -> tuple[str, ...]:
    """Return every scope that a subject lies in, the widest first."""
    found = [CLUSTER]
    node = subject.name
    if subject.kind == "vm":
        vmi = context.inventory.vmi(subject)
        node = vmi.node if vmi is not None else ""
    facts = context.inventory.nodes.get(node)
    if facts is not None and facts.zone:
        found.append(f"zone/{facts.zone}")
    if subject.kind == "vm":
        found.append(f"namespace/{subject.namespace}")
    if node:
        found.append(f"node/{node}")
    if subject.kind == "vm":
        found.append(str(subject))
    return tuple(found)


def _standing(context: Context, subject: Subject) -> list[Pause]:
    pauses = context.state.pauses
    if not pauses:
        return []
    found = (pauses.get(scope) for scope in scopes(context, subject))
    return [
        pause
        for pause in found
        if pause is not None and (pause.until is None or context.now < pause.until)
    ]


def _words(context: Context, subject: Subject, meanings: tuple[PauseMeaning, ...]) -> Iterator[str]:
    for pause in _standing(context, subject):
        if pause.meaning in meanings:
            does = "ignored" if pause.meaning is PauseMeaning.IGNORE else "paused"
            yield f"{pause.scope} is {does} by {pause.by}: {pause.reason}"
    annotated = _annotation(context, subject)
    if annotated in meanings:
        yield f"it carries the annotation {PAUSE_ANNOTATION} ({annotated})"


def annotated(context: Context) -> Iterator[tuple[Subject, PauseMeaning]]:
    """Yield every node and VM that an annotation pauses, in order."""
    subjects = [node_subject(name) for name in sorted(context.inventory.nodes)]
    subjects += [vm_subject(*key) for key in sorted(context.inventory.vms)]
    for subject in subjects:
        meaning = _annotation(context, subject)
        if meaning is not None:
            yield subject, meaning


def _annotation(context: Context, subject: Subject) -> PauseMeaning | None:
    """Return what the annotation on the object itself asks for."""
    if subject.kind == "node":
        node = context.inventory.nodes.get(subject.name)
        annotations = node.annotations if node is not None else {}
    else:
        key: Key = (subject.namespace, subject.name)
        vm = context.inventory.vms.get(key)
        annotations = vm.annotations if vm is not None else {}
    value = annotations.get(PAUSE_ANNOTATION)
    if value is None:
        return None
    ignore = value.strip().lower() == PauseMeaning.IGNORE
    return PauseMeaning.IGNORE if ignore else PauseMeaning.FREEZE
