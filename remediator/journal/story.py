"""An incident told as a whole: its records in order, its VMs, and how long each part took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from remediator.durations import format_duration
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.incidents import Stage
from remediator.engine.model import IncidentState, Proof, Verdict
from remediator.journal.rows import kind_of_work

LINES_MAX = 60  # an incident with hundreds of VMs has thousands of records; nobody reads them all
LOST = (Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED)


def proof_of(decision: Decision) -> Proof | None:
    """Return the proof that a record carries, itself or in its outcome."""
    return decision.proof or (decision.outcome.proof if decision.outcome else None)


def records(decision: Decision, story: Sequence[Decision]) -> Iterator[str]:
    """Yield one line per record, with ``decision`` marked; the middle of a long one is left out."""
    if len(story) < 2:
        return
    at = next((at for at, one in enumerate(story) if one.seq == decision.seq), 0)
    third = LINES_MAX // 3
    shown = {
        *range(third),
        *range(at - third // 2, at + third // 2),
        *range(len(story) - third, len(story)),
    }
    skipped = 0
    for number, one in enumerate(story):
        if len(story) > LINES_MAX and number not in shown:
            skipped += 1
            continue
        if skipped:
            yield _skipped(skipped, decision)
            skipped = 0
        mark = ">" if one.seq == decision.seq else " "
        about = "" if one.subject == story[0].subject else f"{one.subject}: "
        what = f"{one.kind} {kind_of_work(one)}".strip()
        since = f"+{one.at - story[0].at:.1f} s"
        yield f"{mark} {since:>9}  {one.seq:>6}  {what:<20} {about}{one.why}"
    if skipped:
        yield _skipped(skipped, decision)


def _skipped(number: int, decision: Decision) -> str:
    return f"    … {number} more: remediator decisions list --incident {decision.incident}"


def vms(story: Sequence[Decision]) -> Iterator[str]:
    """Yield one line per VM: when it was requested, ran and was up, counted from the verdict."""
    began = _lost_at(story)
    if began is None:
        return
    seen: dict[str, dict[str, float]] = {}
    for one in story:
        if one.kind is DecisionKind.PROGRESS and one.stage and one.subject.kind == "vm":
            seen.setdefault(str(one.subject), {}).setdefault(one.stage, one.at - began)
    for number, (name, stages) in enumerate(seen.items()):
        if number == LINES_MAX // 3:
            yield f"… {len(seen) - number} more VMs"
            return
        told = [
            f"{stage} after {format_duration(stages[stage])}"
            for stage in (Stage.REQUESTED, Stage.RUNNING, Stage.UP, Stage.STUCK)
            if stage in stages
        ]
        told += [str(stage) for stage in (Stage.LEFT, Stage.GONE) if stage in stages]
        yield f"{name}: {', '.join(told) or next(reversed(stages))}"


def times(story: Sequence[Decision]) -> Iterator[str]:
    """Yield how long each part of the incident took, and the actions by what they did."""
    if story and story[0].subject.kind == "vm":
        yield from _vm_times(story)
        return
    lost = next((one for one in story if one.verdict in LOST), None)
    if lost is not None:
        lease = next((seen for seen in lost.evidence if seen.plane == "lease"), None)
        if lease is not None:
            yield f"{format_duration(lease.since_s)} from the last sign of life to the verdict"
        proof = next((proof for proof in map(proof_of, story) if proof is not None), None)
        if proof is not None:
            took = format_duration(max(0.0, proof.at - lost.at))
            yield f"{took} from the verdict to proof"
        end = next((one for one in reversed(story) if one.kind is DecisionKind.RESOLVED), None)
        if end is not None and end.at >= lost.at:
            yield f"{format_duration(end.at - lost.at)} from the verdict to the end of the incident"
    yield from _actions(story)


def _vm_times(story: Sequence[Decision]) -> Iterator[str]:
    """Yield the same of the incident of a VM."""
    began = story[0].at
    sure = next((one for one in story if one.state is IncidentState.CONFIRMED), None)
    if sure is not None and sure.at > began:
        yield f"{format_duration(sure.at - began)} from the first suspicion to the verdict"
    end = next((one for one in story if one.kind is DecisionKind.RESOLVED), None)
    if end is not None:
        yield f"{format_duration(end.at - began)} from the first suspicion to the end"


def _actions(story: Sequence[Decision]) -> Iterator[str]:
    ended: dict[str, list[Decision]] = {}
    for one in story:
        if one.outcome is not None:
            ended.setdefault(kind_of_work(one) or "action", []).append(one)
    for kind, group in ended.items():
        outcomes = [one.outcome for one in group if one.outcome is not None]
        lasted = sorted(one.finished_at - one.started_at for one in outcomes)
        took = format_duration(lasted[0])
        if len(lasted) > 1:
            took = f"{took} to {format_duration(lasted[-1])}, {len(lasted)} times"
        counts: dict[str, int] = {}
        for outcome in outcomes:
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
        how = ", ".join(
            f"{number} {status}" if len(lasted) > 1 else str(status)
            for status, number in counts.items()
        )
        yield f"{kind}: {took} ({how})"


def _lost_at(story: Sequence[Decision]) -> float | None:
    return next((one.at for one in story if one.verdict in LOST), None)
