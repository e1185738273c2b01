"""What a person orders: each command is recorded with who gave it, whether it is obeyed or not."""

from __future__ import annotations

from remediator.engine import fencing
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.context import Context
from remediator.engine.effects import AnswerCommand
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import (
    Action,
    Fence,
    IncidentState,
    NodeFacts,
    PowerOn,
    Proof,
    ProofKind,
    Work,
    node_subject,
)
from remediator.engine.plane_values import SILENT
from remediator.engine.planner import make_plan
from remediator.engine.state import order_key

_BEFORE_PROOF = frozenset(
    {
        IncidentState.SUSPECTED,
        IncidentState.CONFIRMED,
        IncidentState.HELD,
        IncidentState.ESCALATED,
        IncidentState.FENCING,
    }
)


def give(context: Context, command: CommandGiven) -> None:
    """Obey a command or refuse it; the answer goes out after its record."""
    before = context.state.orders.get(order_key(command.id, command.verb, command.node))
    if before is not None:  # the same message again, or asked again for want of an answer
        seq, accepted = before
        text = f"it was given before: record {seq}"
        answer = AnswerCommand(id=command.id, accepted=accepted, seq=seq, text=text)
        context.effects.append(answer)
        return
    node = context.inventory.nodes.get(command.node)
    refusal = _why_not(context, command, node)
    if refusal or node is None:
        _answer(context, command, _record(context, command, refusal), accepted=False)
        return
    match command.verb:
        case Verb.CONFIRM_OFF:
            _confirm(context, command, node)
        case Verb.FENCE_OFF:
            _act(context, command, node, "the host is powered off by hand")
        case Verb.FENCE_ON:
            _act(context, command, node, "the host is powered on by hand")


def _why_not(context: Context, command: CommandGiven, node: NodeFacts | None) -> str:
    """Say why a command cannot be obeyed; empty where it can."""
    name = command.node
    if node is None:
        return f"there is no node {name}"
    if not command.by or not command.reason:
        return "who asks, and why, must be given"
    if not context.enforce:
        return "observe mode: this daemon touches nothing"
    busy = context.state.busy.get(str(node_subject(name)))
    if busy is not None:
        return f"{busy} is under way: wait until it has ended"
    if command.verb is Verb.CONFIRM_OFF:
        return _why_not_confirmed(context, node)
    if fencing.method_for(context, name) is None:
        return f"no fence configuration is for {name}"
    return ""


def _why_not_confirmed(context: Context, node: NodeFacts) -> str:
    name = node.name
    values = context.evidence.values(node, context.now)
    if values.lease in ("up", "quiet"):
        return f"{name} renews its lease: it is not off"
    if values.lease not in SILENT:
        seen = f"its lease is not silent yet by what this leader saw ({values.lease})"
        return f"{seen}: ask again in 15 s"
    if values.network == "up":
        return f"{name} answers probes: it is not off, or another host has its address"
    incident = context.state.incident_on(node_subject(name))
    if incident is None:
        return f"nothing is known against {name}: there is no incident to end"
    if incident.state not in _BEFORE_PROOF:
        return f"{name} is proven off already: its incident is {incident.state}"
    if not node.boot_id:
        return f"which boot of {name} has ended is not known"
    taken = any(
        ProofKind.OPERATOR_CONFIRMED in make_plan(context, policy, node).required_proof
        for policy in context.policies
    )
    if not taken:
        word = ProofKind.OPERATOR_CONFIRMED
        return f"no policy takes {word} as proof for the disks of its VMs (requiredProof)"
    return ""


def _confirm(context: Context, command: CommandGiven, node: NodeFacts) -> None:
    proof = Proof(
        kind=ProofKind.OPERATOR_CONFIRMED,
        node=node.name,
        boot_id=node.boot_id,
        at=context.now,
        source=command.by,
        detail=command.reason,
    )
    context.inherited -= {(node.name, node.boot_id)}  # this word is of our own clock
    decision = _record(context, command, "", proof=proof)
    _answer(context, command, decision, accepted=True)


def _act(context: Context, command: CommandGiven, node: NodeFacts, why: str) -> None:
    decision = _record(context, command, "")
    method = fencing.method_for(context, node.name)
    assert method is not None  # asked before
    steps = context.settings.steps
    work: Work
    if command.verb is Verb.FENCE_OFF:
        deadline_s = method.levels[0].deadline_s
        work = Fence(
            node=node.name,
            node_uid=node.uid,
            boot_id=node.boot_id,
            method=method.name,
            forced=True,
        )
    else:
        deadline_s = steps.power_on_deadline_s
        work = PowerOn(
            node=node.name, node_uid=node.uid, method=method.name, fenced_boot_id=node.boot_id
        )
    action = Action(
        id=f"cmd-{decision.seq}/{command.verb}/1",
        incident="",
        subject=node_subject(node.name),
        attempt=1,
        deadline_s=deadline_s,
        work=work,
    )
    context.start(action, why)
    _answer(context, command, decision, accepted=True)


def _record(
    context: Context, command: CommandGiven, refusal: str, *, proof: Proof | None = None
) -> Decision:
    incident = context.state.incident_on(node_subject(command.node))
    said = f"{command.verb} by {command.by or 'nobody'}: {command.reason or 'no reason given'}"
    return context.record(
        DecisionKind.COMMAND,
        node_subject(command.node),
        f"{said}; refused: {refusal}" if refusal else said,
        incident=incident,
        proof=proof,
        uid=command.id,
        stage=f"{command.verb}:{'refused' if refusal else 'accepted'}",
    )


def _answer(context: Context, command: CommandGiven, decision: Decision, *, accepted: bool) -> None:
    context.effects.append(
        AnswerCommand(id=command.id, accepted=accepted, seq=decision.seq, text=decision.why)
    )
