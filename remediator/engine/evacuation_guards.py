"""Guards before a node is emptied: those of nodes, as far as they are about it, and one more."""

from __future__ import annotations

from remediator.engine import guard_answers
from remediator.engine.chain import GuardRow
from remediator.engine.context import Context
from remediator.engine.guard_answers import Answer
from remediator.engine.incidents import Incident
from remediator.engine.model import FactKind, IncidentState, Record

# About powering a host off, or about what that would win: a node that lives on may be emptied
# though it runs etcd, and cordoned though it is empty.
_OF_FENCES = frozenset({"control-plane", "vms"})
NODES_AT_ONCE = "evacuations-at-once"


class NodesAtOnceSeen(Record, frozen=True, kw_only=True):
    """What the guard of this name looks at."""

    limit: int
    running: tuple[str, ...]
    count: int


@guard_answers.answers(NODES_AT_ONCE, NodesAtOnceSeen)
def _nodes_at_once(saw: NodesAtOnceSeen) -> Answer:
    text = f"{saw.count} of {saw.limit} nodes are being emptied"
    if saw.count >= saw.limit:
        return guard_answers.wait(f"{text}: {', '.join(saw.running)}")
    return guard_answers.grant(text)


def adapt(context: Context, incident: Incident, rows: tuple[GuardRow, ...]) -> tuple[GuardRow, ...]:
    """Return the guards' answers as they count for a node that lives and is to be emptied."""
    kept = tuple(row for row in rows if row.guard not in _OF_FENCES)
    running = [
        other.subject.name
        for other in context.state.incidents.values()
        if other.state is IncidentState.EVACUATING and other.id != incident.id
    ]
    if FactKind.MIGRATION not in context.inventory.synced_kinds:
        why = "the live migrations are not all listed yet: how many are in flight is not known"
        kept = (*kept, GuardRow(guard="inventory", answer=guard_answers.WAIT, why=why))
    seen = NodesAtOnceSeen(
        limit=context.settings.evacuation.nodes_at_once,
        running=guard_answers.named(running),
        count=len(running),
    )
    return (*kept, guard_answers.ask(NODES_AT_ONCE, seen))
