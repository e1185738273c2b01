"""What a new leader does about actions whose outcome the leader before it did not record.

Every action is safe to repeat under its id. A fence is repeated only if the node still looks down:
it may have come back while nobody led.
"""

from __future__ import annotations

import msgspec

from remediator.engine import conviction, evacuation, evacuation_state, safeguards
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.effects import StartAction
from remediator.engine.model import Action, Fence, Outcome, OutcomeStatus, RestartVm
from remediator.engine.verdicts import LIVING
from remediator.engine.vm_remedies import is_remedy
from remediator.engine.vm_verdicts import ROWS

_REPEAT, _WAIT = "", "wait"


class Takeover:
    """The actions left over by an earlier leader, until each is repeated or dropped."""

    def __init__(self) -> None:
        self._left: set[str] = set()

    def begin(self, context: Context) -> None:
        """Take stock at the beginning of a term."""
        self._left = set(context.state.pending)

    def ended(self, action_id: str) -> None:
        """Note that an action has an outcome now."""
        self._left.discard(action_id)

    def nodes(self, context: Context) -> set[str]:
        """Return the nodes that actions are left over of: be they gone, or in no incident."""
        pending = context.state.pending
        return {_node_of(context, pending[action_id]) for action_id in self._left} - {""}

    def go_on(self, context: Context, node: str) -> list[Outcome]:
        """Repeat what may be repeated of this node's actions; return the outcomes of the rest."""
        dropped: list[Outcome] = []
        for action_id in sorted(self._left):
            action = context.state.pending[action_id]
            if _node_of(context, action) != node:
                continue
            answer = _ask(context, action)
            if answer == _WAIT:
                continue
            self._left.discard(action_id)
            if answer == _REPEAT:
                _repeat(context, action)
            else:
                dropped.append(_dropped(action, answer, context.now))
        return dropped


def _node_of(context: Context, action: Action) -> str:
    """Return the node on whose account an action is: of a VM's remedy none, wherever it runs."""
    return "" if is_remedy(context.state, action.id) else action.work.node


def _ask(context: Context, action: Action) -> str:  # noqa: PLR0911 - one reason each
    """Return "" to repeat an action, "wait", or why it must not be repeated."""
    if not context.enforce:
        return "observe mode"
    if is_remedy(context.state, action.id):
        return _why_not_remedied(context, action)
    if isinstance(action.work, evacuation_state.MOVES) and action.work.node:
        node = context.inventory.nodes.get(action.work.node)
        if node is None:
            return "its Node object is gone"
        return evacuation.may_repeat(context, action, conviction.judge(context, node)) or _REPEAT
    if not isinstance(action.work, Fence):
        return _REPEAT
    node = context.inventory.nodes.get(action.work.node)
    if node is None:
        return "its Node object is gone"
    row = conviction.judge(context, node)
    if row.verdict in LIVING:
        return f"{row.verdict}: {row.means}"
    incident = context.state.incidents.get(action.incident)
    if incident is None:
        return "its incident is over"
    if safeguards.own_node(context, incident, node) is not None:
        return "this leader runs on that node"  # its incident says how it goes on
    conviction.ask_power(context, incident, node)
    plan = incident.plan
    if plan is None or row.verdict not in plan.verdicts:
        return _WAIT
    # The world may have changed since the guards were asked: they are asked again.
    withheld = safeguards.withheld(safeguards.ask(context, incident, node, plan))
    return _WAIT if withheld or safeguards.hands_off(context, node) else _REPEAT


def _why_not_remedied(context: Context, action: Action) -> str:
    """Return why a VM's remedy is not repeated: its guest came back while nobody led."""
    incident = context.state.vm_incidents.get(action.incident)
    vmi = context.inventory.vmi(action.subject)
    if not isinstance(action.work, RestartVm) or incident is None or vmi is None:
        return _REPEAT
    row = ROWS.get(incident.row)
    was_lost = row is not None and "lost" in row.when.get("agent", frozenset())
    well = vmi.phase == "Running" and vmi.ready and vmi.agent_connected and not vmi.paused
    if was_lost and well and vmi.uid == action.work.vmi_uid:
        return "its guest agent answers again"
    return _REPEAT


def _repeat(context: Context, action: Action) -> None:
    if isinstance(action.work, Fence):  # the time in it is of the clock of the leader before
        work = msgspec.structs.replace(action.work, off_since=0.0)
        action = msgspec.structs.replace(action, work=work)
    context.record(
        DecisionKind.RESUMED,
        action.subject,
        "repeated after a take-over: its outcome was not recorded",
        incident=(
            context.state.incidents.get(action.incident)
            or context.state.vm_incidents.get(action.incident)
        ),
        incident_id=action.incident,
        action=action,
    )
    context.effects.append(StartAction(action=action))


def _dropped(action: Action, why: str, now: float) -> Outcome:
    return Outcome(
        action_id=action.id,
        status=OutcomeStatus.SPARED,
        detail=f"not repeated after the take-over: {why}",
        started_at=now,
        finished_at=now,
        changed=False,
    )
