"""Orders about one host: power it off or on, or take a person's word that it is off."""

from __future__ import annotations

from remediator.engine import fencing, order_records
from remediator.engine.context import Context
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
    """Obey or refuse what is ordered about a host."""
    node = context.inventory.nodes.get(command.node)
    refusal = _why_not(context, command, node)
    if refusal or node is None:
        subject = node_subject(command.node)
        incident = context.state.incident_on(subject)
        order_records.refuse(context, command, subject, refusal, incident=incident)
        return
    match command.verb:
        case Verb.CONFIRM_OFF:
            _confirm(context, command, node)
        case Verb.FENCE_OFF:
            _act(context, command, node, "the host is powered off by hand")
        case _:
            _act(context, command, node, "the host is powered on by hand")


def _why_not(context: Context, command: CommandGiven, node: NodeFacts | None) -> str:
    """Say why a command cannot be obeyed; empty where it can."""
    name = command.node
    if node is None:
        return f"there is no node {name}"
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
    subject = node_subject(node.name)
    incident = context.state.incident_on(subject)
    decision = order_records.record(context, command, subject, incident=incident, proof=proof)
    order_records.answer(context, command, decision, accepted=True)


def _act(context: Context, command: CommandGiven, node: NodeFacts, why: str) -> None:
    subject = node_subject(node.name)
    incident = context.state.incident_on(subject)
    decision = order_records.record(context, command, subject, incident=incident)
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
    order_records.answer(context, command, decision, accepted=True)
