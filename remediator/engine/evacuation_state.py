"""What records of an evacuation change in the engine's memory (see ``state.apply``)."""

from __future__ import annotations

from remediator.engine.chain import Decision
from remediator.engine.events import Verb
from remediator.engine.incidents import Incident, Residue, Stage, VmProgress
from remediator.engine.model import (
    Action,
    CancelMigration,
    Migrate,
    Outcome,
    OutcomeStatus,
    RestartVm,
)

MOVES = (Migrate, CancelMigration, RestartVm)
_STAGE = {
    Migrate: Stage.MIGRATING,
    CancelMigration: Stage.CANCELLING,
    RestartVm: Stage.STARTING,
}


def begun(progress: VmProgress | None) -> int:
    """Return how many moves and restarts of a VM an incident has begun: the next has a new name."""
    return 0 if progress is None else progress.earlier + progress.attempts + progress.restarts


def started(incident: Incident, decision: Decision, action: Action) -> None:
    """Note that something was begun for one VM of a node that is being emptied."""
    progress = incident.vms.get(str(action.subject))
    if progress is None:
        return
    work = action.work
    progress.stage, progress.since_at = _STAGE[type(work)], decision.at
    progress.answered, progress.retry_at = "", 0.0
    if isinstance(work, CancelMigration):
        progress.last, progress.cancels = decision.why, action.attempt
    elif isinstance(work, Migrate):
        progress.attempts, progress.target, progress.cancels = action.attempt, work.target, 0
    else:
        progress.restarts = action.attempt


def finished(incident: Incident, decision: Decision, action: Action, outcome: Outcome) -> None:
    """Note how it ended. A plan made meanwhile knows nothing of it."""
    progress = incident.vms.get(str(action.subject))
    if progress is None or progress.stage is not _STAGE[type(action.work)]:
        return
    done = outcome.status is OutcomeStatus.SUCCEEDED
    progress.since_at, progress.retry_at = decision.at, decision.retry_at or 0.0
    if isinstance(action.work, CancelMigration):
        if done:
            progress.stage = Stage.WAITING
    elif not done:
        progress.stage, progress.last = Stage.WAITING, outcome.detail


def went_back(progress: VmProgress, decision: Decision) -> None:
    """Note why a VM waits again: an attempt to move it came to nothing by itself."""
    if progress.attempts and progress.stage is Stage.WAITING:
        progress.last = decision.why


def owe(residues: dict[str, Residue], action: Action) -> None:
    """Note that KubeVirt was told to move a VM off a node: that may have to be taken back."""
    work = action.work
    if not isinstance(work, Migrate) or work.target:
        return
    residue = residues.get(work.node)
    if residue is not None and action.subject not in residue.evicted:
        residue.evicted = (*residue.evicted, action.subject)


def called_back(
    residues: dict[str, Residue], action: Action, retry_at: float, *, done: bool
) -> None:
    """Note that it was taken back, or when that is tried again."""
    residue = residues.get(action.work.node) if isinstance(action.work, CancelMigration) else None
    if residue is None:
        return
    if done:
        residue.evicted = tuple(vm for vm in residue.evicted if vm != action.subject)
    else:
        residue.attempts, residue.retry_at = residue.attempts + 1, retry_at


def refused(progress: VmProgress, decision: Decision) -> None:
    """Note what was refused of one VM, so that it is said once."""
    progress.answered, progress.retry_at = decision.stage, decision.retry_at or 0.0


def ordered(drains: dict[str, str], decision: Decision) -> bool:
    """Take in an order to empty a node, or to give it back; False for any other order."""
    verb, _, answer = decision.stage.partition(":")
    if verb not in (Verb.DRAIN, Verb.UNDRAIN):
        return False
    if answer != "accepted":
        return True
    if verb == Verb.DRAIN:
        drains[decision.subject.name] = decision.why
    else:
        drains.pop(decision.subject.name, None)
    return True
